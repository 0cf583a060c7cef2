"""The page that answers by itself, in a real browser with a real runtime.

MTL_FACE_ONNXRUNTIME_WEB names a folder with the package onnxruntime-web: docs/serve.md.
"""

import io
import os
from pathlib import Path

import camera_frames
import numpy as np
import page_steps
import pandas as pd
import program_files
import pytest
import skimage
from browser import EXECUTABLE
from PIL import Image
from served import serving

import mtl_face
from mtl_face import pictures
from mtl_face.faces.video import VideoFrame
from mtl_face.run import models, smaller
from mtl_face.serve import in_page
from mtl_face.serve.app import COLUMN_NAMES
from mtl_face.serve.model import Faces

RUNTIME = os.environ.get("MTL_FACE_ONNXRUNTIME_WEB")

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(EXECUTABLE is None, reason="Chromium is not installed"),
    pytest.mark.skipif(not RUNTIME, reason="MTL_FACE_ONNXRUNTIME_WEB names no runtime"),
]

ASTRONAUT = Path(skimage.__file__).parent / "data/astronaut.png"
LOADED = "!document.getElementById('app').hidden && !document.getElementById('choose').disabled"
DONE = "document.getElementById('progress').hidden && !document.getElementById('download').disabled"


def opened(browser, served, *files, width=1280):
    browser.open(served.address, width=width)
    browser.wait_for(LOADED)
    if files:
        browser.choose_files("#files", *files)
        browser.wait_for(f"document.querySelectorAll('#sources label').length + 1 >= {len(files)}")
        browser.wait_for(DONE)


@pytest.fixture(scope="module")
def runtime():
    return in_page.read_runtime(Path(RUNTIME))


@pytest.fixture(scope="module")
def predictor():
    return mtl_face.load("geometry")


@pytest.fixture(scope="module")
def served(predictor, runtime):
    with serving(in_page.load(predictor, "geometry", runtime)) as served:
        yield served


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    camera = page_steps.write_camera(tmp_path_factory.mktemp("camera") / "camera.mjpeg")
    with page_steps.browser_with_camera(camera) as browser:
        yield browser


@pytest.fixture(autouse=True)
def nothing_leaves(browser, request):
    """No test makes the page complain, ask elsewhere than here, or send anything but a GET."""
    for noted in (browser.complaints, browser.requests, browser.uploads):
        noted.clear()
    yield
    assert browser.complaints == []
    assert browser.uploads == []
    origins = {address.split("/", 3)[2].partition(":")[0] for address in browser.requests}
    assert origins == {"127.0.0.1"}


@pytest.fixture(scope="module")
def photographs(tmp_path_factory):
    """One with a face, a tall part of it, two of them beside each other, and one without any."""
    folder = tmp_path_factory.mktemp("photographs")
    whole = Image.open(ASTRONAUT).convert("RGB")
    two = Image.new("RGB", (700, 420), (90, 110, 130))
    two.paste(whole.crop((100, 0, 380, 300)).rotate(9, Image.Resampling.BILINEAR), (20, 60))
    two.paste(whole.crop((120, 20, 340, 260)).resize((260, 284)), (400, 40))
    shown = {
        "whole.png": whole,
        "tall.png": whole.crop((150, 20, 310, 240)),
        "two.png": two,
        "nobody.png": Image.new("RGB", (320, 200), (30, 60, 90)),
    }
    for name, picture in shown.items():
        picture.save(folder / name)
    return [folder / name for name in shown]


def near(name):
    """Answers within 0.0001, of which the page's rounding is a half; pixels and degrees 0.0005."""
    is_place = name.endswith(("_x", "_y")) or name.startswith("face_")
    return 5e-4 if is_place or name in ("yaw", "pitch", "roll") else 1e-4


def assert_as_the_server(found, files, model, slack=1):
    for path in files:
        expected = model.photo(pictures.read(path).upright(), path.name).to_dataframe()
        own = found[found["source"] == path.name].reset_index(drop=True)
        page_steps.assert_same_table(own, expected, lambda name: slack * near(name))


def test_photographs_are_answered_as_by_the_server(browser, served, predictor, photographs):
    opened(browser, served, *photographs)
    assert browser.evaluate("crossOriginIsolated") is True
    found = page_steps.table(browser)
    assert list(found) == list(COLUMN_NAMES)
    assert found["person"].tolist() == [1, 1, 1, 2, 0]
    assert_as_the_server(found, photographs, Faces(predictor, "geometry"))
    paths = {"/" + address.split("/", 3)[3] for address in browser.requests}
    runtime = {f"/runtime/{name}" for name in in_page.RUNTIME}
    networks = {f"/api/networks/{name}.onnx" for name in ("detector", "mesh", "network")}
    assert runtime | networks <= paths  # what the worker asks for is seen
    page = Path(in_page.__file__).parent / "page"
    own = {"/", "/api/about", *(f"/{path.name}" for path in page.iterdir())}
    assert paths <= runtime | networks | own


def test_a_photograph_that_lies_on_its_side(browser, served, predictor, tmp_path):
    """Of a JPEG file, whose pixels this browser decodes as Pillow does."""
    exif = Image.Exif()
    exif[0x0112] = 6
    path = tmp_path / "turned.jpg"
    stored = Image.open(ASTRONAUT).convert("RGB").transpose(Image.Transpose.ROTATE_90)
    stored.save(path, quality=92, exif=exif)
    opened(browser, served, path)
    found = page_steps.table(browser)
    expected = Faces(predictor, "geometry").photo(pictures.read(path).upright(), path.name)
    page_steps.assert_same_table(found, expected.to_dataframe(), near)


@pytest.mark.parametrize("form", ["export", "onnx", "int8"])
def test_networks_of_crops(browser, runtime, photographs, tmp_path, form):
    """Crops are cut and shrunk in the page, of an export and of ONNX files.

    Of int8 the browser computes otherwise; of this one it lacks an operator (QLinearMatMul).
    """
    inputs = "points" if form == "int8" else "image"
    path = program_files.write_export(tmp_path / "export", program_files.config_of(inputs))
    if form != "export":
        path = program_files.write_onnx(tmp_path / "image.onnx", path)
    if form == "int8":
        how = {"precision": "int8", "crops": photographs[0].parent, "say": lambda line: None}
        path = smaller.write_smaller(path, tmp_path / "small.onnx", **how)
    predictor = models.load(path)
    with serving(in_page.load(predictor, "image", runtime)) as served:
        opened(browser, served, *photographs[:2])
        found = page_steps.table(browser)
        assert found["person"].tolist() == [1, 1]
        model = Faces(predictor, "image")
        assert_as_the_server(found, photographs[:2], model, slack=100 if form == "int8" else 1)


def test_a_camera_stays_in_the_page(browser, served):
    opened(browser, served)
    page_steps.click(browser, "camera")
    browser.wait_for(page_steps.ANSWERED)
    browser.wait_for("+document.getElementById('clock').textContent.split('frame ')[1] > 10")
    page_steps.click(browser, "camera")
    browser.wait_for("document.getElementById('camera').ariaPressed == 'false'")
    found = page_steps.table(browser)
    assert found["frame"].tolist() == list(range(1, len(found) + 1))
    assert set(found["source"]) == {"camera"}
    found = found[found["person"] == 1]
    assert len(found) > 8
    assert (np.diff(found["time_ms"]) > 0).all()
    assert found["face_left"].between(350, 650).all()
    assert found["face_left"].nunique() > 2


def test_frames_are_answered_as_by_the_server(browser, served, predictor):
    """Followed, searched again after a cut, and beside the person at rest; each frame begins with
    what was found in the last. No decision of these heads is near a tie.
    """
    head, _ = camera_frames.head(2, size=340, eyes_px=70, wall=(0.2, 0.2, 0.2))
    other, _ = camera_frames.head(11, size=260, eyes_px=50, units=(6, 12), wall=(0.2, 0.2, 0.2))
    frames = []
    for number in range(10):
        canvas = np.full((400, 720, 3), 110, np.uint8)
        camera_frames.paste(canvas, head, np.zeros((5, 2)), 20 + 3 * number, 40)
        if number > 3:  # comes while the first is followed
            camera_frames.paste(canvas, other, np.zeros((5, 2)), 430, 90 + 2 * number)
        frames.append(Image.fromarray(canvas))
    stream = Faces(predictor, "geometry").stream("camera")
    expected = [
        stream.update([VideoFrame(number, number / 25, frame)])[0].to_dataframe()
        for number, frame in enumerate(frames, start=1)
    ]
    opened(browser, served)
    browser.evaluate(
        "window.rows = []; import('./in_page.js').then(page => {"
        "  window.camera = new page.Camera('camera');"
        "  window.show = async (hex, time) => {"
        "    const bytes = Uint8Array.from(hex.match(/../g), pair => parseInt(pair, 16));"
        "    const picture = await createImageBitmap(new Blob([bytes]));"
        "    const canvas = new OffscreenCanvas(picture.width, picture.height);"
        "    canvas.getContext('2d').drawImage(picture, 0, 0);"
        "    window.rows.push((await window.camera.frame(canvas, time)).rows); }; }); null"
    )
    browser.wait_for("window.show !== undefined")
    for number, frame in enumerate(frames, start=1):
        buffer = io.BytesIO()
        frame.save(buffer, "PNG", compress_level=1)
        browser.evaluate(f"show('{buffer.getvalue().hex()}', {40 * number}); null")
        browser.wait_for(f"rows.length == {number}")
    rows = browser.evaluate("rows")
    assert len(rows[0]) == 1
    assert len(rows[-1]) == 2
    for of_frame, table in zip(rows, expected, strict=True):
        found = pd.DataFrame(of_frame, columns=COLUMN_NAMES).sort_values("person")
        found = found.reset_index(drop=True)
        table = table.sort_values("person").reset_index(drop=True)
        page_steps.assert_same_table(found, table, near)
    assert {row[COLUMN_NAMES.index("baseline")] for row in rows[-1]} == {"running mean"}


def test_a_pasted_photo(browser, served, photographs):
    opened(browser, served)
    content = photographs[1].read_bytes().hex()
    browser.evaluate(
        f"(bytes => {{ const data = new DataTransfer();"
        "data.items.add(new File([bytes], 'pasted.png', { type: 'image/png' }));"
        "document.dispatchEvent(new ClipboardEvent('paste', { clipboardData: data })); })"
        f"(Uint8Array.from('{content}'.match(/../g), pair => parseInt(pair, 16)))"
    )
    browser.wait_for(page_steps.ANSWERED)
    assert page_steps.table(browser)["source"].tolist() == ["pasted.png"]


def test_files_that_are_not_photographs(browser, served, tmp_path):
    text, video = tmp_path / "text.png", tmp_path / "talk.mp4"
    text.write_text("no picture")
    video.write_bytes(b"none")
    browser.open(served.address, width=390)
    browser.wait_for(LOADED)
    browser.choose_files("#files", text, video)
    browser.wait_for("document.querySelectorAll('#messages li').length == 2")
    said = browser.evaluate("document.getElementById('messages').textContent")
    assert "text.png: this browser cannot decode it" in said
    assert "talk.mp4: videos are not analysed in the page" in said


def test_a_runtime_that_is_none_is_said(browser, predictor, runtime):
    broken = {**runtime, in_page.RUNTIME[-1]: b"no WebAssembly"}
    with serving(in_page.load(predictor, "geometry", broken)) as served:
        browser.open(served.address, width=390)
        said = browser.wait_for("document.getElementById('messages').textContent")
        assert "The page cannot start: " in said
    browser.complaints.clear()


def test_what_is_sent_is_seen(browser, served):
    """Else the tests above could not fail."""
    opened(browser, served)
    browser.evaluate(
        "window.answered = 0; fetch('/api/about', { method: 'POST', body: 'picture' })"
        ".then(response => { window.answered = response.status; }); null"
    )
    assert browser.wait_for("window.answered") == 405
    assert browser.uploads == [f"POST {served.address}api/about"]
    browser.uploads.clear()
    browser.complaints.clear()  # of the refusal
