"""Recall of faces by their height, and what a search takes: rendered heads in 720p and 1080p.

    python -m benchmarks.small_faces --output=docs/benchmarks/faces/small_faces.json

Heads of many people, turned up to 25 degrees to the side, 12 up and down and 15 tilted, some with
a smile, stand anywhere in front of walls without faces. A face is found if its centre is nearer
than a quarter of its height and its height is right within a factor of 1.7. The height is that of
the mesh: from the top of the forehead to the chin. Processor time is that of all threads.
"""

import argparse
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from benchmarks import heads
from mtl_face.faces.detect import Face, FaceFinder

SIZES = ((1280, 720), (1920, 1080))
HEIGHTS = (16, 20, 24, 32, 48, 64, 96, 128)
LEAST = (None, 40.0, 20.0)
"""Values of `FaceFinder(min_face)`."""

_PER_FRAME = 4
_HEIGHT_OF_EYES = 2.66
"""Height of the mesh in distances between the eyes, the mean over rendered heads."""


def scene(width: int, height: int, face_px: float, number: int) -> tuple[np.ndarray, np.ndarray]:
    """A frame with heads side by side, and their landmarks [F, 5, 2]."""
    random = np.random.default_rng([number, int(face_px)])
    canvas = heads.background(1000 * int(face_px) + number, width, height)
    known = []
    for place in range(_PER_FRAME):
        yaw, pitch, roll = random.uniform([-25, -12, -15], [25, 12, 15]).round().tolist()
        units = (12, 25) if place % 2 else ()
        seed = 300 + (_PER_FRAME * number + place) % 48
        head = heads.cut_out(seed, yaw=yaw, pitch=pitch, roll=roll, units=units)
        side = round(320 * face_px / (60 * _HEIGHT_OF_EYES))
        room = width // _PER_FRAME - side
        left = place * width // _PER_FRAME + int(random.integers(0, max(room, 1)))
        top = int(random.integers(0, height - side))
        known.append(head.resized(side).put_on(canvas, left, top))
    return canvas, np.stack(known)


def is_found(landmarks: np.ndarray, face_px: float, faces: list[Face]) -> list[bool]:
    """Which of the faces are the one with these landmarks."""
    return [
        bool(np.linalg.norm(face.centre - landmarks.mean(axis=0)) < 0.25 * face_px)
        and face_px / 1.7 < face.height < 1.7 * face_px
        for face in faces
    ]


def measure(
    finder: FaceFinder, width: int, height: int, face_px: float, frames: int
) -> dict[str, Any]:
    """Recall, false faces a frame, and milliseconds of processor time a frame."""
    hits, others, times = [], 0, []
    for number in range(frames):
        canvas, known = scene(width, height, face_px, number)
        picture = Image.fromarray(canvas)
        start = time.process_time()
        faces = finder(picture)
        times.append(time.process_time() - start)
        matches = np.array([is_found(one, face_px, faces) for one in known]).reshape(len(known), -1)
        hits += matches.any(axis=1).tolist()
        others += int((~matches.any(axis=0)).sum())
    return {
        "recall": float(np.mean(hits)),
        "faces": len(hits),
        "false_faces_a_frame": others / frames,
        "processor_ms": round(1000 * float(np.median(times)), 1),
    }


def main(argv: list[str] | None = None) -> None:
    """Prints and writes a row for each size of the frame, least height and height."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--frames", type=int, default=15)
    parser.add_argument("--output", type=Path)
    arguments = parser.parse_args(argv)
    rows = []
    for width, height in SIZES:
        for least in LEAST:
            finder = FaceFinder(least)
            finder(Image.new("RGB", (width, height)))  # compiles
            for face_px in HEIGHTS:
                found = measure(finder, width, height, face_px, arguments.frames)
                row = {"frame": [width, height], "min_face": least, "face_px": face_px, **found}
                print(json.dumps(row), flush=True)
                rows.append(row)
    if arguments.output is not None:
        arguments.output.parent.mkdir(parents=True, exist_ok=True)
        result = {"command": "python -m benchmarks.small_faces", "rows": rows}
        arguments.output.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
