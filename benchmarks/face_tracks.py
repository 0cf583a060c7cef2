"""How often persons keep their numbers in constructed videos, by motion and looks and by motion.

    python -m benchmarks.face_tracks --pairs=20 --output=docs/benchmarks/faces/face_tracks.json

Pairs of rendered heads move before a wall, turn and talk; brightness and noise change from frame to
frame. Each case is one difficulty. `FaceStream` finds, follows and numbers the faces, as `predict`
does of a video; a case is solved if every face of every frame has its person's number.
"""

import argparse
import dataclasses
import json
import types
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from benchmarks import heads
from mtl_face.faces import align
from mtl_face.faces.track import Tracker
from mtl_face.faces.video import VideoFrame
from mtl_face.inference.stream import FaceStream

WIDTH, HEIGHT = 640, 360
_HEAD = 220
_STEPS = 50

_POSES = ((0, ()), (12, ()), (20, (25,)), (8, (12, 25)), (-8, (25, 26)), (-16, ()))
"""Yaw and action units that a head goes through."""


@dataclasses.dataclass(frozen=True)
class Shown:
    """A person in a frame: 0 or 1 of the pair, and the middle of the head as share of the width."""

    person: int
    x: float


Scene = list[list[Shown]]
"""Who is where in each frame, those in front last."""


def other_size() -> Scene:
    """One drifts; see `SIZES`."""
    return [[Shown(0, 0.3 + 0.3 * step / _STEPS)] for step in range(_STEPS)]


SIZES = {other_size: ((1.0, 0), (1.5, 17), (0.7, 34))}
"""Factor of the picture's size, and the frame from which on it holds."""


def comes_back() -> Scene:
    """One leaves for a second and a half, and comes back on the other side."""
    away: Scene = [[] for _ in range(38)]
    return [[Shown(0, 0.25)]] * 15 + away + [[Shown(0, 0.75)]] * 15


def another_in_between() -> Scene:
    """While one is away, the other takes the place for a while."""
    away: Scene = [[] for _ in range(20)]
    first, second = [[Shown(0, 0.5)]] * 15, [[Shown(1, 0.5)]] * 15
    return first + away + second + away + first


def cross() -> Scene:
    """Two go past each other, one behind the other."""
    result = []
    for step in range(_STEPS):
        share = step / (_STEPS - 1)
        result.append([Shown(1, 0.78 - 0.56 * share), Shown(0, 0.22 + 0.56 * share)])
    return result


def swap() -> Scene:
    """Two have changed seats after a cut."""
    before = [Shown(0, 0.25), Shown(1, 0.75)]
    after = [Shown(1, 0.25), Shown(0, 0.75)]
    return [before] * 20 + [after] * 20


def shot_and_reverse_shot() -> Scene:
    """Cuts between two persons in one and the same place."""
    return ([[Shown(0, 0.5)]] * 12 + [[Shown(1, 0.5)]] * 12) * 2


def shots_elsewhere() -> Scene:
    """The same, each before a wall of their own."""
    return shot_and_reverse_shot()


def one_elsewhere() -> Scene:
    """Cuts from one wall to another behind the same person."""
    return [[Shown(0, 0.5)]] * 48


WALLS = dict.fromkeys((shots_elsewhere, one_elsewhere), (12, 24, 36))
"""Frames from which on another wall is seen, or the first one again."""


def both_come_back() -> Scene:
    """Two leave, and come back with changed sides, one after the other."""
    away: Scene = [[] for _ in range(20)]
    both, one = [Shown(0, 0.25), Shown(1, 0.75)], [Shown(1, 0.25)]
    return [both] * 15 + away + [one] * 10 + [[*one, Shown(0, 0.75)]] * 15


CASES = (
    *(other_size, comes_back, another_in_between),
    *(cross, swap, shot_and_reverse_shot, shots_elsewhere, one_elsewhere, both_come_back),
)


def frames(case: Callable[[], Scene], pair: int) -> Iterator[tuple[VideoFrame, list[Any]]]:
    """The frames of a case, and the landmarks and person of each head that is not covered."""
    random = np.random.default_rng([pair, 7])
    walls = [heads.background(number, WIDTH, HEIGHT) for number in (pair, 1000 + pair)]
    cuts = WALLS.get(case, ())
    seeds = (5000 + 2 * pair, 5001 + 2 * pair)
    factors = SIZES.get(case, ((1.0, 0),))
    for step, shown in enumerate(case()):
        canvas = walls[sum(step >= cut for cut in cuts) % 2].copy()
        places: list[tuple[np.ndarray, int]] = []
        for one in shown:
            yaw, units = _POSES[(step // 4 + 2 * one.person) % len(_POSES)]
            head = heads.cut_out(seeds[one.person], yaw=yaw, units=units).resized(_HEAD)
            left = round(one.x * WIDTH - _HEAD / 2)
            landmarks = head.put_on(canvas, left, 60 + 10 * one.person)
            places = [
                (other, person)
                for other, person in places
                if np.linalg.norm(other.mean(axis=0) - landmarks.mean(axis=0)) > 0.6 * _HEAD
            ]
            places.append((landmarks, one.person))
        noisy = canvas * random.uniform(0.97, 1.03) + random.normal(0, 3, canvas.shape)
        picture = Image.fromarray(noisy.clip(0, 255).astype(np.uint8))
        factor = [factor for factor, start in factors if step >= start][-1]
        if factor != 1:
            size = (round(WIDTH * factor), round(HEIGHT * factor))
            picture = picture.resize(size, Image.Resampling.BILINEAR)
        known = [((place + 0.5) * factor - 0.5, person) for place, person in places]
        yield VideoFrame(step + 1, step / 25, picture), known


class Score:
    """Counts faces, and those with another number than their person's.

    A person has the number of the first face of theirs; two persons with one number are an error.
    """

    def __init__(self) -> None:
        self.faces = self.wrong = 0
        self._number_of: dict[int, int] = {}

    def add(self, person: int, number: int) -> None:
        """Adds a face of a person with this number."""
        if person not in self._number_of and number not in self._number_of.values():
            self._number_of[person] = number
        self.faces += 1
        self.wrong += self._number_of.get(person) != number


def errors(case: Callable[[], Scene], pair: int) -> dict[str, Score]:
    """How well the faces of a case are numbered by motion and looks, and by motion alone."""
    finds_alone: Any = types.SimpleNamespace(inputs=(), crop=align.specification())
    stream = FaceStream(finds_alone, source="video")
    by_motion = Tracker()
    scores = {"motion_and_looks": Score(), "motion": Score()}
    for frame, known in frames(case, pair):
        (sight,) = stream.find([frame])
        tracks = by_motion.update(frame.number, sight.faces)  # it does not see the picture
        for face, number, track in zip(sight.faces, sight.persons, tracks, strict=True):
            for landmarks, person in known:
                if np.linalg.norm(face.centre - landmarks.mean(axis=0)) <= face.size / 2:
                    scores["motion_and_looks"].add(person, number)
                    scores["motion"].add(person, track.number)
    return scores


def main(argv: list[str] | None = None) -> None:
    """Prints and writes the share of solved cases."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--pairs", type=int, default=20)
    parser.add_argument("--output", type=Path)
    arguments = parser.parse_args(argv)
    rows = []
    for case in CASES:
        row: dict[str, Any] = {"case": case.__name__, "meaning": (case.__doc__ or "").split(";")[0]}
        scores = [errors(case, pair) for pair in range(arguments.pairs)]
        for name in scores[0]:
            of_way = [score[name] for score in scores]
            wrong = sum(score.wrong for score in of_way)
            row[name] = {
                "solved": float(np.mean([score.wrong == 0 for score in of_way])),
                "faces_with_another_number": wrong / sum(score.faces for score in of_way),
            }
        print(json.dumps(row), flush=True)
        rows.append(row)
    if arguments.output is not None:
        result = {"command": "python -m benchmarks.face_tracks", "pairs": arguments.pairs}
        arguments.output.parent.mkdir(parents=True, exist_ok=True)
        arguments.output.write_text(json.dumps({**result, "cases": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
