"""Small real videos: written by the same library that reads them, then bent as tests need."""

import struct
from fractions import Fraction

import av
import camera_frames
import numpy as np

TURNS = {
    0: (1, 0, 0, 1),
    90: (0, 1, -1, 0),
    180: (-1, 0, 0, -1),
    270: (0, -1, 1, 0),
}
"""Clockwise quarter turns as the first two rows of a QuickTime display matrix."""


def write(
    path, frames, *, rate=25, codec="libx264", pixel_format="yuv420p", times_ms=None, aspect=None
):
    """Encodes RGB frames; `times_ms` makes the frame rate uneven."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=rate)
        stream.height, stream.width = frames[0].shape[:2]
        stream.pix_fmt = pixel_format
        if aspect is not None:
            stream.codec_context.sample_aspect_ratio = aspect
        if times_ms is not None:
            stream.codec_context.time_base = Fraction(1, 1000)
        for index, pixels in enumerate(frames):
            frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
            if times_ms is not None:
                frame.pts, frame.time_base = times_ms[index], Fraction(1, 1000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def turn(path, degrees, width, height):
    """Writes a rotation into the header of an MP4 file, as a phone does."""
    content = bytearray(path.read_bytes())
    start = content.find(b"tkhd") + 44
    assert struct.unpack(">9i", content[start : start + 36])[0] == 1 << 16
    a, b, c, d = (value << 16 for value in TURNS[degrees])
    x = {90: height, 180: width}.get(degrees, 0) << 16
    y = {180: height, 270: width}.get(degrees, 0) << 16
    content[start : start + 36] = struct.pack(">9i", a, b, 0, c, d, 0, x, y, 1 << 30)
    path.write_bytes(content)
    return path


def grey_steps(count, size=(64, 96)):
    """Frames whose brightness tells their number: 4 + 8 i."""
    return [np.full((*size, 3), 4 + 8 * index, np.uint8) for index in range(count)]


def two_people(count=12, *, absent=(), size=(360, 640)):
    """Two heads that drift; `absent` frames (from 1) lack the one on the right."""
    left, _ = camera_frames.head(1, size=300, eyes_px=50)
    right, _ = camera_frames.head(2, size=300, eyes_px=46)
    frames = []
    for index in range(count):
        canvas = np.full((*size, 3), 90, np.uint8)
        camera_frames.paste(canvas, left, np.zeros((5, 2)), 10 + index, 30)
        if index + 1 not in absent:
            camera_frames.paste(canvas, right, np.zeros((5, 2)), 330 - index // 2, 40)
        frames.append(canvas)
    return frames
