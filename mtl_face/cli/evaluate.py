"""`evaluate`: evaluates a trained run again, or scores a file of predictions."""

import argparse
from pathlib import Path

from mtl_face.cli import flags
from mtl_face.config import Config
from mtl_face.errors import ConfigError

HELP = (
    "evaluate a trained run again (metrics.json, predictions, report.html), or score a "
    "file of predictions"
)
CONFIG = "optional"
_REMEDY = (
    "give --model=RUN to evaluate a trained run, --model=EXPORT --output=DIR for an export, or "
    "--predictions=FILE --truth=ANNOTATIONS to score a file"
)
own_settings = flags.settings_of_model


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the flags."""
    flags.model(parser)
    parser.add_argument(
        "--predictions",
        type=Path,
        metavar="FILE",
        help="instead of a run: score this file (our .parquet or .csv, or a submission)",
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
    """Evaluates what the flags name; returns 0."""
    if options.predictions is not None or options.truth is not None:
        if options.model is not None or config is not None:
            raise ConfigError(
                "--predictions and --truth score a file, --model evaluates a run or an export",
                remedy=_REMEDY,
            )
        from mtl_face.run import score_file

        return score_file.run(config, options)
    if options.model is None:
        raise ConfigError("evaluate was given nothing to evaluate", remedy=_REMEDY)
    if options.report is not None or options.images is not None:
        raise ConfigError(
            "--report and --images go with --predictions: a run or an export always gets its "
            "report.html beside its metrics.json",
            remedy="leave them out, or " + _REMEDY,
        )
    if options.lenient or options.dataset is not None:
        raise ConfigError(
            "--lenient and --dataset go with --predictions", remedy="leave them out, or " + _REMEDY
        )
    from mtl_face.run import models
    from mtl_face.run.evaluate import evaluate

    if not models.is_run(options.model):
        models.own_settings(options.model)  # what is no export has no need of a folder
        if options.output is None:
            raise ConfigError(
                "an export needs an --output", remedy="give --output=DIR, a folder for the results"
            )
    assert config is not None  # the model's own, if no file was given
    config = flags.with_calibration(config, options.calibration)
    evaluate(options.model, config, output=options.output)
    print(f"next: python run.py export --model={options.model} writes the parameters alone")
    return 0
