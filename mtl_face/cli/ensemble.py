"""`ensemble`: average the predictions of several models, and keep how far they differ."""

import argparse
from pathlib import Path

from mtl_face.cli import flags
from mtl_face.config import Config

HELP = "average the predictions of several models, and keep how far they differ"
CONFIG = "optional"
READS_DATA = False


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the flags."""
    parser.add_argument(
        "predictions", nargs="*", type=Path, metavar="FILE", help="our .parquet or .csv"
    )
    parser.add_argument(
        "--workdirs",
        nargs="+",
        default=[],
        type=Path,
        metavar="DIR",
        help="folders of evaluated runs, whose predictions are members too",
    )
    flags.table_output(parser)
    parser.add_argument(
        "--on",
        choices=("probabilities", "logits", "values"),
        default="probabilities",
        help="average probabilities (default), or logits (values is the same); valence and "
        "arousal are averaged as they are",
    )
    parser.add_argument(
        "--missing",
        choices=("error", "available"),
        default="error",
        help="a row that some members lack: an error (default), or the mean of those that have it",
    )
    flags.smoothing(parser, default="0", default_meaning="0; the paper smooths each member by 30")
    parser.add_argument(
        "--smooth_on",
        choices=("logits", "probabilities", "values"),
        default="logits",
        help="what is smoothed in each member before the mean is taken (default: logits)",
    )


def run(config: Config | None, options: argparse.Namespace) -> int:
    """Runs the command; returns the exit status."""
    from mtl_face.run import ensemble

    return ensemble.run(config, options)
