"""A network of points without weights, and faces drawn as points, for tests of baselines."""

import numpy as np

from mtl_face.faces import geometry
from mtl_face.faces.detect import Face
from mtl_face.tables import PredictionTable

_RANDOM = np.random.default_rng(5)
SMILE = _RANDOM.normal(0, 0.02, (468, 3))
"""What a smile of 1 adds to the points."""

PERSONS = _RANDOM.normal(0, 0.02, (4, 468, 3)) * [1, 1, 0.5]
"""How persons differ from the mean face; person 1 looks as if smiling a little."""

PERSONS[1] += (0.3 - (PERSONS[1] * SMILE).sum() / (SMILE**2).sum()) * SMILE


def mesh(person, smile, *, size=80.0, left=0.0):
    """Points of a face in pixels."""
    points = geometry.mean_face() + PERSONS[person] + smile * SMILE
    return (points * size + [size * 2 + left, size * 2, 0]).astype(np.float32)


def face(person, smile, *, left=0.0):
    points = mesh(person, smile, left=left)
    landmarks = np.stack(
        [
            points[[33, 133], :2].mean(axis=0),
            points[[362, 263], :2].mean(axis=0),
            points[1, :2],
            points[61, :2],
            points[291, :2],
        ]
    ).astype(np.float64)
    return Face(landmarks, 0.9, points)


class Smile:
    """Valence is the smile beyond the baseline; without one a face is neutral below 0.5."""

    crop_size = 112
    calibration = None
    step = 3

    def __init__(self, inputs=("points",), **origin):
        self.frames = None
        self.inputs, self.crop = inputs, {}
        self.origin = {"weights_sha256": "face", **origin}
        self.baselines = []  # of each call

    def predict_arrays(self, arrays):
        points_NV3, baseline_NV3 = arrays["points"], arrays["baseline"]
        assert points_NV3.dtype == baseline_NV3.dtype == np.float32
        assert points_NV3.shape == baseline_NV3.shape
        for name in self.inputs:
            assert len(arrays[name]) == len(points_NV3)
        self.baselines.append(baseline_NV3)
        unit = SMILE / (SMILE**2).sum()
        smile_N = np.tensordot(points_NV3 - baseline_NV3, unit, axes=2)
        absolute_N = np.tensordot(points_NV3, unit, axes=2)
        logits_N8 = np.zeros((len(smile_N), 8))
        logits_N8[:, 0] = 12 * (0.5 - absolute_N)
        count = len(smile_N)
        return PredictionTable(
            dataset=np.full(count, "crops"),
            video=np.full(count, "crops"),
            frame=np.arange(1, count + 1),
            image=np.full(count, "a"),
            valence=smile_N,
            arousal=np.zeros(count),
            au_logits=np.zeros((count, 12)),
            expression_logits=logits_N8,
            metadata={**self.origin, "step": self.step},
        )
