"""Small tables of labels and predictions that the tests of this folder share."""

import dataclasses

import numpy as np

from mtl_face.tables import STD_COLUMNS, VALUE_FIELDS, FrameTable, PredictionTable


def make_labels(num_rows: int, *, seed: int = 0, missing: float = 0.2) -> FrameTable:
    """Random labels; each task is missing in a share of the rows."""
    rng = np.random.default_rng(seed)
    valence, arousal = rng.uniform(-1, 1, (2, num_rows))
    expression = rng.integers(0, 8, num_rows)
    au = rng.integers(0, 2, (num_rows, 12)).astype(np.float64)
    valence[rng.random(num_rows) < missing] = np.nan
    arousal[rng.random(num_rows) < missing] = np.nan
    expression[rng.random(num_rows) < missing] = -1
    au[rng.random(num_rows) < missing] = np.nan
    video, frame = [f"video{i // 10}" for i in range(num_rows)], np.arange(num_rows) % 10 * 3 + 1
    return FrameTable.from_columns(
        dataset="rendered",
        video=video,
        frame=frame,
        image=[f"{v}/{f:05d}.jpg" for v, f in zip(video, frame, strict=True)],
        root="/images",
        valence=valence,
        arousal=arousal,
        expression=expression,
        au=au,
        sort=False,
    )


def make_predictions(labels: FrameTable, *, seed: int = 1, noise: float = 1.0) -> PredictionTable:
    """Predictions of every row: the labels where there are any, plus noise."""
    rng = np.random.default_rng(seed)
    num_rows = len(labels.frame)
    one_hot = np.eye(9)[labels.expression][:, :8]
    return PredictionTable(
        dataset=labels.dataset,
        video=labels.video,
        frame=labels.frame,
        image=labels.image,
        valence=np.nan_to_num(labels.valence) + noise * rng.normal(0, 0.5, num_rows),
        arousal=np.nan_to_num(labels.arousal) + noise * rng.normal(0, 0.5, num_rows),
        au_logits=np.nan_to_num(labels.au, nan=0.5) * 2
        - 1
        + noise * rng.normal(0, 2, (num_rows, 12)),
        expression_logits=one_hot + noise * rng.normal(0, 1, (num_rows, 8)),
        metadata={"config": {"batch_size": 64, "name": "tiny"}, "weights_sha256": "ab12"},
    )


def decisions_alone(table: PredictionTable) -> PredictionTable:
    """The table as a submission would hold it, without logits."""
    return dataclasses.replace(
        table,
        au_logits=None,
        expression_logits=None,
        au_decisions=table.au,
        expression_decisions=table.expression,
    )


def without(table: PredictionTable, *tasks: str, counted: bool = True) -> PredictionTable:
    """The table of a network that saw no label of some tasks; `counted`: its metadata say so."""
    fields = [field for task in tasks for field in VALUE_FIELDS[task]]
    if "va" in tasks and table.valence_std is not None:
        fields += STD_COLUMNS
    gone = {name: np.full_like(getattr(table, name), np.nan) for name in fields}
    labels = {task: 0 if task in tasks else 100 for task in ("va", "au", "expr")}
    metadata = {**table.metadata, **({"training": {"labels": labels}} if counted else {})}
    return dataclasses.replace(table, **gone, metadata=metadata)
