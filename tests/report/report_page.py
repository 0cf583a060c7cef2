"""The report of made-up predictions, read by a strict reader of HTML."""

import html.parser

import numpy as np

from mtl_face.evaluation.scoring import score
from mtl_face.report import Report, write_report

VOID = {"meta", "br", "img", "link", "input", "hr"}
HEADINGS = {"h1": 1, "h2": 2, "h3": 3, "h4": 4}
LOADING = {"src", "href", "srcset", "data", "action", "poster", "background", "formaction"}
HISTORY = [
    {"step": 10, "epoch": 0.1, "train/loss": 2.0, "learning_rate/heads": 1e-3},
    {"step": 20, "epoch": 0.2, "train/loss": 1.0, "validation/p": 0.4},
]


class Page(html.parser.HTMLParser):
    """A strict reader: tags balance, ids are unique, and everything that loads is noted."""

    def __init__(self, text):
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.ids: list[str] = []
        self.loads: list[str] = []
        self.tags: list[str] = []
        self.words: list[str] = []
        self.alternatives: list[str | None] = []
        self.levels: list[int] = []
        self.feed(text)
        self.close()
        assert not self.open, self.open

    def handle_starttag(self, tag, attrs):
        names = [name for name, _ in attrs]
        assert len(names) == len(set(names)), (tag, names)
        assert not [name for name in names if name.startswith("on")]
        self.tags.append(tag)
        self.ids += [value for name, value in attrs if name == "id"]
        self.loads += [value for name, value in attrs if name.rpartition(":")[2] in LOADING]
        if tag in HEADINGS:
            self.levels.append(HEADINGS[tag])
        if tag in ("img", "svg") and dict(attrs).get("aria-hidden") != "true":
            self.alternatives.append(dict(attrs).get("alt") or dict(attrs).get("aria-label"))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag):
        assert self.open, tag
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] != "style":
            self.words.append(data)

    @property
    def text(self):
        return " ".join(" ".join(self.words).split())


def picture(row):
    return np.full((112, 112, 3), row % 256, np.uint8)


def look(pictures):
    """Attention of two modules and four heads over 3 x 3 patches."""
    weights = np.random.default_rng(0).random((len(pictures), 2, 4, 3, 9), np.float32)
    return weights / weights.sum(axis=-1, keepdims=True)


def report(path, labels, predictions, **changes):
    metrics = changes.pop("metrics", None) or score(labels, predictions)
    arguments = {
        "metrics": metrics,
        "predictions": predictions,
        "truth": labels,
        "history": HISTORY,
        "images": picture,
        "title": "A run",
        "config": {"model": {"preset": "tiny"}, "seed": 3},
    } | changes
    write_report(path / "report.html", Report(**arguments))
    text = (path / "report.html").read_text(encoding="utf-8")
    return text, Page(text)
