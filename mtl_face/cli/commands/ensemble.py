"""`ensemble`: average the predictions of several models, and keep how far they differ."""

import argparse

from mtl_face.cli import flags
from mtl_face.config import Config
from mtl_face.errors import ConfigError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    flags.path(parser, "predictions", "FILE", "a .parquet or .csv of predictions", nargs="*")
    flags.path(
        parser,
        "--workdirs",
        "DIR",
        "folders of evaluated runs, whose predictions are members too",
        nargs="+",
        default=[],
    )
    flags.table_output(parser)
    parser.add_argument(
        "--on",
        choices=("probabilities", "logits", "values"),
        default="probabilities",
        help="average probabilities (default), or logits (values is the same); valence and "
        "arousal are averaged as they are",
    )
    parser.add_argument(
        "--missing",
        choices=("error", "available"),
        default="error",
        help="a row that some members lack: an error (default), or the mean of those that have it",
    )
    words = "0; the paper smooths each member by 30 before the mean is taken"
    flags.smoothing(parser, "--smooth_on", default="0", default_meaning=words)
    flags.path(
        parser,
        "--calibration",
        "FILE.json",
        "of run.py calibrate, fitted on such a mean: applied to the mean, with its smoothing",
    )


def run(config: Config | None, options: argparse.Namespace) -> int:
    """`evaluation.smoothing` of a config takes the place of the flags of smoothing."""
    from mtl_face.run import postprocess

    asked = flags.smoothing_asked(options)
    smoothing = None if asked.changes_nothing else asked
    if config is not None and smoothing is not None:
        raise ConfigError(
            "both --window and --config say how to smooth",
            remedy="leave out --window, or change --config.evaluation.smoothing",
        )
    if config is not None:
        smoothing = postprocess.smoothing_of_settings(config.evaluation.smoothing)
    mean = postprocess.average_files(
        [*options.predictions, *map(postprocess.predictions_of_run, options.workdirs)],
        options.output,
        on=options.on,
        missing=options.missing,
        smoothing=smoothing,
        calibration=options.calibration,
        say=print,
    )
    about = mean.metadata["ensemble"]
    if incomplete := about["num_incomplete_rows"]:
        print(f"{incomplete} of {len(mean)} rows are the mean of the members that have them")
    if smoothing is not None:
        print(f"each member was smoothed first: {smoothing}")
    spreads = [f"{task} {spread:.3f}" for task, spread in postprocess.spreads(mean).items()]
    print(
        f"mean of {len(about['members'])} members on {options.on}; the members' standard "
        f"deviations: {', '.join(spreads) or 'unknown'}"
    )
    print(f"results: {options.output}")
    print(f"next: {_next(options)}")
    return 0


def _next(options: argparse.Namespace) -> str:
    predictions = f"--predictions={options.output}"
    if options.calibration is not None:
        return f"python run.py submit {predictions} --test_list=LIST --edition=NAME --output=FILE"
    return (
        f"python run.py evaluate {predictions} --truth=ANNOTATIONS scores it, and python run.py "
        f"calibrate {predictions} --truth=ANNOTATIONS --output=FILE.json fits a calibration"
    )
