"""`run.py evaluate`: chooses between scoring a file and evaluating a checkpoint or an export.

Only the latter need JAX and TensorFlow, so each is imported where it is chosen.
"""

import argparse
import dataclasses
from typing import TYPE_CHECKING

from mtl_face.errors import ConfigError

if TYPE_CHECKING:
    from mtl_face import config as config_lib

_REMEDY = (
    "give --predictions=FILE --truth=ANNOTATIONS to score a file, --config=configs/NAME.py "
    "--workdir=DIR to evaluate a trained run, or --params=EXPORT --output=DIR for an export"
)


def run(config: "config_lib.Config | None", options: argparse.Namespace) -> int:
    """Evaluates what the flags name.

    Args:
        config: the settings of the run, or None where a file is scored.
        options: `predictions` and `truth` with the flags of scoring, or `workdir`, or `params`.

    Returns:
        Exit status 0.

    Raises:
        ConfigError: the flags name none of them, or several, or do not go together.
    """
    if options.calibration is not None and config is not None:
        evaluation = dataclasses.replace(config.evaluation, calibration=str(options.calibration))
        config = dataclasses.replace(config, evaluation=evaluation)
    if options.predictions is not None or options.truth is not None:
        if options.workdir is not None or options.params is not None or config is not None:
            raise ConfigError(
                "--predictions and --truth score a file, --config with --workdir evaluates a run "
                "and --params an export",
                remedy=_REMEDY,
            )
        from mtl_face.run import score_file

        return score_file.run(config, options)
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
    if options.workdir is not None and options.params is None and options.output is not None:
        raise ConfigError(
            "--output goes with --predictions or --params: the results of a run lie in its "
            "WORKDIR/evaluation",
            remedy="leave it out, or " + _REMEDY,
        )
    if options.params is not None:
        if options.workdir is not None:
            raise ConfigError(
                "--params evaluates an export, --workdir a run's checkpoint", remedy=_REMEDY
            )
        assert config is not None  # that of the export, if no file was given
        from mtl_face.run import evaluate_params

        return evaluate_params.run(config, options)
    if config is None or options.workdir is None:
        missing = "--config" if config is None else "--workdir"
        raise ConfigError(f"evaluate was given no {missing}", remedy=_REMEDY)
    from mtl_face.run import evaluate_run

    return evaluate_run.run(config, options)
