"""From tables of predictions to scores with intervals, smoothed tables and a report.

    python -m benchmarks.evaluation --output=docs/benchmarks/evaluation.json

Labels and predictions are random: 170,000 frames of 300 videos for scores and report, a million
frames for smoothing. The references are what one writes with scikit-learn, pandas and SciPy. They
give fewer numbers: the official score and its three parts, where mtl_face gives some 200 scores.
Their interval resamples frames in a loop; a few rounds of it are timed, and scaled up.
"""

import argparse
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from scipy import ndimage
from sklearn import metrics

from benchmarks import comparison
from mtl_face.evaluation import prediction_files, scoring, smoothing
from mtl_face.report import Report, write_report
from mtl_face.tables import FrameTable, PredictionTable

FRAMES, VIDEOS, RESAMPLES = 170_000, 300, 1000
SMOOTHED_FRAMES = 1_000_000
KERNELS: tuple[tuple[smoothing.Kernel, float], ...] = (("box", 30), ("gaussian", 10.0))
_TIMED_RESAMPLES = 3


def main() -> None:
    """Prints one table for each kind of work."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    comparison.add_arguments(parser, rounds=3)
    parser.add_argument("--frames", type=int, default=FRAMES, help="rows to score")
    parser.add_argument(
        "--smoothed-frames", type=int, default=SMOOTHED_FRAMES, help="rows to smooth"
    )
    options = parser.parse_args()
    groups = [
        *score_groups(options.frames, options.rounds),
        *smoothing_groups(options.smoothed_frames, options.rounds),
    ]
    comparison.report("Evaluation", groups, options.output)


def score_groups(num_rows: int, rounds: int) -> list[comparison.Group]:
    """Scores without and with intervals, the report, and reading the table."""
    truth, predictions = make_tables(num_rows)
    scores: dict[str, Callable[[], object]] = {
        "scikit-learn, P alone": lambda: reference_score(truth, predictions),
        "mtl_face, all scores": lambda: scoring.score(truth, predictions),
    }
    frames = f"{num_rows:,} frames"
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        return [
            timed(f"Scores, {frames}", scores, rounds),
            with_intervals(truth, predictions, rounds),
            timed(f"Report, {frames}", report_ways(truth, predictions, folder), rounds),
            timed(f"Reading predictions, {frames}", file_ways(predictions, folder), rounds),
        ]


def smoothing_groups(num_rows: int, rounds: int) -> list[comparison.Group]:
    """Both kernels on one table."""
    table = make_tables(num_rows)[1]
    return [
        timed(
            f"Smoothing, {kernel} {window:g}, {num_rows:,} frames",
            smoothing_ways(table, kernel, window),
            rounds,
        )
        for kernel, window in KERNELS
    ]


def timed(name: str, ways: dict[str, Callable[[], object]], rounds: int) -> comparison.Group:
    """A group in seconds whose reference is the first way."""
    return comparison.Group(
        name, next(iter(ways)), "s", comparison.time_in_turn(ways, rounds=rounds)
    )


def make_tables(num_rows: int, *, seed: int = 0) -> tuple[FrameTable, PredictionTable]:
    """Labels and predictions with logits and deviations, of videos of about equal length.

    A fifth of the rows has no label of a task. Frames count from 1 without a gap.
    """
    rng = np.random.default_rng(seed)
    length = -(-num_rows // min(VIDEOS, num_rows))
    number, place = np.divmod(np.arange(num_rows), length)
    names = [f"video{video:04d}" for video in range(VIDEOS)]
    video = [names[i] for i in number.tolist()]
    frame = place + 1
    va = np.clip(rng.normal(0.1, 0.4, (num_rows, 2)), -1, 1)
    au = (rng.random((num_rows, 12)) < 0.3).astype(np.float32)
    expression = rng.integers(0, 8, num_rows)
    logits = rng.normal(0, 1, (num_rows, 8))
    logits[np.arange(num_rows), expression] += 1.0
    predictions = {
        "valence": va[:, 0] + rng.normal(0, 0.3, num_rows),
        "arousal": va[:, 1] + rng.normal(0, 0.3, num_rows),
        "au_logits": 2.0 * au - 1.5 + rng.normal(0, 1.5, (num_rows, 12)),
        "expression_logits": logits,
        "valence_std": rng.uniform(0.2, 0.4, num_rows),
        "arousal_std": rng.uniform(0.2, 0.4, num_rows),
    }
    va[rng.random(num_rows) < 0.2] = np.nan
    au[rng.random(num_rows) < 0.2] = np.nan
    expression[rng.random(num_rows) < 0.2] = -1
    truth = FrameTable.from_columns(
        dataset="synthetic",
        video=video,
        frame=frame,
        image=[f"{name}/{i:05d}.jpg" for name, i in zip(video, frame.tolist(), strict=True)],
        root="/images",
        valence=va[:, 0],
        arousal=va[:, 1],
        expression=expression,
        au=au,
    )
    keys = {name: getattr(truth, name) for name in ("dataset", "video", "frame", "image")}
    return truth, PredictionTable(**keys, **predictions, metadata={})


def reference_score(
    truth: FrameTable, predictions: PredictionTable, rows: Sequence[int] | slice = slice(None)
) -> float:
    """P of some of the rows, which labels and predictions have in the same order."""
    labels, answers = truth.va[rows], np.clip(predictions.va[rows], -1, 1)
    valid = ~np.isnan(labels).any(axis=1)
    concordances = [concordance(labels[valid, i], answers[valid, i]) for i in range(2)]
    au = truth.au[rows]
    valid = ~np.isnan(au).any(axis=1)
    units = metrics.f1_score(
        au[valid], predictions.au_logits[rows][valid] > 0, average="macro", zero_division=0
    )
    expression = truth.expression[rows]
    valid = expression >= 0
    decided = predictions.expression_logits[rows][valid].argmax(axis=1)
    macro = metrics.f1_score(expression[valid], decided, average="macro", zero_division=0)
    return float(np.mean(concordances) + units + macro)


def concordance(x: np.ndarray, y: np.ndarray) -> float:
    """Lin's coefficient by its formula."""
    covariance = np.cov(x, y, bias=True)
    return 2 * covariance[0, 1] / (np.trace(covariance) + (x.mean() - y.mean()) ** 2)


def with_intervals(
    truth: FrameTable, predictions: PredictionTable, rounds: int
) -> comparison.Group:
    """The scores with intervals of resampled videos, and P of resampled frames."""
    rng = np.random.default_rng(0)

    def resampled() -> list[float]:
        num_rows = len(truth)
        draws = (rng.integers(0, num_rows, num_rows) for _ in range(_TIMED_RESAMPLES))
        return [reference_score(truth, predictions, draw) for draw in draws]

    loop = "scikit-learn in a loop, P alone"
    ways = {
        loop: resampled,
        "mtl_face, all scores": lambda: scoring.score(truth, predictions, num_resamples=RESAMPLES),
    }
    name = f"Scores with intervals, {len(truth):,} frames, {RESAMPLES} resamples"
    group = timed(name, ways, rounds)
    scaled = [seconds * RESAMPLES / _TIMED_RESAMPLES for seconds in group.times[loop]]
    return comparison.Group(group.name, loop, group.unit, {**group.times, loop: scaled})


def report_ways(
    truth: FrameTable, predictions: PredictionTable, folder: Path
) -> dict[str, Callable[[], object]]:
    """A page without pictures."""
    page = Report(
        title="synthetic",
        metrics=scoring.score(truth, predictions, num_resamples=RESAMPLES),
        predictions=predictions,
        truth=truth,
    )
    return {"mtl_face, without pictures": lambda: write_report(folder / "report.html", page)}


def file_ways(predictions: PredictionTable, folder: Path) -> dict[str, Callable[[], object]]:
    """Reading what `evaluate` writes."""
    parquet, text = folder / "predictions.parquet", folder / "predictions.csv"
    prediction_files.write(predictions, parquet)
    prediction_files.write(predictions, text)
    return {
        "pandas.read_csv": lambda: pd.read_csv(text),
        "mtl_face, CSV": lambda: prediction_files.read(text),
        "pandas.read_parquet": lambda: pd.read_parquet(parquet),
        "mtl_face, Parquet": lambda: prediction_files.read(parquet),
    }


def smoothing_ways(
    table: PredictionTable, kernel: smoothing.Kernel, window: float
) -> dict[str, Callable[[], object]]:
    """The table as a whole, and its 22 columns video by video or in rolling windows."""
    how = smoothing.Smoothing(kernel=kernel, windows=dict.fromkeys(("va", "au", "expr"), window))
    columns = np.column_stack([table.va, table.au_logits, table.expression_logits])
    starts = np.flatnonzero(table.video[1:] != table.video[:-1]) + 1

    def by_ndimage() -> list[np.ndarray]:
        parts = np.split(columns, starts)
        if kernel == "box":
            return [ndimage.uniform_filter1d(part, int(window), axis=0) for part in parts]
        return [ndimage.gaussian_filter1d(part, window, axis=0, truncate=8.0) for part in parts]

    def by_pandas() -> pd.DataFrame:
        rolling = (
            pd.DataFrame(columns)
            .groupby(table.video)
            .rolling(int(window), center=True, min_periods=1)
        )
        return rolling.mean()

    ways: dict[str, Callable[[], object]] = {"SciPy, video by video": by_ndimage}
    if kernel == "box":
        ways["pandas, rolling"] = by_pandas
    return {**ways, "mtl_face": lambda: smoothing.smooth(table, how)}


if __name__ == "__main__":
    main()
