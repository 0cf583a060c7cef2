"""`predict`: predict a list of images without labels, as a challenge's test set."""

import argparse
from pathlib import Path

from mtl_face.cli import flags
from mtl_face.config import Config

HELP = "predict a list of images without labels, as a challenge's test set"
CONFIG = "optional"
own_settings = flags.settings_of_weights


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the flags."""
    parser.add_argument("--workdir", type=Path, metavar="DIR", help="folder of a trained run")
    parser.add_argument(
        "--params", type=Path, metavar="EXPORT", help="instead of a run: what `export` wrote"
    )
    parser.add_argument(
        "--test_list",
        required=True,
        type=Path,
        metavar="FILE",
        help="the images, as <video>/<frame>.jpg a line, or lines of video,frames",
    )
    parser.add_argument(
        "--images",
        type=Path,
        metavar="FOLDER",
        help="folder that the list's paths start from (default: the data set's image folder)",
    )
    parser.add_argument(
        "--missing_images",
        choices=("error", "skip"),
        default="error",
        help="an image of the list that is absent: an error (default), or left out and counted",
    )
    parser.add_argument(
        "--calibration", type=Path, metavar="FILE.json", help="of run.py calibrate: applied"
    )
    flags.table_output(parser)


def run(config: Config | None, options: argparse.Namespace) -> int:
    """Runs the command; returns the exit status."""
    from mtl_face.run import predict

    return predict.run(config, options)
