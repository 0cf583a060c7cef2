"""Decodes a video to numbered frames (PyAV, extra `video`).

Frames are numbered from 1 in the order in which they are shown, one number a frame whatever the
frame rate does: the numbering of the ABAW annotation files. The numbers come from the time stamps
of the packets, so that a frame that cannot be decoded leaves a gap and shifts nothing.
"""

import array
import collections
import contextlib
import dataclasses
from collections.abc import Generator, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
from PIL import Image

from mtl_face import files, pictures
from mtl_face.errors import UserError

_TEXT = ("tty", "bin", "xbin", "adf", "idf")
"""FFmpeg's formats that draw the letters of a text file as pictures."""

_LISTS = {"concat", "dash", "hls", "imf", "rtsp", "sdp"}
"""FFmpeg's formats that name other files or hosts, which it would read."""

_Thing = TypeVar("_Thing")

_QUARTERS = (1, 8, 3, 6)
"""Orientations by quarters that a frame is turned counter-clockwise."""


class VideoError(UserError):
    """A video that cannot be read."""


class MissingExtraError(UserError):
    """A library of the extra `video` cannot be imported."""


def missing_extra(purpose: str, error: ImportError) -> MissingExtraError:
    """The error for `purpose`, as in "reading videos needs PyAV"."""
    return MissingExtraError(
        f"{purpose}, which cannot be imported ({error})",
        remedy='install the extra: python -m pip install "mtl_face[video]" '
        "(in a clone: python -m pip install -e '.[video]')",
    )


@dataclasses.dataclass(frozen=True)
class VideoFrame:
    """A frame: number from 1; seconds from the start, where known; RGB, upright, square pixels."""

    number: int
    seconds: float | None
    picture: Image.Image


@dataclasses.dataclass
class Video:
    """A video file. Iterating decodes it.

    Attributes:
        path: the file.
        frames: how many frames it has, by its packets.
        damaged: packets and frames that could not be decoded so far.
        orientation: what made the frames upright, a key of `pictures.TURNS`.
        variable_rate: whether the frames are spaced unevenly.
        numbered_by_count: whether numbers are counted, since the file has no usable time stamps.
    """

    path: Path
    frames: int
    damaged: int = 0
    orientation: int = 1
    variable_rate: bool = False
    numbered_by_count: bool = False
    _stamps: npt.NDArray[np.int64] = dataclasses.field(  # of the frames as they are shown
        default_factory=lambda: np.zeros(0, np.int64), repr=False
    )
    # Time stamps count packets as they are stored, and frames are shown in another order.
    _in_storage_order: bool = dataclasses.field(default=False, repr=False)

    def __iter__(self) -> Iterator[VideoFrame]:
        """Decodes the frames in the order in which they are shown; raises VideoError."""
        return self.after(0)

    def after(self, done: int) -> Iterator[VideoFrame]:
        """Decodes as iterating does, and gives the frames with a number above `done` alone."""
        last = 0
        start: float | None = None
        with _opened(self.path) as (av, container, stream):
            stream.thread_type = "AUTO"
            # Width of a pixel relative to its height, where the file says it.
            ratio = stream.sample_aspect_ratio or stream.codec_context.sample_aspect_ratio
            latest: Any = b""  # the last packet is empty
            for packet in _packets(av, container, stream):
                latest = packet if packet.size else latest
                try:
                    decoded = packet.decode()
                except av.FFmpegError:
                    self.damaged += 1
                    continue
                for frame in decoded:
                    number = self._number(frame.pts, last)
                    if number <= last:  # a repeated time stamp: only counting is left
                        self.numbered_by_count = True
                        number = last + 1
                    last = number
                    seconds = None if frame.time is None else float(frame.time)
                    if self._in_storage_order and number <= len(self._stamps):
                        seconds = float(self._stamps[number - 1] * stream.time_base)
                    if frame.is_corrupt:
                        self.damaged += 1
                        continue
                    if number <= done and start is not None:
                        continue
                    try:
                        picture = self._picture(frame, latest, float(ratio or 1))
                    except (av.FFmpegError, ValueError):  # of a size or colours beyond conversion
                        self.damaged += 1
                        continue
                    if seconds is not None:
                        start = seconds if start is None else start
                        seconds = round(seconds - start, 6)
                    if number > done:
                        yield VideoFrame(number, seconds, picture)

    def _number(self, time_stamp: int | None, last: int) -> int:
        if not self.numbered_by_count and time_stamp is not None:
            place = int(np.searchsorted(self._stamps, time_stamp))
            if place < len(self._stamps) and self._stamps[place] == time_stamp:
                return place + 1
            self.numbered_by_count = True
        return last + 1

    def _picture(self, frame: Any, packet: Any, aspect: float) -> Image.Image:
        picture = Image.fromarray(frame.to_ndarray(format="rgb24"))
        if aspect != 1:
            width = max(1, round(picture.width * aspect))
            picture = picture.resize((width, picture.height), Image.Resampling.BILINEAR)
        orientation = _orientation(frame, packet)
        if orientation != 1:
            self.orientation = orientation
        return pictures.turn(picture, orientation)


def _orientation(frame: Any, packet: Any) -> int:
    """What makes a frame upright, a key of `pictures.TURNS`: the nearest to its display matrix.

    The matrix (FFmpeg's libavutil/display.h) brings the stored place (p, q), q down, to
    (a p + c q + x, b p + d q + y). `packet` is one near the frame.
    """
    try:
        matrix = frame.side_data.get("DISPLAYMATRIX")
    except ValueError:
        # PyAV fails at data that it does not know, such as EXIF in Motion JPEG. It still gives the
        # angle, but not whether a frame is mirrored.
        orientation = pictures.stored_orientation(bytes(packet))
        return orientation if orientation != 1 else _QUARTERS[round(frame.rotation / 90) % 4]
    if matrix is None:
        return 1
    a, b, _, c, d = np.frombuffer(matrix, np.int32)[:5].tolist()
    transposed = abs(a) + abs(d) < abs(b) + abs(c)
    steps = (transposed, (c if transposed else a) < 0, (b if transposed else d) < 0)
    return next(number for number, turn in pictures.TURNS.items() if turn[:3] == steps)


def open_video(path: Path) -> Video:
    """Counts and times the frames of a video by its packets, without decoding them.

    Raises:
        VideoError: the file is missing, no video, damaged, or has no video stream.
        MissingExtraError: PyAV is not installed.
    """
    stamps = array.array("q")  # a long video has many
    without = 0
    with _opened(path) as (av, container, stream):
        for packet in _packets(av, container, stream):
            if packet.size and not packet.is_discard:
                if packet.pts is None:
                    without += 1
                else:
                    stamps.append(packet.pts)
        reorders = stream.codec_context.has_b_frames and container.format.name == "avi"
    count = len(stamps) + without
    if not count:
        raise VideoError(
            "the video has no frames", path=path, remedy="look at it in a player; copy it again"
        )
    video = Video(Path(path), count)
    stored = np.asarray(stamps, np.int64)
    known = np.sort(stored)
    spacing = np.diff(known)
    if without or (spacing == 0).any():
        video.numbered_by_count = True
    else:
        video._stamps = known
        # AVI has no times of showing: FFmpeg guesses them, but not for H.264.
        video._in_storage_order = video.numbered_by_count = bool(
            reorders and (known == stored).all()
        )
        if len(spacing):
            # A time base of milliseconds rounds even spacing: a tick more or less is no change.
            video.variable_rate = bool(spacing.max() - spacing.min() > max(2, 0.1 * spacing.mean()))
    return video


def ahead(things: Iterable[_Thing], count: int = 8) -> Generator[_Thing, None, None]:
    """Iterates in a thread of its own, `count` things ahead, so that work on both sides overlaps.

    None is not among the things. What iterating raises is raised where the thing is taken. The
    thread ends with the last thing, or with `close`.
    """
    source = iter(things)
    thread = ThreadPoolExecutor(1)
    try:
        waiting = collections.deque(thread.submit(next, source, None) for _ in range(count))
        while (thing := waiting.popleft().result()) is not None:
            waiting.append(thread.submit(next, source, None))
            yield thing
    finally:
        thread.shutdown(cancel_futures=True)


def batched(things: Iterable[_Thing], count: int) -> Iterator[list[_Thing]]:
    """Lists of `count` things; what came before an error is in the last one."""
    batch: list[_Thing] = []
    try:
        for thing in things:
            batch.append(thing)
            if len(batch) == count:
                yield batch
                batch = []
    except UserError:
        if batch:
            yield batch
        raise
    if batch:
        yield batch


def estimate_frames(path: Path) -> int:
    """How many frames a video has, by its header alone: exact or near, 0 if it does not say.

    Raises as `open_video`.
    """
    with _opened(path) as (av, container, stream):
        if stream.frames:
            return int(stream.frames)
        if container.duration and stream.average_rate:
            return round(container.duration / av.time_base * float(stream.average_rate))
    return 0


def _packets(av: Any, container: Any, stream: Any) -> Iterator[Any]:
    """Packets up to the first that cannot be read, as where a file lacks its end.

    A last, empty packet makes the decoder hand out the frames that it still holds.
    """
    try:
        yield from container.demux(stream)
    except av.FFmpegError:
        flush = av.Packet()
        flush.stream = stream
        yield flush


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[tuple[Any, Any, Any]]:
    """PyAV, a file open for reading, and its first video stream; raises as `open_video`."""
    try:
        import av
    except ImportError as error:
        raise missing_extra("reading videos needs PyAV", error) from error
    # None: its callback in Python would let a thread of FFmpeg wait for the one that ends it.
    av.logging.set_level(None)  # damage is counted and reported here
    known = ",".join(sorted(av.formats_available - _LISTS))
    try:
        # What stands before a colon in a name would be taken for a protocol.
        container = av.open(
            f"file:{path}", metadata_errors="replace", options={"format_whitelist": known}
        )
    except (FileNotFoundError, PermissionError, IsADirectoryError) as error:
        problem, remedy = files.unreadable(error, "file")
        raise VideoError(problem, path=path, remedy=remedy) from error
    except (av.FFmpegError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise VideoError(
            f"this is no video, or its header is damaged ({reason})",
            path=path,
            remedy="copy or download it again; a recording that was cut off may need repair",
        ) from error
    with container:
        if container.format.name in _TEXT:
            raise VideoError("this is text, no video", path=path, remedy="name a video or a photo")
        # A cover picture in a sound file is a video stream of one frame.
        streams = [stream for stream in container.streams.video if not _is_cover(av, stream)]
        if not streams:
            kinds = sorted({stream.type for stream in container.streams})
            raise VideoError(
                "the file has no video stream" + (f", only {' and '.join(kinds)}" if kinds else ""),
                path=path,
                remedy="give the file with the picture",
            )
        yield av, container, streams[0]


def _is_cover(av: Any, stream: Any) -> bool:
    disposition = getattr(av.stream, "Disposition", None)
    return disposition is not None and bool(stream.disposition & disposition.attached_pic)
