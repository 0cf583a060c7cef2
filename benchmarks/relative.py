"""What judging persons beside themselves at rest is worth, on constructed videos of rendered heads.

    python -m benchmarks.relative --output=docs/benchmarks/faces/relative.json

Each person acts in one video, which begins and ends at rest, and smiles in all of another. The
persons are not those of the embedded data set. The faces are found and answered as `run.py predict`
does it: each picture by itself, beside earlier frames, beside all frames of the video, beside a
neutral picture; and, for comparison, beside the plain mean of the video's points.
"""

import argparse
import dataclasses
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

import mtl_face
from benchmarks.comparison import environment
from benchmarks.heads import head
from mtl_face.face_table import MEAN_OF_PERSON
from mtl_face.faces.detect import FaceFinder
from mtl_face.inference.baseline import Baselines, neutrality
from mtl_face.inference.predictor import Predictor
from mtl_face.inference.stream import FaceStream, Seen, Sight, neutral_points, see
from mtl_face.inputs import POINTS
from mtl_face.tasks import AU_NUMBERS, EXPRESSION_NAMES

ACTS: dict[str, tuple[int, ...]] = {
    "Neutral": (),
    "Happiness": (6, 12, 25),
    "Sadness": (1, 4, 15),
    "Surprise": (1, 2, 25, 26),
    "Anger": (4, 7, 23),
    "Disgust": (4, 9, 10),
}
"""Expressions and the action units that make them."""

_SEED = 70_000  # far from those of the embedded persons


@dataclasses.dataclass(frozen=True)
class Shot:
    """A frame: action units at an intensity, and the expression that they are."""

    expression: str
    intensity: float


def acting(repeats: int) -> list[Shot]:
    """Rest and every act in turn, and rest again."""
    turns = [Shot(name, 0.8) for name in ("Neutral", *ACTS) for _ in range(repeats)]
    return [*turns, *[Shot("Neutral", 0.0)] * repeats]


def smiling(count: int) -> list[Shot]:
    """A smile that comes and goes, and is always there."""
    return [Shot("Happiness", 0.6 + 0.4 * (number % 3) / 2) for number in range(count)]


def filmed(person: int, shots: Sequence[Shot], finder: FaceFinder) -> list[Sight]:
    """The frames of a video, with slightly different poses, and the face in each."""
    random = np.random.default_rng(person)
    pictures = []
    for shot in shots:
        yaw, pitch, roll = random.normal(0, [6, 4, 3]).tolist()
        units = dict.fromkeys(ACTS[shot.expression], shot.intensity)
        pixels, _ = head(_SEED + person, yaw=yaw, pitch=pitch, roll=roll, units=units)
        pictures.append(Image.fromarray(pixels))
    return [
        Sight(f"person {person}", number, number / 25, picture, faces[:1], [1])
        for number, (picture, faces) in enumerate(
            zip(pictures, finder.find(pictures), strict=True), start=1
        )
    ]


def ways(
    model: Predictor, neutral: NDArray[np.float32]
) -> dict[str, Callable[[list[Sight]], Seen]]:
    """How a video can be answered, by name; `neutral` are the points of a neutral picture."""

    def of_video(sights: list[Sight], *, plain: bool = False) -> Seen:
        seen = see(model, sights)
        baselines, person_F = Baselines(), seen.table.person[seen.table.has_face]
        weight_F = np.ones(len(person_F)) if plain else neutrality(seen.predictions)
        baselines.add(person_F, seen.arrays[POINTS], weight_F)
        return seen.relative(model, *baselines.known(person_F), MEAN_OF_PERSON)

    return {
        "by itself": lambda sights: see(model, sights),
        "earlier frames": lambda sights: FaceStream(model, source="").answer(sights),
        "all frames": of_video,
        "neutral picture": lambda sights: see(model, sights).beside(model, neutral),
        "plain mean": lambda sights: of_video(sights, plain=True),
    }


def scores(seen: Sequence[Seen], shots: Sequence[Shot]) -> dict[str, float]:
    """Mean AUC of the action units that occur, and macro F1 of the expressions, over persons."""
    from sklearn.metrics import f1_score, roc_auc_score

    logit_NA = np.concatenate([one.predictions.au_logits for one in seen])
    found_N = np.concatenate([one.predictions.expression for one in seen])
    acts = [ACTS[shot.expression] if shot.intensity else () for shot in shots] * len(seen)
    present_NA = np.array([[unit in act for unit in AU_NUMBERS] for act in acts])
    true_N = [EXPRESSION_NAMES.index(shot.expression) for shot in shots] * len(seen)
    occurring = np.flatnonzero(present_NA.any(axis=0))
    auc = [roc_auc_score(present_NA[:, unit], logit_NA[:, unit]) for unit in occurring]
    macro = f1_score(true_N, found_N, labels=sorted(set(true_N)), average="macro", zero_division=0)
    return {"au_auc": float(np.mean(auc)), "expression_f1": float(macro)}


def smiles(seen: Sequence[Seen]) -> dict[str, float]:
    """Mean valence and mean probability of AU 12."""
    unit = AU_NUMBERS.index(12)
    probability = np.concatenate([one.predictions.au_probabilities[:, unit] for one in seen])
    valence = np.concatenate([one.predictions.valence for one in seen])
    return {"valence": float(valence.mean()), "au12_probability": float(probability.mean())}


def measure(model: Predictor, persons: int, repeats: int) -> dict[str, dict[str, float]]:
    """Scores by way: of the video with all acts, and of the smile that never ends."""
    finder = FaceFinder()
    shots, smile = acting(repeats), smiling(4 * repeats)
    answers: dict[str, tuple[list[Seen], list[Seen]]] = {}
    for person in range(persons):
        still, _ = head(_SEED + person)
        neutral = neutral_points(model, still, finder)
        videos = filmed(person, shots, finder), filmed(person, smile, finder)
        for name, answer in ways(model, neutral).items():
            of_way = answers.setdefault(name, ([], []))
            for video, taken in zip(videos, of_way, strict=True):
                taken.append(answer(video))
    return {
        name: {**scores(acted, shots), **smiles(smiled)}
        for name, (acted, smiled) in answers.items()
    }


def main() -> None:
    """Measures, prints a table and writes it."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default="geometry", help="a model that takes points")
    parser.add_argument("--persons", type=int, default=12)
    parser.add_argument("--repeats", type=int, default=4, help="frames of each act")
    parser.add_argument("--output", type=Path, help="JSON file to write")
    options = parser.parse_args()
    model = mtl_face.load(options.model)
    found = measure(model, options.persons, options.repeats)
    for name, numbers in found.items():
        print(f"{name:16}", *(f"{key} {value:+.3f}" for key, value in numbers.items()))
    if options.output is not None:
        result: dict[str, Any] = {
            "model": options.model,
            "weights_sha256": model.origin["weights_sha256"],
            "persons": options.persons,
            "repeats": options.repeats,
            "ways": found,
            "environment": environment(),
        }
        options.output.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
