"""`evaluate`: evaluate a trained run again, or score a file of predictions.

A run or an export gets metrics.json, its predictions and report.html.
"""

import argparse

from mtl_face.cli import flags
from mtl_face.config import Config
from mtl_face.errors import ConfigError

_REMEDY = (
    "give --model=RUN to evaluate a trained run, --model=EXPORT --output=DIR for an export, or "
    "--predictions=FILE --truth=ANNOTATIONS to score a file"
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    flags.model(parser)
    meaning = "instead of a run: score this file (.parquet, .csv or a submission)"
    flags.path(parser, "--predictions", "FILE", meaning)
    flags.calibration(parser)
    parser.add_argument(
        "--split",
        choices=("validation", "train"),
        help="with --model: the rows to score (default: validation)",
    )
    flags.path(
        parser,
        "--data",
        "PATH|NAME",
        "with --model: score another data set: its folder, a file of annotations or a manifest, or "
        "the name of one of the run's mixture",
    )
    flags.path(
        parser,
        "--against",
        "MODEL",
        "with --model: another model to score on the same rows, as the one that an ONNX file of "
        "less precision was made of; the difference of the scores is printed",
    )
    flags.path(
        parser,
        "--report",
        "FILE.html",
        "with --predictions: also write a report (a run or an export always has one)",
        type=flags.new_file,
    )
    flags.path(
        parser,
        "--images",
        "FOLDER",
        "of --report: where the images of the labels lie, for its pictures (default: none)",
    )
    flags.scoring(parser, required=False)


def run(config: Config | None, options: argparse.Namespace) -> int:
    if options.predictions is not None or options.truth is not None:
        if options.model is not None or config is not None:
            raise ConfigError(
                "--predictions and --truth score a file, --model evaluates a run or an export",
                remedy=_REMEDY,
            )
        if (options.split, options.data, options.against) != (None, None, None):
            raise ConfigError(
                "--split, --data and --against go with --model; --truth names the labels of a file",
                remedy=_REMEDY,
            )
        return _score(options)
    if options.model is None:
        raise ConfigError("evaluate was given nothing to evaluate", remedy=_REMEDY)
    if options.lenient or {options.report, options.images, options.dataset} != {None}:
        raise ConfigError(
            "--report, --images, --lenient and --dataset go with --predictions (a run or an export "
            "always gets its report.html beside its metrics.json)",
            remedy="leave them out, or " + _REMEDY,
        )
    from mtl_face.run import models
    from mtl_face.run import workdir as workdirs
    from mtl_face.run.evaluate import compare, evaluate

    is_run = models.is_run(options.model)
    if not is_run and options.output is None:
        workdirs.own_config(options.model)  # no export at all is said first
        raise ConfigError(
            "an export needs an --output", remedy="give --output=DIR, a folder for the results"
        )
    assert config is not None  # the model's own, if no file was given
    config = flags.with_calibration(config, options.calibration)
    split = options.split or "validation"
    if options.against is not None:  # no model at all is said before the work
        workdirs.existing(options.against)
    result = evaluate(options.model, config, split=split, data=options.data, output=options.output)
    if options.against is not None:
        compare(result, options.against, config, split=split, data=options.data)
    if is_run:
        print(f"next: python run.py export --model={options.model} writes the parameters alone")
    return 0


def _score(options: argparse.Namespace) -> int:
    for name in ("predictions", "truth"):
        if getattr(options, name) is None:
            raise ConfigError(
                f"scoring a file needs --{name}",
                remedy="give --predictions=FILE --truth=ANNOTATIONS",
            )
    if options.images is not None and options.report is None:
        raise ConfigError(
            "--images are for the report", remedy="give --report=FILE.html too, or leave it out"
        )
    if options.images is not None and not options.images.is_dir():
        raise ConfigError(
            f"--images={options.images} is no folder",
            remedy="give the folder that the paths of the labels start from, or leave it out",
        )
    from mtl_face.evaluation.scoring import summary
    from mtl_face.files import write_json
    from mtl_face.run import score

    how = flags.scoring_of(options)
    scored = score.score_file(options.predictions, how, calibration=options.calibration, say=print)
    print("\n".join(summary(scored.result)))
    if options.output is not None:  # before the report, so that a fault of that costs no number
        write_json(options.output, scored.result)
        print(f"results: {options.output}")
    if options.report is not None:
        score.report_file(scored, options.report, image_folder=options.images)
        print(f"report: {options.report}")
    if options.output is None:
        print(
            "next: --output=FILE.json keeps all numbers; python run.py compare compares two files"
        )
    else:
        print("next: python run.py compare A B --truth=... says whether two files really differ")
    return 0
