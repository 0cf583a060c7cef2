import dataclasses
import html.parser

import numpy as np
import pytest
from evaluation_tables import make_labels, make_predictions

from mtl_face.errors import UserError, WorkdirError
from mtl_face.evaluation.metrics import score
from mtl_face.evaluation.report import write_report
from mtl_face.evaluation.report.gallery import choose, frame_errors

VOID = {"meta", "br", "img", "link", "input", "hr"}
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
        if tag in ("img", "svg"):
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
    write_report(path / "report.html", **arguments)
    text = (path / "report.html").read_text(encoding="utf-8")
    return text, Page(text)


def test_page_is_sound_and_loads_nothing(tmp_path):
    labels = make_labels(200)
    text, page = report(tmp_path, labels, make_predictions(labels), notice="Rendered faces.")
    assert text.startswith("<!DOCTYPE html>")
    assert len(page.ids) == len(set(page.ids))
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
    assert page.tags.count("svg") == 3 + 2 + 1
    assert "Rendered faces." in page.text
    assert len(text) < 3_000_000


def test_references_inside_drawings_resolve(tmp_path):
    labels = make_labels(50)
    text, page = report(tmp_path, labels, make_predictions(labels))
    targets = {part.split(")")[0] for part in text.split("url(#")[1:]}
    assert targets
    assert targets <= set(page.ids)


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
    labels = dataclasses.replace(labels, video=np.full(60, hostile + "."))
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


def test_the_same_input_gives_the_same_file(tmp_path):
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


def test_frame_errors_by_hand():
    labels = make_labels(3, missing=0.0)
    labels.au[2] = np.nan
    labels.valence[1] = np.nan
    labels.expression[1] = -1
    labels.au[1, 6:] = np.nan
    predictions = make_predictions(labels, noise=0.0)
    predictions.valence[0] = labels.valence[0] + (0.4 if labels.valence[0] < 0.5 else -0.4)
    predictions.au_logits[1, 0] *= -1
    predictions.expression_logits[:] = 0.0
    error, num_tasks = frame_errors(labels, predictions)
    assert num_tasks.tolist() == [3, 1, 2]
    assert error[0] == pytest.approx((0.4 / 2 / 2 + 0 + 7 / 8) / 3)
    assert error[1] == pytest.approx(1 / 6)
    assert error[2] == pytest.approx((0 + 7 / 8) / 2)


def test_chosen_frames_are_ordered_different_and_from_different_videos():
    labels = make_labels(300, missing=0.05)
    predictions = make_predictions(labels)
    groups = choose(labels, predictions, num_rows=18)
    error, num_tasks = frame_errors(labels, predictions)
    rows = np.concatenate(list(groups.values()))
    assert len(set(rows.tolist())) == 18
    assert (num_tasks[rows] == 3).all()
    assert (np.diff(error[groups["best"]]) >= 0).all()
    assert (np.diff(error[groups["worst"]]) <= 0).all()
    full = np.flatnonzero(num_tasks == 3)
    assert error[groups["best"][0]] == error[full].min()
    assert error[groups["worst"][0]] == error[full].max()
    for chosen in groups.values():
        assert len(set(labels.video[chosen])) == 6


@pytest.mark.parametrize(("num_rows", "sizes"), [(0, [0, 0, 0]), (1, [1, 0, 0]), (5, [2, 2, 1])])
def test_the_number_of_frames_is_kept(num_rows, sizes):
    labels = make_labels(50, missing=0.0)
    groups = choose(labels, make_predictions(labels), num_rows=num_rows)
    assert [len(rows) for rows in groups.values()] == sizes


def test_a_report_without_examples(tmp_path):
    labels = make_labels(20)
    _, page = report(tmp_path, labels, make_predictions(labels), gallery_size=0)
    assert "No examples were asked for" in page.text
    assert "img" not in page.tags


def test_few_frames_are_shown_once():
    labels = make_labels(8, missing=0.0)
    groups = choose(labels, make_predictions(labels), num_rows=18)
    assert [len(rows) for rows in groups.values()] == [6, 2, 0]


def test_contradicting_predictions_are_refused(tmp_path):
    labels = make_labels(10)
    predictions = make_predictions(labels)
    twice = predictions.take(np.tile(np.arange(10), 2))
    twice.valence[10:] += 1
    with pytest.raises(UserError, match="differ"):
        report(tmp_path, labels, twice, metrics=score(labels, predictions))
