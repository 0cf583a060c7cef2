"""`smooth`: smooth a file of predictions over time, video by video."""

import argparse
from pathlib import Path

from mtl_face.cli import flags
from mtl_face.config import Config

HELP = "smooth a file of predictions over time, video by video"
CONFIG = "none"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the flags."""
    parser.add_argument(
        "--predictions", required=True, type=Path, metavar="FILE", help="our .parquet or .csv"
    )
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
    from mtl_face.run import smooth

    return smooth.run(config, options)
