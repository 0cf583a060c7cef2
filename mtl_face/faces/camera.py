"""Frames of a camera of this machine, through FFmpeg's devices (PyAV, extra `video`)."""

import re
import sys
from collections.abc import Iterator
from pathlib import Path

from PIL import Image

from mtl_face.errors import UserError
from mtl_face.faces.video import VideoFrame, missing_extra

_FORMATS = {"linux": "v4l2", "darwin": "avfoundation", "win32": "dshow"}
"""FFmpeg's name of the cameras of a system."""


class CameraError(UserError):
    """A camera that is absent, in use, or went away."""


def number_of(text: str) -> int | None:
    """The number in `camera:0`; None of another text."""
    found = re.fullmatch(r"camera:(\d+)", text)
    return None if found is None else int(found[1])


def frames(number: int) -> Iterator[VideoFrame]:
    """Frames of a camera, numbered from 1, until it is stopped or goes away.

    `seconds` count from the first frame.

    Raises:
        CameraError: there is no such camera, it cannot be opened, or it goes away.
        MissingExtraError: PyAV is not installed.
    """
    try:
        import av
    except ImportError as error:
        raise missing_extra("reading cameras needs PyAV", error) from error
    av.logging.set_level(None)  # see `video`; what goes wrong is raised
    name = f"camera:{number}"
    device, form = device_of(number)
    try:
        container = av.open(device, format=form)
    except (av.FFmpegError, ValueError, OSError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise CameraError(
            f"cannot be opened as {device} ({reason})", path=name, remedy=_remedy()
        ) from error
    start: float | None = None
    count = 0
    with container:
        try:
            for frame in container.decode(video=0):
                count += 1
                time = frame.time
                if time is not None and start is None:
                    start = time
                seconds = None if time is None or start is None else round(time - start, 6)
                yield VideoFrame(count, seconds, Image.fromarray(frame.to_ndarray(format="rgb24")))
        except av.FFmpegError as error:
            raise CameraError(
                f"stopped after {count:,} frames ({error.strerror})",
                path=name,
                remedy="check its cable, and give the command again",
            ) from error


def device_of(number: int) -> tuple[str, str]:
    """FFmpeg's name of a camera of this system, and of its kind."""
    device = f"/dev/video{number}" if sys.platform == "linux" else str(number)
    return device, _FORMATS.get(sys.platform, "v4l2")


def _remedy() -> str:
    present = sorted(path.name.removeprefix("video") for path in Path("/dev").glob("video*"))
    if sys.platform == "linux" and not present:
        return "connect a camera: this machine has none (/dev/video*)"
    if sys.platform == "linux":
        numbers = ", ".join(f"camera:{number}" for number in present)
        return f"this machine has {numbers}; close programs that use it, or join the group video"
    return "check that it is connected, allowed for this program, and not in use by another"
