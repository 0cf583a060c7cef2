"""`calibrate`: fits temperatures, thresholds, biases and smoothing on validation predictions."""

import argparse
from pathlib import Path

from mtl_face.cli import flags
from mtl_face.config import Config

HELP = (
    "fit temperatures, thresholds, biases and smoothing on validation predictions, cross- "
    "fitted by video"
)
CONFIG = "optional"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the flags."""
    parser.add_argument(
        "--predictions", type=Path, metavar="FILE", help="of the validation set: our .parquet"
    )
    parser.add_argument(
        "--truth", type=Path, metavar="FILE", help="labels: a multi-task annotation file"
    )
    parser.add_argument(
        "--workdir",
        type=Path,
        metavar="DIR",
        help="instead of both: folder of an evaluated run, with the --config that names its data",
    )
    parser.add_argument(
        "--output", required=True, type=Path, metavar="FILE.json", help="the calibration to write"
    )
    parser.add_argument(
        "--windows",
        default="0,5,10,20,30,60,120,240",
        metavar="S,S,...",
        help="smoothing windows to choose from for each task, as in run.py smooth; 0: none "
        "(default: 0,5,10,20,30,60,120,240)",
    )
    flags.kernel(parser)
    parser.add_argument(
        "--on",
        choices=("logits", "probabilities", "values"),
        default="logits",
        help="what is smoothed (default: logits)",
    )
    parser.add_argument(
        "--folds",
        type=int,
        choices=range(2, 21),
        default=5,
        metavar="K",
        help="folds of the cross-fitting, by video, 2 to 20 (default: 5)",
    )
    parser.add_argument(
        "--keep_all",
        action="store_true",
        help="keep what fits best in sample, even where its cross-fitted gain is negative",
    )


def run(config: Config | None, options: argparse.Namespace) -> int:
    """Runs the command; returns the exit status."""
    from mtl_face.run import calibrate

    return calibrate.run(config, options)
