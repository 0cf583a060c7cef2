"""Face tables with random answers, and parts of them set as a test wants."""

import dataclasses

import numpy as np

from mtl_face.face_table import FaceTable


def faces(count=1, *, seed=0, number=1, seconds=None, box=(40.0, 40.0, 100.0, 110.0), **fields):
    """Rows of one frame: persons 1 to `count` beside each other; `fields` replace columns."""
    rng = np.random.default_rng(seed)
    time_ms = np.nan if seconds is None else 1000 * seconds
    table = FaceTable.without_faces(["a.mp4"] * count, [number] * count, [time_ms] * count)
    expression = rng.dirichlet(np.full(8, 0.5), count)
    units = rng.random((count, 12))
    boxes = np.asarray(box) + 80.0 * np.arange(count)[:, None] * [1, 0, 1, 0]
    centre = boxes.reshape(count, 2, 2).mean(axis=1)
    spread = np.array([[-15, -15], [15, -15], [0, 0], [-12, 15], [12, 15]])
    values = {
        "person": np.arange(1, count + 1),
        "status": np.full(count, "ok"),
        "score": np.full(count, 0.9),
        "box": boxes,
        "landmarks": centre[:, None] + spread,
        "va": rng.uniform(-0.8, 0.8, (count, 2)),
        "va_std": rng.uniform(0.05, 0.3, (count, 2)),
        "expression": expression.argmax(axis=1),
        "expression_probability": expression,
        "au_probability": units,
        "au_present": units > 0.5,
    }
    return dataclasses.replace(table, **(values | fields))


def video(seen, *, source="a.mp4", times_ms=None, person=1, seed=0, **fields):
    """Rows of a video with one person, who is seen in some of its frames (bool, by frame).

    `times_ms` are 40 ms apart unless given; `fields` are of the frames with a face.
    """
    seen = np.asarray(seen, bool)
    times_ms = 40.0 * np.arange(len(seen)) if times_ms is None else np.asarray(times_ms, float)
    number = np.flatnonzero(seen) + 1
    rng = np.random.default_rng(seed)
    units, expression = rng.random((len(number), 12)), rng.dirichlet(np.full(8, 0.5), len(number))
    values = {
        "source": np.full(len(number), source),
        "frame": number,
        "time_ms": times_ms[seen],
        "person": np.full(len(number), person),
        "va": rng.uniform(-0.8, 0.8, (len(number), 2)),
        "va_std": rng.uniform(0.05, 0.3, (len(number), 2)),
        "expression": expression.argmax(axis=1),
        "expression_probability": expression,
        "au_probability": units,
        "au_present": units > 0.5,
    }
    with_face = faces(1).take(np.zeros(len(number), int))
    with_face = dataclasses.replace(with_face, **(values | fields))
    gaps = np.flatnonzero(~seen)
    without = FaceTable.without_faces([source] * len(gaps), gaps + 1, times_ms[gaps])
    joined = FaceTable.joined([with_face, without])
    return joined.take(np.argsort(joined.frame, kind="stable"))
