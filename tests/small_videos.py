"""Small real videos: written by the same library that reads them, then bent as tests need."""

import struct
from fractions import Fraction

import av
import camera_frames
import numpy as np

MATRICES = {
    1: (1, 0, 0, 1),
    2: (-1, 0, 0, 1),
    3: (-1, 0, 0, -1),
    4: (1, 0, 0, -1),
    5: (0, 1, 1, 0),
    6: (0, 1, -1, 0),
    7: (0, -1, -1, 0),
    8: (0, -1, 1, 0),
}
"""EXIF orientations as the first two rows (a, b; c, d) of a QuickTime display matrix, which brings
the place (p, q) of a stored pixel, q down, to (a p + c q, b p + d q)."""


def write(
    path,
    frames,
    *,
    rate=25,
    codec="libx264",
    pixel_format="yuv420p",
    times_ms=None,
    aspect=None,
    title=None,
):
    """Encodes RGB frames; `times_ms` makes the frame rate uneven."""
    with av.open(str(path), "w") as container:
        if title is not None:
            container.metadata["title"] = title
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


def turn(path, orientation, width, height):
    """Writes a display matrix into the header of an MP4 file, as a phone does."""
    content = bytearray(path.read_bytes())
    start = content.find(b"tkhd") + 44
    assert struct.unpack(">9i", content[start : start + 36])[0] == 1 << 16
    a, b, c, d = MATRICES[orientation]
    x = width * (a < 0) + height * (c < 0)  # what a negative number mirrors is shifted back
    y = width * (b < 0) + height * (d < 0)
    rows = (a << 16, b << 16, 0, c << 16, d << 16, 0, x << 16, y << 16, 1 << 30)
    content[start : start + 36] = struct.pack(">9i", *rows)
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
