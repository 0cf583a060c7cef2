"""The page of an evaluation: sound HTML, what it shows, and sentences for what it lacks."""

import dataclasses
import itertools
import re
from pathlib import Path

import numpy as np
import pytest
from evaluation_tables import decisions_alone, make_labels, make_predictions, without
from report_page import look, picture, report

from mtl_face.errors import UserError, WorkdirError
from mtl_face.evaluation.scoring import score
from mtl_face.report import figures
from mtl_face.report.figures import FIRST, SECOND, THIRD

pytestmark = pytest.mark.usefixtures("quick")

CSS = (Path(figures.__file__).parent / "templates" / "style.css").read_text()


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
    assert "those before the calibration were not given" in page.text


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
        assert f"{labels.video[row]}, frame {labels.frame[row]}" in page.text
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


def test_a_task_that_was_never_trained_is_in_no_section(tmp_path):
    labels = make_labels(100)
    text, page = report(tmp_path, labels, without(make_predictions(labels), "va"), gallery_size=8)
    reason = "the network was trained without labels of va"
    assert f"No valence and arousal: {reason}." in page.text
    assert "No timelines" in page.text
    assert "Most uncertain frames" in page.text
    assert not re.search(r"\bnan\b", re.sub(r'base64,[^"]*', "", text), re.IGNORECASE)
    _, page = report(
        tmp_path, labels, without(make_predictions(labels), "au", "expr"), gallery_size=8
    )
    for words in ("No expressions: ", "No action units: "):
        assert words + "the network was trained without labels of" in page.text
    assert "not answered" in page.text


def test_what_is_defined_and_how_the_checkpoint_was_chosen_stand_first(tmp_path):
    labels = make_labels(100).only_tasks(("au", "expr"))
    predictions = make_predictions(labels)
    selection = {
        **{"criterion": "the sum of au and expr", "looks": 20, "step": 40, "score": 0.85},
        **{"last_step": 100, "last_score": 0.77},
    }
    metrics = score(labels, predictions) | {"selection": selection}
    _, page = report(tmp_path, labels, predictions, metrics=metrics)
    au = metrics["au"]["score"]
    first = f"P is not defined: no VA labels; defined: action units mean F1 {au:.4f}"
    assert page.text.index(first) < page.text.index("Scores beside the best constant answer")
    assert "Chosen: step 40, the best of 20 looks" in page.text
    assert "there is no truth to compare with" in page.text
    assert "by the sum of au and expr; the last step, 100, had 0.7700" in page.text
