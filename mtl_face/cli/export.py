"""`export`: write the network's parameters alone, for use elsewhere."""

import argparse
from pathlib import Path

from mtl_face.cli import flags
from mtl_face.config import Config

HELP = "write the network's parameters alone, for use elsewhere"
CONFIG = "required"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the flags."""
    flags.workdir(parser)
    parser.add_argument(
        "--output",
        type=Path,
        metavar="DIR",
        help="folder for the parameters (default: WORKDIR/export, or WORKDIR/export_safetensors)",
    )
    parser.add_argument(
        "--format",
        choices=("orbax", "safetensors"),
        default="orbax",
        help="orbax: a folder of arrays, for JAX; safetensors: one file that numpy can read",
    )


def run(config: Config, options: argparse.Namespace) -> int:
    """Runs the command; returns the exit status."""
    from mtl_face.run import export

    return export.run(config, options)
