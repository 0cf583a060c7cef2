"""A network over time against smoothing, on dense videos many frames of which are hard to read.

    python -m benchmarks.temporal --output=runs/temporal --document=docs/temporal.md
    python -m benchmarks.temporal --output=runs/temporal --seeds=1 --kinds=gru,convolution,attention

For each seed it trains a network of frames, and on its task tokens a network over time of each
kind. Both are scored on the validation set. The predictions of the frames are smoothed, each task
by a window and a kernel that are chosen on other videos: the videos are dealt into folds, and each
fold is smoothed as scores best on the others. Beside it stands the best smoothing on these very
rows, which flatters. The networks over time are not smoothed. Differences are means over the seeds,
with intervals of paired resamples of the videos.

Runs are folders below --output; finished ones are not trained again and stopped ones go on, so the
same command takes up an interrupted benchmark. Three seeds of `gru` take about 40 minutes of
processor time, rendering included. `--document` replaces what stands between the two
marks of that file.
"""

import argparse
import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from benchmarks.frame_options import SCORES
from benchmarks.runs import difference, train, write_between
from benchmarks.uncertainty import ADAMW, CONFIG
from mtl_face.evaluation import bootstrap, prediction_files, scoring
from mtl_face.evaluation.calibration import group_names
from mtl_face.evaluation.calibration_fit import make_folds
from mtl_face.evaluation.joining import join, match
from mtl_face.evaluation.measures import concordance
from mtl_face.evaluation.smoothing import Smoothing, smooth
from mtl_face.run import datasets
from mtl_face.run import workdir as workdirs
from mtl_face.tables import FrameTable, PredictionTable
from mtl_face.tasks import TASKS

KINDS = ("gru", "convolution", "attention")
WINDOWS = (0, 2, 3, 5, 8, 12, 16, 24, 32, 48, 64, 96, 128)
FOLDS = 5

FRAMES, IN_SAMPLE, SMOOTHED = "frames", "frames, smoothed in sample", "frames, smoothed"
"""Names of what the networks over time are compared with."""

ROWS = {
    "valence, CCC": "va.valence",
    "arousal, CCC": "va.arousal",
    "action units, mean F1": SCORES["AU F1"],
    "expressions, macro F1": SCORES["EXPR F1"],
    "P": SCORES["P"],
}
"""Paths of scores, by what the table calls them."""

BEGIN = "<!-- table of benchmarks/temporal.py -->"
END = "<!-- end of the table -->"

_FIELDS = {
    "va": ("valence", "arousal"),
    "au": ("au_logits",),
    "expr": ("expression_logits",),
}


def smoothed(truth: FrameTable, table: PredictionTable, *, folds: int) -> PredictionTable:
    """The table with the videos of each fold smoothed as scores best on those of the others.

    Each task has a window and a kernel of its own. With one fold they are the best on these very
    labels.
    """
    candidates = [
        smooth(table, Smoothing(kernel=kernel, windows=dict.fromkeys(TASKS, window)))
        for kernel in ("box", "gaussian")
        for window in WINDOWS
    ]
    names = group_names(truth.dataset, truth.video)
    group_N = np.unique(names, return_inverse=True)[1].astype(np.int64)
    index_N, rows = match(truth, table), np.arange(len(truth))
    chosen = {name: getattr(table, name).copy() for names in _FIELDS.values() for name in names}
    for test in make_folds(group_N, rows, folds):
        fitted = truth if folds == 1 else truth.take(np.setdiff1d(rows, test))
        scores = [scoring.score(fitted, one) for one in candidates]
        for task, fields in _FIELDS.items():
            best = int(np.argmax([score[task]["score"] or 0.0 for score in scores]))
            for name in fields:
                chosen[name][index_N[test]] = getattr(candidates[best], name)[index_N[test]]
    return dataclasses.replace(table, **chosen)


def by_hardness(
    folder: Path, truth: FrameTable, tables: Mapping[str, PredictionTable]
) -> dict[str, dict[str, float]]:
    """Mean CCC with the true valence and arousal, on hard and on clear frames, by table."""
    lines = (folder / "validation_set_truth.txt").read_text().splitlines()[1:]
    hard = (folder / "validation_set_hard.txt").read_text().splitlines()[1:]
    value = {line.split(",")[0]: [float(x) for x in line.split(",")[1:3]] for line in lines}
    strength = {line.split(",")[0]: float(line.split(",")[2]) for line in hard}
    names = [Path(path).parent.name + "/" + Path(path).name for path in truth.image]
    va_N2 = np.array([value[name] for name in names])
    hard_N = np.array([strength[name] for name in names]) > 0.5
    found = {}
    for name, table in tables.items():
        answer_N2 = np.clip(table.va[match(truth, table)], -1, 1)
        found[name] = {
            word: float(np.mean([concordance(va_N2[rows, c], answer_N2[rows, c]) for c in (0, 1)]))
            for word, rows in (("hard", hard_N), ("clear", ~hard_N))
        }
    return found


def read_tables(
    truth: FrameTable, frames: Path, over_time: Mapping[str, Path]
) -> dict[str, PredictionTable]:
    """Predictions of the validation set by name: of a seed's network of frames, and by kind."""
    name = Path(workdirs.EVALUATION) / "predictions.parquet"
    own = prediction_files.read(frames / name)
    return {
        FRAMES: own,
        IN_SAMPLE: smoothed(truth, own, folds=1),
        SMOOTHED: smoothed(truth, own, folds=FOLDS),
        **{kind: prediction_files.read(folder / name) for kind, folder in over_time.items()},
    }


def report(
    root: Path, truth: FrameTable, seeds: Sequence[Mapping[str, PredictionTable]], *, epochs: int
) -> str:
    """The tables in Markdown, of what `read_tables` gives of each seed."""
    samples: dict[str, list[bootstrap.Resampling]] = {name: [] for name in seeds[0]}
    for tables in seeds:
        for name, table in tables.items():
            joined = join(truth, table)
            samples[name].append(
                bootstrap.resample(joined, num_resamples=bootstrap.NUM_RESAMPLES, seed=0)
            )
    kinds = [name for name in samples if name in KINDS]
    head = [*samples, *(f"{kind} less {SMOOTHED}" for kind in kinds)]
    videos = len(np.unique(truth.video))
    lines = [
        f"{videos} validation videos of {len(truth):,} frames, networks of frames of {epochs} "
        f"epoch(s), {len(seeds)} seed(s): means over the seeds, differences with 95 % intervals "
        f"over videos. `{SMOOTHED}`: chosen on other videos, {FOLDS} folds; `in sample`: the best "
        "on these very rows.",
        "",
        "| | " + " | ".join(head) + " |",
        "|---" * (len(head) + 1) + "|",
    ]
    for name, path in ROWS.items():
        scores = [f"{np.mean([one.point[path] for one in own]):.3f}" for own in samples.values()]
        gains = [difference(samples[kind], samples[SMOOTHED], path) for kind in kinds]
        lines.append(f"| {name} | " + " | ".join([*scores, *gains]) + " |")
    found = [by_hardness(root, truth, tables) for tables in seeds]
    lines += [
        "",
        "Mean CCC with the true valence and arousal, which no rater gave:",
        "",
        "| frames | " + " | ".join(samples) + " |",
        "|---" * (len(samples) + 1) + "|",
    ]
    for word in ("hard", "clear"):
        cells = [f"{np.mean([one[name][word] for one in found]):.3f}" for name in samples]
        lines.append(f"| {word} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main() -> None:
    """Trains what is missing, and writes the tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--output", type=Path, required=True, help="folder of runs and table")
    parser.add_argument("--document", type=Path, help="file that takes the table between its marks")
    parser.add_argument("--seeds", type=int, default=3, help="seeds 0 to this, less one")
    parser.add_argument("--kinds", default="gru", help="of " + ", ".join(KINDS))
    parser.add_argument("--videos", type=int, default=100)
    parser.add_argument("--frames", type=int, default=240, help="of a video")
    parser.add_argument("--frame_epochs", type=int, default=2, help="of the networks of frames")
    parser.add_argument("--epochs", type=int, default=20, help="of the networks over time")
    options = parser.parse_args()
    kinds = options.kinds.split(",")
    if unknown := set(kinds) - set(KINDS):
        parser.error(f"unknown kinds {', '.join(sorted(unknown))}")
    if options.document and BEGIN not in options.document.read_text():
        parser.error(f"{options.document} has no line {BEGIN}")
    size = f"{options.videos}x{options.frames}"
    folder = options.output / f"{size}-epochs{options.frame_epochs}-{options.epochs}"
    data = {
        "data.rendered_faces.density": "dense",
        "data.rendered_faces.num_videos": options.videos,
        "data.rendered_faces.frames_per_video": options.frames,
    }
    runs = len(kinds) + 1  # of a seed
    found: list[dict[str, PredictionTable]] = []
    for seed in range(options.seeds):
        print(
            f"seed {seed}: runs {seed * runs + 1} to {(seed + 1) * runs} of {options.seeds * runs}"
        )
        frames = folder / f"frames-seed{seed}"
        settings = {**data, **ADAMW, "seed": seed, "optimizer.epochs": options.frame_epochs}
        train(frames, CONFIG, {**settings, "data.source": "files"})
        over_time = {kind: folder / f"{kind}-seed{seed}" for kind in kinds}
        for kind, workdir in over_time.items():
            read = {"temporal.kind": kind, "temporal.frame_model": frames.absolute()}
            settings = {**data, **read, "seed": seed, "optimizer.epochs": options.epochs}
            train(workdir, "configs/temporal.py", settings)
        config = workdirs.own_config(frames)
        root = datasets.ensure_data(config.data, print)
        truth = datasets.load_split(config.data, datasets.VALIDATION, lambda line: None)
        found.append(read_tables(truth, frames, over_time))
        text = report(root, truth, found, epochs=options.frame_epochs)
        print(f"\n{text}\n", flush=True)
    path = folder / "table.md"
    path.write_text(text)
    print(f"table: {path}")
    if options.document:
        write_between(BEGIN, END, text, options.document)
        print(f"and in {options.document}")


if __name__ == "__main__":
    main()
