"""What a person does with the page in a browser, and the camera that it sees."""

import io
import time

import camera_frames
import numpy as np
import pandas as pd
from browser import Browser
from PIL import Image

ANSWERED = "document.getElementById('expression').textContent"


def click(browser, identifier):
    browser.evaluate(f"document.getElementById('{identifier}').click()")


def table(browser):
    """What the page's button saves."""
    path = browser.downloads / "faces.csv"
    path.unlink(missing_ok=True)
    click(browser, "download")
    deadline = time.monotonic() + 300
    while not path.is_file():
        assert time.monotonic() < deadline
        time.sleep(0.05)
    return pd.read_csv(path, keep_default_na=False, na_values=[""])


def write_camera(path):
    """A rendered head that sways, as 1280 x 720 JPEG pictures one after the other."""
    head, _ = camera_frames.head(3, size=420, eyes_px=80)
    left = 400 + 20 * np.sin(np.linspace(0, 2 * np.pi, 20, endpoint=False))
    with path.open("wb") as file:
        for place in left.astype(int).tolist():
            canvas = np.full((720, 1280, 3), 110, np.uint8)
            camera_frames.paste(canvas, head, np.zeros((5, 2)), place, 150)
            buffer = io.BytesIO()
            Image.fromarray(canvas).save(buffer, "JPEG", quality=90)
            file.write(buffer.getvalue())
    return path


def browser_with_camera(path):
    """A browser that takes the pictures of a file for those of its camera."""
    return Browser(
        "--use-fake-ui-for-media-stream",
        "--use-fake-device-for-media-stream",
        f"--use-file-for-fake-video-capture={path}",
    )


def assert_same_table(found, expected, atol):
    """Numbers as near as `atol`, all else equal; `expected` is of `FaceTable.to_dataframe`."""
    assert list(found) == list(expected)
    assert len(found) == len(expected)
    for name in found:
        if expected[name].dtype.kind == "f":
            values = found[name].astype(float)
            np.testing.assert_allclose(values, expected[name], atol=atol(name), err_msg=name)
        else:
            texts = found[name].astype(object).fillna("").tolist()
            assert texts == expected[name].tolist(), name
