import dataclasses
import html.parser
import itertools
import re
from pathlib import Path

import numpy as np
import pytest
from evaluation_tables import decisions_alone, make_labels, make_predictions
from markupsafe import Markup

from mtl_face.errors import UserError, WorkdirError
from mtl_face.evaluation.scoring import score
from mtl_face.report import Report, curves, figures, reliability, write_report
from mtl_face.report.figures import FIRST, SECOND, THIRD
from mtl_face.report.page import printable

CSS = (Path(figures.__file__).parent / "templates" / "style.css").read_text()
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


@pytest.fixture
def real_drawings():
    """Asked for by a test that looks at the drawings."""


@pytest.fixture(autouse=True)
def quick(request, monkeypatch):
    """Leaves the drawings empty: they take most of the time, and have tests of their own."""

    def empty(axes, *, identifier, description):
        return Markup('<svg role="img" aria-label="{}"></svg>').format(printable(description))

    if "real_drawings" not in request.fixturenames:
        for module in (curves, figures, reliability):
            monkeypatch.setattr(module, "to_svg", empty)


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


def test_page_is_sound_and_loads_nothing(tmp_path, real_drawings):
    labels = make_labels(200)
    text, page = report(tmp_path, labels, make_predictions(labels), notice="Rendered faces.")
    assert text.startswith("<!DOCTYPE html>")
    assert len(page.ids) == len(set(page.ids))
    inside = {part.split(")")[0] for part in text.split("url(#")[1:]}
    assert inside
    assert inside <= set(page.ids)
    for address in page.loads:
        if address.startswith("#"):
            assert address[1:] in page.ids
        else:
            assert address.startswith("data:image/")
    assert not {"script", "iframe", "object", "embed", "link", "base"} & set(page.tags)
    # not even an address of a name space, so that a search for one finds nothing
    for trace in ("http:", "https:", "@import", "javascript:"):
        assert trace not in text
    assert all(page.alternatives)
    drawings = {"curves": 3, "va": 4, "expression": 1, "au": 1, "reliability": 2, "risk": 2}
    legend, strips = 2, 2 * 20
    assert page.tags.count("svg") == sum(drawings.values()) + legend + strips
    assert "Rendered faces." in page.text
    assert len(text) < 3_000_000


def test_headings_are_in_order(tmp_path):
    labels = make_labels(200)
    _, page = report(tmp_path, labels, make_predictions(labels), attention=look)
    assert page.levels[0] == 1
    assert page.levels.count(1) == 1
    assert all(after <= before + 1 for before, after in itertools.pairwise(page.levels))
    assert 3 in page.levels


def test_numbers_stand_beside_their_baseline_and_count(tmp_path):
    labels = make_labels(300)
    predictions = make_predictions(labels)
    metrics = score(labels, predictions)
    _, page = report(tmp_path, labels, predictions)
    for name, task in {"mean CCC": "va", "mean F1": "au", "macro F1": "expr"}.items():
        row = page.text.split(name)[1].split()[:4]
        value, baseline = metrics[task]["score"], metrics[task]["constant_baseline"]
        assert row == [
            f"{value:.3f}", f"{baseline:.3f}", f"{value - baseline:+.3f}",
            str(metrics[task]["num_valid"]),
        ]  # fmt: skip


def test_text_of_the_user_is_escaped(tmp_path):
    labels = make_labels(60)
    hostile = "<script>alert('x')</script>\"\x00&amp;"
    labels = dataclasses.replace(labels, video=np.full(60, hostile + ".", object))
    predictions = dataclasses.replace(
        make_predictions(labels), metadata={hostile: {hostile: hostile}}
    )
    text, page = report(
        tmp_path,
        labels,
        predictions,
        title=hostile,
        notice=hostile,
        config={hostile: [hostile]},
        history=[{"step": 1, hostile: 2.0, f"train/{hostile}": 1.0}],
    )
    assert "script" not in page.tags
    assert "<script" not in text
    assert "\x00" not in text
    assert "alert('x')" in page.text
    assert "&amp;" in page.text  # shown as it was written


@pytest.mark.parametrize("task", ["va", "au", "expr", "all"])
def test_tasks_without_labels_are_stated(tmp_path, task):
    labels = make_labels(40)
    if task in ("va", "all"):
        labels.valence[:] = np.nan
    if task in ("au", "all"):
        labels.au[:] = np.nan
    if task in ("expr", "all"):
        labels.expression[:] = -1
    _, page = report(tmp_path, labels, make_predictions(labels))
    assert "no labels" in page.text
    assert "No frame counts for" in page.text
    if task != "all":
        assert f"{task}.score no row has the labels that count for {task}" in page.text


def test_every_score_has_its_interval(tmp_path):
    labels = make_labels(300)
    predictions = dataclasses.replace(
        make_predictions(labels), valence_std=np.full(300, 0.5), arousal_std=np.full(300, 0.4)
    )
    metrics = score(labels, predictions, num_resamples=50)
    _, page = report(tmp_path, labels, predictions, metrics=metrics)
    told = metrics["bootstrap"]["intervals"]
    shown = {
        path: f"{value(metrics, path):.3f} [{ends[0]:.3f}, {ends[1]:.3f}]"
        for path, ends in told.items()
        if ends is not None and ".per_au." not in path.replace("au.per_au", "")
    }
    absent = {path: words for path, words in shown.items() if words not in page.text}
    assert not absent
    assert len(shown) > 60
    assert "95% intervals, from 50 resamples of the 30 videos" in page.text
    without, _ = report(tmp_path, labels, predictions)
    assert "No intervals: no resamples were asked for." in without
    assert "[" not in Page(without).text.split("Learning curves")[2].split("Action units")[0]


def value(metrics, path):
    for name in path.split("."):
        metrics = metrics[name]
    return metrics


def test_decisions_without_probabilities(tmp_path):
    labels = make_labels(100)
    answers = dataclasses.replace(decisions_alone(make_predictions(labels)), metadata={})
    answers.valence[:] = answers.arousal[:] = np.nan
    metrics = score(labels, answers)
    _, page = report(
        tmp_path, labels, answers, metrics=metrics, images=None, history=[], config=None
    )
    for sentence in (
        "No learning curves",
        "No valence and arousal: the predictions have no answer for va",
        "Left out: Action units, Expressions (there are decisions only",
        "No timelines",
        "No attention maps",
        "No most uncertain frames",
        "No pictures",
        "record no provenance",
        "No configuration was given",
    ):
        assert sentence in page.text, sentence
    assert "not answered" in page.text
    assert page.tags.count("svg") == 2


def test_calibration_is_shown_before_and_after(tmp_path):
    labels = make_labels(200)
    raw = make_predictions(labels)
    cooler = dataclasses.replace(raw, au_logits=raw.au_logits / 2, valence=raw.valence / 2)
    metrics = score(labels, cooler, before_calibration=raw)
    text, page = report(tmp_path, labels, cooler, raw=raw, metrics=metrics)
    assert "before calibration: 15 bins" in text
    assert "prediction before smoothing" in page.text
    assert 'class="raw"' in text
    earlier = metrics["au"]["uncertainty_before_calibration"]["nll"]
    assert f"{metrics['au']['uncertainty']['nll']:.3f} {earlier:.3f}" in page.text
    text, page = report(tmp_path, labels, cooler)
    assert 'class="raw"' not in text
    assert "were not smoothed" in page.text
    assert "what they were before was not given" in page.text


def test_warnings_stand_above_the_numbers_and_beside_the_provenance(tmp_path):
    labels = make_labels(30)
    predictions = dataclasses.replace(
        make_predictions(labels), metadata={"provenance": {"training_data": ["Aff-Wild2"]}}
    )
    _, page = report(tmp_path, labels, predictions, warnings=["don't submit these"], notice="First")
    before, after = page.text.split("Scores beside the best")
    assert before.index("First") < before.index("Warning: don't submit these.")
    assert "Warning: don't submit these." in after
    assert 'training_data ["Aff-Wild2"]' in after


def test_attention_maps_are_shown(tmp_path):
    labels = make_labels(100)
    asked = []

    def attention(pictures):
        asked.append(pictures)
        return look(pictures)

    _, page = report(tmp_path, labels, make_predictions(labels), attention=attention)
    (pictures,) = asked
    assert pictures.shape == (24, 112, 112, 3)
    assert pictures.dtype == np.uint8
    assert page.tags.count("img") == 24 * 4 + 2 * 3
    assert "Module 2 of 2" in page.text
    told = [words for words in page.alternatives if words and words.startswith("Attention of")]
    assert len(told) == 24 * 3
    assert "times uniform" in told[0]


def luminance(colour):
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts]
    return float(np.dot(linear, [0.2126, 0.7152, 0.0722]))


def contrast(first, second):
    """Contrast ratio as WCAG 2 defines it."""
    low, high = sorted(luminance(colour) for colour in (first, second))
    return (high + 0.05) / (low + 0.05)


def test_colours_can_be_told_apart():
    light, dark, paper = (
        dict(re.findall(r"--([a-z-]+): (#[0-9a-f]{6})", block))
        for block in re.findall(r":root {(.*?)}", CSS, re.DOTALL)
    )
    dark, paper = light | dark, light | paper
    for mode in (light, dark, paper):
        for text in ("text", "muted", "wrong"):
            for ground in ("page", "card"):
                assert contrast(mode[text], mode[ground]) > 4.5, (text, ground)
        assert contrast(mode["text"], mode["notice"]) > 4.5
        for line in ("first", "second", "third"):
            assert contrast(mode[line], mode["card"]) > 3, line
    for line, colour in {"first": FIRST, "second": SECOND, "third": THIRD}.items():
        assert light[line] == colour


def test_nothing_but_metrics(tmp_path):
    labels = make_labels(0)
    predictions = dataclasses.replace(make_predictions(labels), metadata={})
    _, page = report(tmp_path, labels, predictions, history=[], config={}, images=None)
    for sentence in ("No learning curves", "No frame has a label", "No configuration was given"):
        assert sentence in page.text


def test_rows_left_out_are_stated(tmp_path):
    labels = make_labels(40)
    predictions = make_predictions(labels).take(np.arange(30))
    metrics = score(labels, predictions, lenient=True)
    _, page = report(tmp_path, labels, predictions, metrics=metrics)
    assert "10 labelled frames have no prediction" in page.text


def test_pictures_are_those_of_the_frames_shown(tmp_path):
    labels = make_labels(300, missing=0.0)
    shuffled = make_predictions(labels).take(np.random.default_rng(5).permutation(300))
    asked = []

    def note(row):
        asked.append(row)
        return None if row % 2 else picture(row)

    # the first rows have no prediction, so that row numbers of the report differ from the truth's
    predictions = shuffled.take(np.flatnonzero(shuffled.video != "video0"))
    metrics = score(labels, predictions, lenient=True)
    _, page = report(tmp_path, labels, predictions, metrics=metrics, images=note)
    assert len(asked) == len(set(asked)) == 24
    assert min(asked) >= 10
    for row in asked:
        assert f"rendered / {labels.video[row]}, frame {labels.frame[row]}" in page.text
    assert page.text.count("no picture") == sum(row % 2 for row in asked)
    assert page.tags.count("img") == sum(1 - row % 2 for row in asked)


def test_a_wrong_picture_is_refused(tmp_path):
    labels = make_labels(20)
    with pytest.raises(ValueError, match="expected uint8"):
        report(tmp_path, labels, make_predictions(labels), images=lambda row: np.zeros((4, 4)))
    assert not (tmp_path / "report.html").exists()


def test_a_place_that_cannot_be_written(tmp_path):
    labels = make_labels(20)
    (tmp_path / "report.html").mkdir()
    with pytest.raises(WorkdirError):
        report(tmp_path, labels, make_predictions(labels))


def test_the_same_input_gives_the_same_file(tmp_path, real_drawings):
    labels = make_labels(50)
    first, _ = report(tmp_path, labels, make_predictions(labels))
    second, _ = report(tmp_path, labels, make_predictions(labels))
    assert first == second


def test_settings_are_flattened_and_not_shown_twice(tmp_path):
    labels = make_labels(20)
    _, page = report(tmp_path, labels, make_predictions(labels))
    assert "model.preset tiny" in page.text
    assert "weights_sha256 ab12" in page.text
    assert "batch_size" not in page.text  # the predictions' copy of the configuration


def test_a_report_without_examples(tmp_path):
    labels = make_labels(20)
    _, page = report(tmp_path, labels, make_predictions(labels), gallery_size=0)
    assert "No examples were asked for" in page.text
    assert "img" not in page.tags


def test_contradicting_predictions_are_refused(tmp_path):
    labels = make_labels(10)
    predictions = make_predictions(labels)
    twice = predictions.take(np.tile(np.arange(10), 2))
    twice.valence[10:] += 1
    with pytest.raises(UserError, match="differ"):
        report(tmp_path, labels, twice, metrics=score(labels, predictions))
