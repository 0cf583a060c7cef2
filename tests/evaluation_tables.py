"""Small tables of labels and predictions that the tests of this folder share."""

import dataclasses
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mtl_face.evaluation.predictions import PredictionTable


@dataclasses.dataclass(frozen=True)
class Labels:
    """The columns that `mtl_face.evaluation.truth.Truth` asks for."""

    dataset: NDArray[Any]
    video: NDArray[Any]
    frame: NDArray[Any]
    valence: NDArray[Any]
    arousal: NDArray[Any]
    expression: NDArray[Any]
    au: NDArray[Any]

    def take(self, rows: NDArray[Any]) -> "Labels":
        return Labels(**{f.name: getattr(self, f.name)[rows] for f in dataclasses.fields(self)})


def make_labels(num_rows: int, *, seed: int = 0, missing: float = 0.2) -> Labels:
    """Random labels; each task is missing in a share of the rows."""
    rng = np.random.default_rng(seed)
    valence, arousal = rng.uniform(-1, 1, (2, num_rows))
    expression = rng.integers(0, 8, num_rows)
    au = rng.integers(0, 2, (num_rows, 12)).astype(np.float64)
    valence[rng.random(num_rows) < missing] = np.nan
    arousal[rng.random(num_rows) < missing] = np.nan
    expression[rng.random(num_rows) < missing] = -1
    au[rng.random(num_rows) < missing] = np.nan
    return Labels(
        dataset=np.full(num_rows, "rendered"),
        video=np.array([f"video{i // 10}" for i in range(num_rows)]),
        frame=np.arange(num_rows) % 10 * 3 + 1,
        valence=valence,
        arousal=arousal,
        expression=expression,
        au=au,
    )


def make_predictions(labels: Labels, *, seed: int = 1, noise: float = 1.0) -> PredictionTable:
    """Predictions of every row: the labels where there are any, plus noise."""
    rng = np.random.default_rng(seed)
    num_rows = len(labels.frame)
    one_hot = np.eye(9)[labels.expression][:, :8]
    return PredictionTable(
        dataset=labels.dataset,
        video=labels.video,
        frame=labels.frame,
        image=np.array(
            [f"{v}/{f:05d}.jpg" for v, f in zip(labels.video, labels.frame, strict=True)], np.str_
        ),
        valence=np.nan_to_num(labels.valence) + noise * rng.normal(0, 0.5, num_rows),
        arousal=np.nan_to_num(labels.arousal) + noise * rng.normal(0, 0.5, num_rows),
        au_logits=np.nan_to_num(labels.au, nan=0.5) * 2
        - 1
        + noise * rng.normal(0, 2, (num_rows, 12)),
        expression_logits=one_hot + noise * rng.normal(0, 1, (num_rows, 8)),
        metadata={"config": {"batch_size": 64, "name": "tiny"}, "weights_sha256": "ab12"},
    )
