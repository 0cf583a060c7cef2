"""`smooth`: smooth a file of predictions over time, video by video."""

import argparse

from mtl_face.cli import flags
from mtl_face.config import Config

HELP = "smooth a file of predictions over time, video by video"
CONFIG = "none"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the flags."""
    flags.predictions(parser, "a .parquet or .csv of predictions", required=True)
    flags.smoothing(parser, default="30", default_meaning="30, the paper's")
    parser.add_argument(
        "--on",
        choices=("logits", "probabilities", "values"),
        default="logits",
        help="average logits (default, as the paper; values is the same), or probabilities; "
        "valence and arousal are averaged as they are",
    )
    flags.table_output(parser)


def run(config: Config | None, options: argparse.Namespace) -> int:
    """Runs the command; returns the exit status."""
    from mtl_face.run import postprocess

    smoothing = flags.smoothing_asked(options, on=options.on)
    num_rows = postprocess.smooth_file(options.predictions, smoothing, options.output)
    measure = "standard deviations" if smoothing.kernel == "gaussian" else "windows"
    windows = ", ".join(f"{task} {window:g}" for task, window in smoothing.windows.items())
    print(f"smoothed {num_rows} rows: {smoothing.kernel}, {measure} in {smoothing.unit}: {windows}")
    print(f"results: {options.output}")
    print(f"next: run.py evaluate --predictions={options.output} --truth=ANNOTATIONS scores them")
    return 0
