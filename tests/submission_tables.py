"""Predictions and test lists for the tests of submissions."""

import numpy as np

from mtl_face.tables import PredictionTable


def prediction_table(keys, metadata=None, seed=0):
    random = np.random.default_rng(seed)
    count = len(keys)
    return PredictionTable(
        dataset=np.array(["s_aff_wild2"] * count),
        video=np.array([video for video, _ in keys]),
        frame=np.array([frame for _, frame in keys]),
        image=np.array([f"{video}/{frame:05d}.jpg" for video, frame in keys]),
        valence=random.uniform(-1.2, 1.2, count),
        arousal=random.uniform(-1, 1, count),
        au_logits=random.normal(size=(count, 12)),
        expression_logits=random.normal(size=(count, 8)),
        metadata=metadata or {},
    )


def listing(tmp_path, keys):
    path = tmp_path / "list.txt"
    path.write_text("\n".join(["image", *(f"{v}/{f:05d}.jpg" for v, f in keys)]) + "\n")
    return path
