"""`plan`: compiles the train step without data or weights, and tells what it takes."""

import argparse
from pathlib import Path

from mtl_face.cli import flags
from mtl_face.config import Config
from mtl_face.planner import UNREAD

HELP = (
    "compile the train step for TPUs or for this machine, without data or weights, and "
    "tell its memory, arithmetic, traffic and shortest time"
)
CONFIG = "required"
PRESETS = (f"data.shards={UNREAD}", "data.validate_each=false")
"""Changes made to the settings before the user's."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the flags."""
    parser.add_argument(
        "--topology",
        required=True,
        metavar="KIND:SHAPE",
        help="slice of TPUs, as v5e:4x4 or v5p:2x2x4; local: the devices of this machine",
    )
    parser.add_argument(
        "--batch",
        type=flags.positive_number,
        metavar="N",
        help="images a step, over all chips (default: optimizer.batch_size)",
    )
    parser.add_argument(
        "--effort",
        choices=("full", "low"),
        default="full",
        help="of the compiler: full, as in training (default), or low, in half the time or less",
    )
    parser.add_argument(
        "--search",
        type=flags.natural_number,
        default=3,
        metavar="N",
        help="compiles to spend on the largest batch that fits (default: 3; 0: none)",
    )
    parser.add_argument(
        "--input_rate",
        metavar="RATE|FILE",
        help="images/s that one host's input delivers, or what benchmarks/input.py --output wrote",
    )
    parser.add_argument("--output", type=Path, metavar="FILE.json", help="also write the figures")


def run(config: Config, options: argparse.Namespace) -> int:
    """Runs the command; returns the exit status."""
    from mtl_face.run import plan

    return plan.run(config, options)
