"""`compare`: whether two runs or files of predictions differ by more than luck."""

import argparse
from pathlib import Path

from mtl_face.cli import flags
from mtl_face.config import Config

HELP = "whether two runs or files of predictions differ by more than luck"
CONFIG = "none"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the flags."""
    for name, letter in (("first", "A"), ("second", "B")):
        parser.add_argument(
            name,
            type=Path,
            metavar=letter,
            help="folder of an evaluated run, our .parquet or .csv, or a submission",
        )
    flags.scoring(parser, required=True)


def run(config: Config | None, options: argparse.Namespace) -> int:
    """Runs the command; returns the exit status."""
    from mtl_face.run import compare

    return compare.run(config, options)
