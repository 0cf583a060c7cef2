"""Draws the pictures of docs/annotation.md: two rendered heads that move, as `run.py predict` does.

python -m benchmarks.annotation_sheet docs/annotation.png docs/timeline.svg --model=geometry
"""

import argparse
import contextlib
import sys
import tempfile
from pathlib import Path

import av
import numpy as np
from PIL import Image

from benchmarks import heads
from mtl_face.cli.main import main as run
from mtl_face.faces.video import open_video

SIZE = (854, 480)
SECONDS = 10
RATE = 25
SHOWN_S = 4.4
"""When the frame of the picture is shown: one head smiles, the other is surprised."""

_EYES_PX = 62.0
_HEAD_PX = 427
_LEFT = (0, 427)
_WALL = (0.24, 0.26, 0.29)

_EPISODES = (
    ((2.5, 5.5, {6: 0.9, 12: 1.0, 25: 0.7}), (7.0, 9.0, {4: 0.9, 7: 0.6, 24: 0.8})),
    ((3.5, 5.0, {1: 1.0, 2: 1.0, 5: 0.8, 25: 1.0, 26: 1.0}), (6.2, 9.5, {1: 0.8, 4: 0.6, 15: 1.0})),
)
"""Begin, end and action units of what each head shows; ramps take 0.4 s."""

_AWAY_S = (5.3, 5.7)
"""The second head is out of view in between."""


def frame_at(seconds: float) -> Image.Image:
    """The picture of a moment: both heads before one wall."""
    canvas: np.ndarray | None = None
    for place, episodes in enumerate(_EPISODES):
        units: dict[int, float] = {}
        for begin, end, peaks in episodes:
            share = float(np.clip(min(seconds - begin, end - seconds) / 0.4, 0, 1))
            units |= {unit: share * peak for unit, peak in peaks.items() if share}
        yaw = 8 * np.sin(2 * np.pi * (seconds / 5 + place / 3))
        head, _ = heads.head(
            1 + place, size=_HEAD_PX, eyes_px=_EYES_PX, yaw=float(yaw), units=units, wall=_WALL
        )
        if canvas is None:
            canvas = np.empty((SIZE[1], SIZE[0], 3), np.uint8)
            canvas[:] = head[0, 0]
        if place and _AWAY_S[0] <= seconds < _AWAY_S[1]:
            continue
        left = _LEFT[place]
        canvas[-_HEAD_PX:, left : left + _HEAD_PX] = head
    return Image.fromarray(canvas)


def write_video(path: Path) -> None:
    """The whole scene."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=RATE, options={"crf": "12"})
        stream.width, stream.height = SIZE
        stream.pix_fmt = "yuv420p"
        for number in range(SECONDS * RATE):
            picture = av.VideoFrame.from_image(frame_at(number / RATE))
            container.mux(stream.encode(picture))
        container.mux(stream.encode())


def frame_of(path: Path) -> Image.Image:
    """The annotated frame of the moment that is shown."""
    return next(
        frame.picture for frame in open_video(path) if (frame.seconds or 0.0) >= SHOWN_S - 1e-6
    )


def main(argv: list[str] | None = None) -> int:
    """Entry point of the command."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("picture", type=Path, help="PNG file to write")
    parser.add_argument("timeline", type=Path, help="SVG file to write")
    parser.add_argument("--model", default="geometry", help="as of run.py predict")
    arguments = parser.parse_args(argv)
    model = (
        str(Path(arguments.model).resolve()) if Path(arguments.model).exists() else arguments.model
    )
    picture, timeline = arguments.picture.resolve(), arguments.timeline.resolve()
    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
        write_video(Path("talk.mp4"))
        command = ["predict", "talk.mp4", f"--model={model}"]
        run([*command, "--annotate=seen.mp4", f"--plot={timeline}"])
        run([*command, "--annotate=hidden.mp4", "--anonymise"])
        seen, hidden = (frame_of(Path(name)) for name in ("seen.mp4", "hidden.mp4"))
    sheet = Image.new("RGB", (seen.width, 2 * seen.height + 8), "white")
    sheet.paste(seen, (0, 0))
    sheet.paste(hidden, (0, seen.height + 8))
    # Six bits a channel: half the size, and no difference that one sees.
    sheet = sheet.point([level & 0xFC | level >> 6 for level in range(256)] * 3)
    sheet.save(picture, optimize=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
