"""The report in a real browser, where one is installed."""

import dataclasses

import numpy as np
import pytest
from browser import EXECUTABLE, Browser
from evaluation_tables import make_labels, make_predictions
from test_audit_page import HOSTILE, frames

from data_pipeline.audit import audit
from mtl_face.evaluation.scoring import score
from mtl_face.report import Report, audit_page, write_report

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(EXECUTABLE is None, reason="Chromium is not installed"),
]

_UNSEEN = "[...document.images].filter(i => !i.complete || !i.naturalWidth).length"
_FLAT = """[...document.querySelectorAll('svg')].filter(
    s => s.checkVisibility() && !(s.getBoundingClientRect().width > 20)).length"""
_OVERFLOWING = """[...document.querySelectorAll('body *')].filter(e => {
    if (e.closest('svg') && e.tagName != 'svg') return false;
    const box = e.closest('.scroll');
    return (!box || box == e) && e.getBoundingClientRect().right > innerWidth + 0.5;
}).map(e => e.tagName + ' ' + e.className).join()"""
_CUT = """[...document.querySelectorAll('figure > svg text')].filter(t => {
    const inner = t.getBoundingClientRect(), outer = t.closest('svg').getBoundingClientRect();
    return inner.left < outer.left - 1 || inner.right > outer.right + 1
        || inner.bottom > outer.bottom + 1 || inner.top < outer.top - 1;
}).map(t => t.textContent).join()"""


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    """A report with everything in it: smoothing, calibration, bands, attention, warnings."""
    labels = make_labels(400)
    raw = dataclasses.replace(
        make_predictions(labels), valence_std=np.full(400, 0.2), arousal_std=np.full(400, 0.4)
    )
    predictions = dataclasses.replace(
        raw, valence=raw.valence / 2, au_logits=raw.au_logits / 2, metadata={"a" * 200: "b" * 200}
    )

    def attention(pictures):
        weights = np.random.default_rng(0).random((len(pictures), 2, 4, 3, 49), np.float32)
        return weights / weights.sum(axis=-1, keepdims=True)

    path = tmp_path_factory.mktemp("report") / "report.html"
    report = Report(
        metrics=score(labels, predictions, before_calibration=raw, num_resamples=50),
        predictions=predictions,
        raw=raw,
        truth=labels,
        history=[
            {"step": 10**i, "train/loss": 1e-7 * i, "rate": 1e6 * i, "validation/p": i / 9}
            for i in range(7)
        ],
        images=lambda row: np.full((112, 112, 3), row % 256, np.uint8),
        attention=attention,
        title="A long title " + "without_a_place_to_break" * 4,
        config={"setting": {"of": {"some": "x" * 300}}},
        notice="Notice",
        warnings=["w" * 150],
    )
    write_report(path, report)
    return path


@pytest.fixture(scope="module")
def browser():
    with Browser() as browser:
        yield browser


@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("width", [320, 375, 1280])
def test_the_page_fits_and_nothing_is_missing(browser, report, width, dark):
    browser.complaints.clear()
    browser.requests.clear()
    browser.open(report, width=width, dark=dark)
    browser.evaluate("document.querySelectorAll('details').forEach(d => d.open = true)")
    assert browser.evaluate("document.images.length") == 24 * 4 + 2 * 3
    assert browser.evaluate(_UNSEEN) == 0
    assert browser.evaluate(_FLAT) == 0
    assert browser.evaluate(_OVERFLOWING) == ""
    assert browser.evaluate("document.documentElement.scrollWidth") == width
    assert browser.evaluate(_CUT) == ""
    background = browser.evaluate("getComputedStyle(document.body).backgroundColor")
    assert background == ("rgb(20, 24, 28)" if dark else "rgb(255, 255, 255)")
    assert browser.complaints == []
    assert browser.requests == [report.as_uri()]


@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("width", [320, 1280])
def test_the_page_of_an_audit_fits(browser, tmp_path, width, dark):
    splits = {"train": frames(tmp_path, "v" * 200), "validation": frames(tmp_path, HOSTILE)}
    path = tmp_path / "audit.html"
    audit_page.write_audit(path, audit(splits, image_size=64), title="Audit", where="w" * 300)
    browser.complaints.clear()
    browser.requests.clear()
    browser.open(path, width=width, dark=dark)
    assert browser.evaluate("document.images.length") > 0
    assert browser.evaluate(_UNSEEN) == 0
    assert browser.evaluate(_OVERFLOWING) == ""
    assert browser.evaluate("document.documentElement.scrollWidth") == width
    bars = "[...document.querySelectorAll('td.bar span')].map(s => s.clientWidth)"
    assert max(browser.evaluate(bars)) > 50
    assert browser.complaints == []
    assert browser.requests == [path.as_uri()]


def test_wide_tables_scroll_in_their_box(browser, report):
    browser.open(report, width=375)
    box = "document.querySelector('table.wide').parentElement"
    assert browser.evaluate(f"{box}.scrollWidth") > browser.evaluate(f"{box}.clientWidth") + 100


def test_paper_is_white_even_for_readers_who_prefer_the_dark(browser, report, tmp_path):
    browser.open(report, width=1280, dark=True)
    browser.print_pdf(tmp_path / "report.pdf")
    assert (tmp_path / "report.pdf").read_bytes().startswith(b"%PDF")
    browser.call(
        "Emulation.setEmulatedMedia",
        media="print",
        features=[{"name": "prefers-color-scheme", "value": "dark"}],
    )
    assert browser.evaluate("getComputedStyle(document.body).color") == "rgb(0, 0, 0)"
    assert browser.evaluate("getComputedStyle(document.querySelector('nav')).display") == "none"
