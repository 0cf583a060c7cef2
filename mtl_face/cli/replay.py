"""`replay`: take a bad step of a run again, and tell where its first bad number appears."""

import argparse
from pathlib import Path

from mtl_face.cli import flags
from mtl_face.config import Config

HELP = "take a bad step of a run again, and tell where its first bad number appears"
CONFIG = "required"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the flags."""
    flags.workdir(parser)
    parser.add_argument(
        "--dump",
        required=True,
        type=Path,
        metavar="FILE",
        help="the bad step: WORKDIR/replay/STEP.npz",
    )


def run(config: Config, options: argparse.Namespace) -> int:
    """Runs the command; returns the exit status."""
    from mtl_face.run import replay

    return replay.run(config, options)
