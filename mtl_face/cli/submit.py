"""`submit`: write a challenge submission from a file of predictions, and validate it."""

import argparse
from pathlib import Path

from mtl_face.cli import flags

HELP = "write a challenge submission from a file of predictions, and validate it"
CONFIG = "none"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the flags."""
    parser.add_argument(
        "--predictions", required=True, type=Path, metavar="FILE", help="our .parquet or .csv"
    )
    flags.challenge(parser)
    parser.add_argument(
        "--output",
        required=True,
        type=Path,
        metavar="FILE",
        help="the submission to write; a folder for abaw3_va, abaw3_expr and abaw3_au",
    )
    parser.add_argument(
        "--fill",
        choices=("none", "nearest"),
        default="none",
        help="a row of the list without a prediction: an error (none), or the prediction of the "
        "nearest frame of its video, each counted (default: none)",
    )


def run(config: None, options: argparse.Namespace) -> int:
    """Runs the command; returns the exit status."""
    from mtl_face.run import submit

    return submit.run(config, options)
