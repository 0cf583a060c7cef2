"""Cameras by FFmpeg's devices: a generated one, one that is absent, and one that goes away."""

import av
import numpy as np
import pytest

from mtl_face.faces import camera
from mtl_face.faces.camera import CameraError


def generated(monkeypatch, source):
    monkeypatch.setattr(camera, "device_of", lambda number: (source, "lavfi"))


def test_frames_of_a_generated_camera(monkeypatch):
    generated(monkeypatch, "testsrc=size=64x48:rate=8:duration=1.5")
    frames = list(camera.frames(0))
    assert [frame.number for frame in frames] == list(range(1, 13))
    np.testing.assert_allclose([frame.seconds for frame in frames], np.arange(12) / 8, atol=1e-3)
    assert {frame.picture.size for frame in frames} == {(64, 48)}
    assert {frame.picture.mode for frame in frames} == {"RGB"}
    levels = [np.asarray(frame.picture).astype(int) for frame in frames]
    assert np.abs(levels[0] - levels[-1]).max() > 50


def test_colours_are_not_exchanged(monkeypatch):
    generated(monkeypatch, "color=c=0xC82814:size=64x48:duration=0.2")
    picture = next(camera.frames(0)).picture
    np.testing.assert_allclose(np.asarray(picture)[24, 32], [0xC8, 0x28, 0x14], atol=6)


@pytest.mark.parametrize("system", ["linux", "darwin", "win32"])
def test_an_absent_camera(monkeypatch, system):
    monkeypatch.setattr(camera.sys, "platform", system)
    with pytest.raises(CameraError, match="camera:63: cannot be opened") as raised:
        next(camera.frames(63))
    assert raised.value.remedy


def test_a_camera_that_goes_away(monkeypatch):
    class Device:
        def __enter__(self):
            return self

        def __exit__(self, *error):
            pass

        def decode(self, video):
            frame = av.VideoFrame.from_ndarray(np.zeros((48, 64, 3), np.uint8), format="rgb24")
            yield frame
            yield frame
            raise av.error.OSError(19, "No such device")

    monkeypatch.setattr(av, "open", lambda *place, **how: Device())
    seen = []
    with pytest.raises(CameraError, match=r"stopped after 2 frames \(No such device\)"):
        seen.extend(frame.number for frame in camera.frames(0))


def test_devices_of_systems(monkeypatch):
    expected = {
        "linux": ("/dev/video2", "v4l2"),
        "darwin": ("2", "avfoundation"),
        "win32": ("2", "dshow"),
    }
    for system, device in expected.items():
        monkeypatch.setattr(camera.sys, "platform", system)
        assert camera.device_of(2) == device
