"""`weights`: tell what a file of initial weights is, and the settings that it needs."""

import argparse
from pathlib import Path

from mtl_face.config import Config

HELP = "tell what a file of initial weights is, and the settings that it needs"
CONFIG = "none"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the flags."""
    parser.add_argument(
        "path", type=Path, metavar="PATH", help="a weights file, or the folder of an export"
    )
    parser.add_argument(
        "--channels",
        choices=("auto", "rgb", "bgr"),
        default="auto",
        help="channel order of its first convolution, if the file does not tell it",
    )


def run(config: Config | None, options: argparse.Namespace) -> int:
    """Runs the command; returns the exit status."""
    from mtl_face.run import weights

    return weights.run(config, options)
