"""A network over time against smoothing, on dense videos many frames of which are hard to read.

    python -m benchmarks.temporal --output=runs/temporal
    python -m benchmarks.temporal --output=runs/temporal --seeds=1 --videos=100 --frames=240

For each seed it trains a network of frames, and on its task tokens a network over time of each
kind. Both are scored on the validation set. The network of frames gets the smoothing that is best
on these very rows, chosen for each task from all windows and both kernels: that flatters smoothing.
The networks over time are not smoothed. Differences are of paired resamples of the videos.

Runs are folders below --output; finished ones are not trained again and stopped ones go on.
"""

import argparse
import dataclasses
from pathlib import Path

import numpy as np

from benchmarks.runs import train
from mtl_face import files
from mtl_face.evaluation import comparison, prediction_files, scoring
from mtl_face.evaluation.joining import join_both, match
from mtl_face.evaluation.measures import concordance
from mtl_face.evaluation.smoothing import Smoothing, smooth
from mtl_face.run import datasets
from mtl_face.run import workdir as workdirs
from mtl_face.tables import FrameTable, PredictionTable
from mtl_face.tasks import TASKS

KINDS = ("gru", "convolution", "attention")
WINDOWS = (0, 2, 3, 5, 8, 12, 16, 24, 32, 48, 64, 96, 128)


def best_smoothing(truth: FrameTable, table: PredictionTable) -> PredictionTable:
    """The table, each task smoothed as scores best on these labels."""
    chosen = table
    for task in TASKS:
        candidates = [
            smooth(table, Smoothing(kernel=kernel, windows={task: window}))
            for kernel in ("box", "gaussian")
            for window in WINDOWS
        ]
        best = max(candidates, key=lambda one: scoring.score(truth, one)[task]["score"] or 0.0)
        fields = {
            "va": ("valence", "arousal"),
            "au": ("au_logits",),
            "expr": ("expression_logits",),
        }
        changes = {name: getattr(best, name) for name in fields[task]}
        chosen = dataclasses.replace(chosen, **changes)
    return chosen


def by_hardness(
    folder: Path, truth: FrameTable, tables: dict[str, PredictionTable]
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


def compare(frames: Path, over_time: Path) -> dict[str, object]:
    """What a network over time gains over the smoothed one of frames, and both on hard frames."""
    config = workdirs.own_config(over_time)
    root = datasets.ensure_data(config.data, print)
    truth = datasets.load_split(config.data, datasets.VALIDATION, lambda line: None)
    name = Path(workdirs.EVALUATION) / "predictions.parquet"
    tables = {"frames": prediction_files.read(frames / name)}
    tables["smoothed"] = best_smoothing(truth, tables["frames"])
    tables["over time"] = prediction_files.read(over_time / name)
    joined = join_both(truth, tables["smoothed"], tables["over time"])
    result = comparison.compare(*joined)
    result["files"] = {"first": f"{frames}, smoothed", "second": str(over_time)}
    result["frames_p"] = scoring.score(truth, tables["frames"])["p"]
    result["true_ccc"] = by_hardness(root, truth, tables)
    return result


def main() -> None:
    """Trains what is missing, and prints the comparisons."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--output", type=Path, required=True, help="folder of runs and results")
    parser.add_argument("--seeds", type=int, default=3, help="seeds 0 to this, less one")
    parser.add_argument("--kinds", default="gru", help="of " + ", ".join(KINDS))
    parser.add_argument("--videos", type=int, default=160)
    parser.add_argument("--frames", type=int, default=300, help="of a video")
    parser.add_argument("--frame_epochs", type=int, default=2, help="of the networks of frames")
    options = parser.parse_args()
    kinds = options.kinds.split(",")
    if unknown := set(kinds) - set(KINDS):
        parser.error(f"unknown kinds {', '.join(sorted(unknown))}")
    data = {
        "data.rendered_faces.density": "dense",
        "data.rendered_faces.num_videos": options.videos,
        "data.rendered_faces.frames_per_video": options.frames,
    }
    for seed in range(options.seeds):
        frames = options.output / f"frames-seed{seed}"
        settings = {**data, "seed": seed, "optimizer.epochs": options.frame_epochs}
        train(frames, "configs/rendered_faces.py", {**settings, "data.source": "files"})
        for kind in kinds:
            over_time = options.output / f"{kind}-seed{seed}"
            read = {"temporal.kind": kind, "temporal.frame_model": frames.absolute()}
            train(over_time, "configs/temporal.py", {**data, **read, "seed": seed})
            result = compare(frames, over_time)
            print(f"\n{kind}, seed {seed}: P of the frames, not smoothed: {result['frames_p']:.4f}")
            print("\n".join(comparison.summary(result)))
            for name, values in result["true_ccc"].items():
                numbers = ", ".join(f"{word} {value:.3f}" for word, value in values.items())
                print(f"CCC with the true valence and arousal, {name}: {numbers}")
            files.write_json(options.output / f"{kind}-seed{seed}.json", result)


if __name__ == "__main__":
    main()
