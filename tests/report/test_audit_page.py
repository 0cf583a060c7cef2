"""The audit's page: what is drawn of its numbers, and names of files that mean harm."""

import base64
import io
import re

import numpy as np
import pytest
from PIL import Image

from data_pipeline.audit import audit
from mtl_face.report import audit_page
from mtl_face.tables import FrameTable

HOSTILE = "<script>alert(1)</script>\"'&amp;\x07"


def frames(root, video, *, num_rows=6, expression=3):
    """Rows of one video, each frame listed twice with other labels."""
    frame = np.arange(num_rows) // 2
    (root / "a").mkdir(exist_ok=True)
    for number in range(num_rows // 2):
        pixels = np.random.default_rng(number).integers(0, 255, (14, 14, 3), np.uint8)
        Image.fromarray(pixels).resize((112, 112)).save(root / "a" / f"{number}.jpg")
    return FrameTable.from_columns(
        dataset="set",
        video=[video] * num_rows,
        frame=frame,
        image=[f"a/{number}.jpg" for number in frame],
        root=str(root),
        valence=np.linspace(-1, 1, num_rows),
        arousal=np.full(num_rows, 0.5),
        expression=np.full(num_rows, expression),
        au=np.tile([1.0, *[0.0] * 11], (num_rows, 1)),
    )


@pytest.fixture
def text(tmp_path):
    splits = {"train": frames(tmp_path, HOSTILE), "validation": frames(tmp_path, HOSTILE)}
    report = audit(splits, image_size=112)
    report["findings"].append(
        {"severity": "error", "what": HOSTILE, "examples": [HOSTILE], "remedy": HOSTILE}
    )
    path = tmp_path / "new" / "audit.html"
    audit_page.write_audit(path, report, title=HOSTILE, where=HOSTILE)
    return path.read_text(encoding="utf-8")


def test_names_of_the_user_are_escaped(text):
    assert "<script" not in text
    assert "\x07" not in text
    assert text.count("&lt;script&gt;alert(1)") > 8  # title, folder, finding, videos


def test_bars_and_heat_are_as_strong_as_the_numbers(text):
    bars = re.findall(r'<th scope="row">(\w+)</th><td>6</td>.*?--share: ([\d.]+)', text)
    assert ("Fear", "1.0000") in bars
    row = re.search(r'<th scope="row">\+0.4</th>(.*?)</tr>', text)
    assert row is not None
    shades = [float(share) for share in re.findall(r"--share: ([\d.]+)", row[1])]
    counts = [int(cell or 0) for cell in re.findall(r">(\d*)</td>", row[1])]
    assert sum(counts) == 6
    assert shades == pytest.approx(np.sqrt(np.array(counts) / max(counts)), abs=1e-3)


def test_rows_that_disagree_are_shown_with_their_picture(text):
    section = text.split('id="duplicates"')[1]
    assert "train: frames listed more than once: 3. Labels equal: 0" in section
    assert "contradicting each other: 3." in section
    assert section.count("<img") == 6
    assert "line 2: valence -0.60" in section


def test_pictures_that_cannot_be_read_are_left_out(tmp_path):
    (tmp_path / "text.jpg").write_text("no picture")
    entries = [{"root": str(tmp_path), "image": name} for name in ("absent.jpg", "text.jpg")]
    assert audit_page._pictures(entries, False) == []


@pytest.mark.parametrize("upright", [False, True])
def test_pictures_are_shown_as_training_uses_them(tmp_path, upright):
    """With the greys of 16 bits, and turned if the images are."""
    exif = Image.Exif()
    exif[0x0112] = 6
    grey = np.full((20, 30), 128 * 257, np.uint16)
    Image.fromarray(grey).save(tmp_path / "a.png", exif=exif)
    (picture,) = audit_page._pictures([{"root": str(tmp_path), "image": "a.png"}], upright)
    encoded = picture.address.partition(",")[2]
    shown = Image.open(io.BytesIO(base64.b64decode(encoded)))
    assert shown.size == ((20, 30) if upright else (30, 20))
    assert np.asarray(shown).mean() == pytest.approx(128, abs=2)
