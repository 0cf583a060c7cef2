"""What each option of `configs/frame_best.py` is worth on the embedded data set.

    python -m benchmarks.frame_options --output=runs/frame_options --document=docs/recipes.md
    python -m benchmarks.frame_options --output=runs/frame_options --seeds=1 --epochs=3

Trains the embedded network by AdamW, plain, with each option alone and with all together. A
finished run is not trained again, and a stopped one goes on where it was, so the same command takes
up an interrupted benchmark. A run of 6 epochs takes about two and a half minutes of two
quiet cores, the whole table 75. Differences are paired: the same seed, and the same resamples of
the validation set's videos. `--document` replaces what stands between the two marks of that file.
"""

import argparse
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from benchmarks.runs import difference, train, write_between
from benchmarks.uncertainty import ADAMW, CONFIG
from configs.frame_best import OPTIONS
from mtl_face import config as config_lib
from mtl_face.evaluation import bootstrap, prediction_files
from mtl_face.evaluation.joining import join
from mtl_face.run import datasets

PLAIN, ALL = "plain", "all"
KINDS: dict[str, dict[str, object]] = {
    PLAIN: {},
    **OPTIONS,
    ALL: {name: value for options in OPTIONS.values() for name, value in options.items()},
}
"""Settings by the name of what they try."""

SCORES = {"P": "p", "VA CCC": "va.score", "AU F1": "au.score", "EXPR F1": "expr.score"}
BEGIN = "<!-- table of benchmarks/frame_options.py -->"
END = "<!-- end of the table -->"


def main() -> None:
    """Trains what is missing, and writes the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--output", type=Path, required=True, help="folder of runs and table")
    parser.add_argument("--document", type=Path, help="file that takes the table between its marks")
    parser.add_argument("--seeds", type=int, default=3, help="seeds 0 to this, less one")
    parser.add_argument("--epochs", type=int, default=6)
    options = parser.parse_args()
    if options.document and BEGIN not in options.document.read_text():
        parser.error(f"{options.document} has no line {BEGIN}")
    runs: dict[str, list[Path]] = {kind: [] for kind in KINDS}
    for seed in range(options.seeds):
        for kind, settings in KINDS.items():
            folder = options.output / f"epochs{options.epochs}" / f"{kind}-seed{seed}"
            settings = {**ADAMW, "seed": seed, "optimizer.epochs": options.epochs, **settings}
            train(folder, CONFIG, settings)
            runs[kind].append(folder)
    text = table(runs, epochs=options.epochs)
    path = options.output / f"table_epochs{options.epochs}.md"
    path.write_text(text)
    print(f"{text}\n\ntable: {path}")
    if options.document:
        write_between(BEGIN, END, text, options.document)
        print(f"and in {options.document}")


def table(runs: Mapping[str, Sequence[Path]], *, epochs: int) -> str:
    """The table in Markdown, of folders of finished runs by kind, a seed each."""
    samples = {kind: [resampling(folder) for folder in folders] for kind, folders in runs.items()}
    seeds = len(runs[PLAIN])
    lines = [
        f"Embedded network, AdamW, {epochs} epochs, {seeds} seed(s): mean over the seeds (standard "
        "deviation over them), and the mean difference to `plain` with its 95 % interval over "
        "videos.",
        "",
        "| option | P | difference in P | " + " | ".join(list(SCORES)[1:]) + " |",
        "| --- " * (len(SCORES) + 2) + "|",
    ]
    for kind in KINDS:
        scores = {
            name: [sample.point[path] for sample in samples[kind]] for name, path in SCORES.items()
        }
        cells = [f"{np.mean(values):.3f} ({np.std(values):.3f})" for values in scores.values()]
        gain = "" if kind == PLAIN else difference(samples[kind], samples[PLAIN], SCORES["P"])
        lines.append(f"| {kind} | {cells[0]} | {gain} | ")
        lines[-1] += " | ".join(cells[1:]) + " |"
    return "\n".join(lines)


def resampling(folder: Path) -> bootstrap.Resampling:
    """Scores of a finished run on the validation set and on resamples of its videos."""
    config = config_lib.validate(json.loads((folder / "config.json").read_text()))
    truth = datasets.load_split(config.data, "validation", say=lambda line: None)
    predictions = prediction_files.read(folder / "evaluation" / "predictions.parquet")
    joined = join(truth, predictions)
    return bootstrap.resample(joined, num_resamples=bootstrap.NUM_RESAMPLES, seed=0)


if __name__ == "__main__":
    main()
