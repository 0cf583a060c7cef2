"""Writes annotated photos and videos.

A video keeps the times of its frames and its sound: packets of sound are copied where the kind of
file can hold them, else encoded as AAC. Pictures are encoded as H.264 where PyAV has an encoder of
it, else as MPEG-4, in the colours of BT.709. Metadata of the source (place, camera, date) is left
out.
"""

import contextlib
import io
import os
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any, Self

import numpy as np
from PIL import Image, ImageOps

from mtl_face import files
from mtl_face.errors import UserError
from mtl_face.face_table import FaceTable
from mtl_face.faces.video import VideoError, VideoFrame, missing_extra
from mtl_face.report import cards, masks
from mtl_face.report.annotate import Annotator

PHOTO_ENDINGS = {".jpg": "JPEG", ".jpeg": "JPEG", ".png": "PNG", ".webp": "WEBP"}
"""Endings of annotated photos, with Pillow's name of the format."""

VIDEO_ENDINGS = {".mp4": "mp4", ".m4v": "mp4", ".mov": "mov", ".mkv": "matroska"}
"""Endings of annotated videos, with FFmpeg's name of the format."""

_ENCODERS = ("libx264", "h264_videotoolbox", "libopenh264", "mpeg4")
_BT709 = 1  # FFmpeg's number of the colour space, the primaries and the curve
_FINEST = Fraction(1, 90_000)  # of the time base, where the source has none
_MPEG4_BASE = Fraction(1, 60_000)  # MPEG-4 has 16 bits for it
_AAC_RATES = (8000, 11025, 12000, 16000, 22050, 24000, 32000, 44100, 48000)
_SOUND_AHEAD_S = 0.5  # packets of sound are written so much before the frames of the same time


class AnnotationOutputError(UserError):
    """A file for annotated pictures that cannot be made."""


def require_ending(path: Path, *, video: bool) -> Path:
    """The path; raises AnnotationOutputError if its ending is none of a photo or of a video."""
    endings = VIDEO_ENDINGS if video else PHOTO_ENDINGS
    if path.suffix.lower() not in endings:
        kind = "a video" if video else "a photo"
        raise AnnotationOutputError(
            f"{path.suffix or 'no ending'} is no format that annotated pictures of {kind} can have",
            path=path,
            remedy=f"end its name in {', '.join(endings)}",
        )
    return path


def write_annotated_photo(
    path: str | os.PathLike[str],
    picture: Image.Image,
    faces: FaceTable,
    *,
    anonymise: bool = False,
) -> None:
    """Draws the rows of a photo on it and writes the result, whole or not at all.

    Raises:
        AnnotationOutputError: the ending of `path` is unknown.
        WorkdirError: the file cannot be written.
    """
    target = require_ending(Path(path), video=False)
    drawn = Annotator(anonymise=anonymise).draw(picture, faces)
    with files.replacing(target) as part:
        drawn.save(part, PHOTO_ENDINGS[target.suffix.lower()], quality=92)


class AnnotatedVideo(contextlib.AbstractContextManager["AnnotatedVideo"]):
    """Writes a video frame by frame; a context manager. The file is there when the block succeeds.

    A block that raises, also KeyboardInterrupt, leaves no file. The size is that of the first
    frame's `annotate.layout`; frames of another size are fitted into it. With `anonymise` the
    frames of the last half second are kept in memory, see `masks.Screen`.

    Args:
        path: the file to write, with one of `VIDEO_ENDINGS`.
        source: the video that the frames are from, for sound and times; None for a camera.
        anonymise: hides the faces.

    Attributes:
        notes: what became of the sound, if it is not as in the source.

    Raises:
        AnnotationOutputError: the ending is unknown, or `path` is the source.
        WorkdirError: the file cannot be written.
        MissingExtraError: PyAV is not installed.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        source: str | os.PathLike[str] | None,
        *,
        anonymise: bool = False,
    ) -> None:
        self.notes: list[str] = []
        self._path = require_ending(Path(path), video=True)
        self._source = None if source is None else Path(source)
        if self._source is not None and os.path.realpath(path) == os.path.realpath(self._source):
            raise AnnotationOutputError(
                "this is the video to annotate", path=path, remedy="choose another name"
            )
        self._annotator = Annotator(anonymise=anonymise)
        self._screen = masks.Screen() if anonymise else None
        self._encoder: _Encoder | None = None
        self._steps = self._open()
        self._part: Path
        self._closing: contextlib.ExitStack

    def __enter__(self) -> Self:
        self._steps.__enter__()
        return self

    def __exit__(self, *error: Any) -> bool | None:
        return self._steps.__exit__(*error)

    def write(self, frame: VideoFrame, faces: FaceTable) -> None:
        """Adds a frame, later than the one before, with its rows."""
        if self._screen is None:
            self._encode(frame, self._annotator.draw(frame.picture, faces))
            return
        for settled in self._screen.push(frame, faces):
            self._encode_masked(settled)

    @contextlib.contextmanager
    def _open(self) -> Iterator[None]:
        with files.replacing(self._path) as self._part, contextlib.ExitStack() as self._closing:
            yield
            if self._screen is not None:
                for settled in self._screen.rest():
                    self._encode_masked(settled)
            if self._encoder is None:
                raise VideoError(
                    "there is no frame to annotate",
                    path=self._source or self._path,
                    remedy="look at the video in a player",
                )
            self._encoder.finish()

    def _encode_masked(self, settled: masks.Masked) -> None:
        drawn = self._annotator.draw(settled.frame.picture, settled.faces, hidden=settled.masks)
        self._encode(settled.frame, drawn)

    def _encode(self, frame: VideoFrame, drawn: Image.Image) -> None:
        if self._encoder is None:
            kind = VIDEO_ENDINGS[self._path.suffix.lower()]
            container = self._closing.enter_context(_av().open(str(self._part), "w", format=kind))
            sound = None
            if self._source is not None:
                source = self._closing.enter_context(_opened(self._source))
                start = _start_of(self._source, source.streams.video[0], frame.number)
                sound = _Sound(source, start, self.notes)
            self._encoder = _Encoder(container, drawn.size, sound)
        self._encoder.add(frame, drawn)


class _Encoder:
    """The stream of pictures, with the packets of sound between them."""

    def __init__(self, container: Any, size: tuple[int, int], sound: "_Sound | None") -> None:
        self._container = container
        self._sound = sound
        self._size = size
        self._latest = -1
        codec = next(name for name in _ENCODERS if name in _av().codecs_available)
        rate, base = (25, None) if sound is None else (sound.rate, sound.time_base)
        self._base = base if base is not None and base <= Fraction(1, 1000) else _FINEST
        if codec == "mpeg4":
            self._base = _MPEG4_BASE
        options = {"crf": "20", "preset": "veryfast"} if codec == "libx264" else {}
        stream = container.add_stream(codec, rate=rate, options=options)
        stream.width, stream.height = size
        stream.pix_fmt = "yuv420p"
        stream.codec_context.time_base = self._base
        if not options:
            stream.bit_rate = size[0] * size[1] * 4
        context = stream.codec_context
        context.colorspace = context.color_primaries = context.color_trc = _BT709
        context.color_range = 1  # 16 to 235, as players expect
        self._stream = stream
        if sound is not None:
            sound.open_in(container)

    def add(self, frame: VideoFrame, drawn: Image.Image) -> None:
        if drawn.size != self._size:
            drawn = ImageOps.pad(drawn, self._size, color=cards.PAGE)
        seconds = frame.seconds
        if seconds is None:
            seconds = (frame.number - 1) * masks.SECONDS_A_FRAME
        if self._sound is not None:
            self._sound.write_until(seconds + _SOUND_AHEAD_S)
        pixels = np.asarray(drawn)
        picture = _av().VideoFrame.from_ndarray(pixels, format="rgb24")
        picture = picture.reformat(format="yuv420p", dst_colorspace="ITU709")
        # Times that are repeated, or finer than the time base, become as near as can be.
        picture.pts = self._latest = max(round(Fraction(seconds) / self._base), self._latest + 1)
        picture.time_base = self._base
        self._container.mux(self._stream.encode(picture))

    def finish(self) -> None:
        if self._sound is not None:
            self._sound.write_until(None)
        self._container.mux(self._stream.encode())


class _Sound:
    """The sound of a source, shifted so that the time `start` becomes 0.

    Attributes:
        rate, time_base: of the source's frames.
    """

    def __init__(self, source: Any, start: Fraction, notes: list[str]) -> None:
        pictures = source.streams.video[0]
        self.rate = pictures.average_rate or 25
        self.time_base: Fraction | None = pictures.time_base
        self._source = source
        self._notes = notes
        self._container: Any = None
        self._out: Any = None
        self._encode = False
        self._samples: int | None = None
        self._packets: Iterator[Any] = iter(())
        self._next: Any = None
        self._start = start

    def open_in(self, container: Any) -> None:
        """Adds a stream for the sound, if there is any."""
        if not self._source.streams.audio:
            return
        self._container = container
        audio = self._source.streams.audio[0]
        if _can_hold(container.format.name, audio):
            self._out = container.add_stream_from_template(audio)
        else:
            rate = audio.rate if audio.rate in _AAC_RATES else _AAC_RATES[-1]
            self._out = container.add_stream("aac", rate=rate)
            self._out.layout = "mono" if audio.channels == 1 else "stereo"
            self._encode = True
            self._notes.append(f"sound encoded as AAC, was {audio.codec_context.name}")
        self._packets = self._source.demux(audio)
        self._advance()

    def write_until(self, seconds: float | None) -> None:
        """Writes the packets before a time after the first frame; None: all."""
        while self._next is not None:
            packet = self._next
            time = float(packet.dts * packet.time_base - self._start)
            if seconds is not None and time > seconds:
                return
            try:
                if time > -_SOUND_AHEAD_S:
                    self._write(packet)
            except (_av().FFmpegError, ValueError) as error:
                if isinstance(error, OSError):
                    raise
                self._notes.append(f"sound ends after {max(time, 0.0):.1f} s: {error}")
                self._next = None
                return
            self._advance()
        if seconds is None and self._encode:
            self._container.mux(self._out.encode())

    def _write(self, packet: Any) -> None:
        shift = round(self._start / packet.time_base)
        if not self._encode:
            packet.pts, packet.dts = packet.pts - shift, packet.dts - shift
            packet.stream = self._out
            self._container.mux(packet)
            return
        with contextlib.suppress(_av().InvalidDataError):
            for frame in packet.decode():
                # Times of packets are coarse in some files: samples are counted, over gaps as well.
                if frame.time is not None:
                    due = round((frame.time - float(self._start)) * frame.sample_rate)
                    if self._samples is None or due > self._samples + frame.sample_rate // 5:
                        self._samples = due
                frame.pts = self._samples or 0
                frame.time_base = Fraction(1, frame.sample_rate)
                self._samples = frame.pts + frame.samples
                self._container.mux(self._out.encode(frame))

    def _advance(self) -> None:
        self._next = None
        try:
            for packet in self._packets:
                if packet.dts is not None and packet.pts is not None and packet.size:
                    self._next = packet
                    return
        except _av().FFmpegError as error:
            self._notes.append(f"sound ends where the file cannot be read: {error.strerror}")


def _can_hold(kind: str, audio: Any) -> bool:
    """Whether a kind of file takes these packets: its header is written to find out."""
    av = _av()
    try:
        with av.open(io.BytesIO(), "w", format=kind.split(",")[0]) as trial:
            trial.add_stream_from_template(audio)
            trial.start_encoding()
    except (av.FFmpegError, ValueError, TypeError):
        return False
    return True


def _opened(source: Path) -> Any:
    return _av().open(f"file:{source}", metadata_errors="replace")


def _start_of(source: Path, pictures: Any, first_frame: int) -> Fraction:
    """The time of the first frame that could be decoded, in the source's own time."""
    stamp = pictures.start_time or 0
    if first_frame > 1:
        with _opened(source) as container:
            packets = container.demux(container.streams.video[0])
            stamps = sorted(
                packet.pts for packet in packets if packet.size and packet.pts is not None
            )
        if len(stamps) >= first_frame:
            stamp = stamps[first_frame - 1]
    return Fraction(stamp * pictures.time_base)


def _av() -> Any:
    try:
        import av
    except ImportError as error:
        raise missing_extra("writing videos needs PyAV", error) from error
    av.logging.set_level(None)  # see `faces.video`; damage is reported here
    return av
