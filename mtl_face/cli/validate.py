"""`validate`: check a finished submission against the test list: every deviation, by line."""

import argparse
from pathlib import Path

from mtl_face.cli import flags

HELP = "check a finished submission against the test list: every deviation, by line"
CONFIG = "none"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the flags."""
    parser.add_argument(
        "--submission", required=True, type=Path, metavar="FILE", help="file or folder to check"
    )
    flags.challenge(parser)


def run(config: None, options: argparse.Namespace) -> int:
    """Runs the command; returns the exit status."""
    from mtl_face.run import validate

    return validate.run(config, options)
