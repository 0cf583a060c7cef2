"""`evaluate`: evaluates a trained run again, or scores a file of predictions."""

import argparse
from pathlib import Path

from mtl_face.cli import flags
from mtl_face.config import Config

HELP = (
    "evaluate a trained run again (metrics.json, predictions, report.html), or score a "
    "file of predictions"
)
CONFIG = "optional"
own_settings = flags.settings_of_export


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the flags."""
    parser.add_argument("--workdir", type=Path, metavar="DIR", help="folder of the run")
    parser.add_argument(
        "--predictions",
        type=Path,
        metavar="FILE",
        help="instead of a run: score this file (our .parquet or .csv, or a submission)",
    )
    parser.add_argument(
        "--params",
        type=Path,
        metavar="EXPORT",
        help="instead of a run: evaluate what `export` wrote, with its own settings (changed by "
        "--config.data.root=... and the like) or those of --config; --output is then a folder",
    )
    parser.add_argument(
        "--calibration",
        type=Path,
        metavar="FILE.json",
        help="of run.py calibrate: applied before the score, as --config.evaluation.calibration",
    )
    parser.add_argument(
        "--report",
        type=Path,
        metavar="FILE.html",
        help="with --predictions: also write a report (a run or an export always has one)",
    )
    parser.add_argument(
        "--images",
        type=Path,
        metavar="FOLDER",
        help="of --report: where the images of the labels lie, for its pictures (default: none)",
    )
    flags.scoring(parser, required=False)


def run(config: Config | None, options: argparse.Namespace) -> int:
    """Runs the command; returns the exit status."""
    from mtl_face.run import evaluate

    return evaluate.run(config, options)
