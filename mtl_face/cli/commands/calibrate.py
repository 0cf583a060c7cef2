"""`calibrate`: fit temperatures, thresholds, biases and smoothing, cross-fitted by video."""

import argparse
from collections.abc import Mapping
from typing import TYPE_CHECKING

from mtl_face.cli import flags
from mtl_face.config import Config
from mtl_face.errors import ConfigError
from mtl_face.tasks import TASKS

if TYPE_CHECKING:
    from mtl_face.evaluation.calibration import Calibration

_REMEDY = "give --predictions=FILE --truth=ANNOTATIONS, or --model=RUN, an evaluated run"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    flags.path(parser, "--predictions", "FILE", "predictions of the validation set: a .parquet")
    flags.path(parser, "--truth", "FILE", "labels: a multi-task annotation file or a manifest")
    flags.skip_bad_rows(parser)
    flags.model(parser, exports=False)
    meaning = "the calibration to write (default, with --model: RUN/calibration.json)"
    flags.path(parser, "--output", "FILE.json", meaning, type=flags.new_file)
    parser.add_argument(
        "--windows",
        default="0,5,10,20,30,60,120,240",
        metavar="S,S,...",
        help="smoothing windows to choose from for each task, as in run.py smooth; 0: none "
        "(default: 0,5,10,20,30,60,120,240)",
    )
    flags.kernel(parser, "--on")
    parser.add_argument(
        "--folds",
        type=int,
        choices=range(2, 21),
        default=5,
        metavar="K",
        help="folds of the cross-fitting, by video, 2 to 20 (default: 5)",
    )
    parser.add_argument(
        "--keep_all",
        action="store_true",
        help="keep what fits best in sample, even where its cross-fitted gain is negative",
    )


def run(config: Config | None, options: argparse.Namespace) -> int:
    from mtl_face.evaluation.calibration_fit import Search
    from mtl_face.run import postprocess
    from mtl_face.run import workdir as workdirs

    try:
        search = Search(
            windows=[float(part) for part in options.windows.split(",")],
            kernel=options.kernel,
            unit=options.unit,
            on=options.smoothed,
            num_folds=options.folds,
            keep_all=options.keep_all,
        )
    except ValueError as error:
        raise ConfigError(
            f"--windows={options.windows} is no list of windows: {error}",
            remedy="write --windows=0,10,30,60; --windows=0 fits no smoothing",
        ) from error
    output = options.output
    if options.model is None:
        if options.predictions is None or options.truth is None or config is not None:
            raise ConfigError("calibrate needs predictions and their labels", remedy=_REMEDY)
        if output is None:
            raise ConfigError(
                "calibrate was not told where to write", remedy="give --output=FILE.json"
            )
        source = postprocess.labelled_files(
            options.predictions, options.truth, skip_bad_rows=options.skip_bad_rows, say=print
        )
    else:
        if options.predictions is not None or options.truth is not None:
            raise ConfigError("--model goes without --predictions and --truth", remedy=_REMEDY)
        assert config is not None  # the run's own, if no file was given
        output = output or options.model.expanduser() / workdirs.CALIBRATION
        source = postprocess.labelled_workdir(config, options.model, print)
    print("\n".join(_lines(postprocess.calibrate(source, search, output, print))))
    print(f"results: {output}")
    print(
        f"next: --calibration={output} of python run.py predict, of an ensemble's python run.py "
        "ensemble, or of python run.py evaluate on other videos"
    )
    return 0


def _lines(fitted: "Calibration") -> list[str]:
    """What was found, and what it is worth."""
    lines = [f"{'':14}{'va':>9}{'au':>9}{'expr':>9}{'P':>9}"]
    for name in ("uncalibrated", "in_sample", "cross_fitted"):
        words = {"in_sample": "in sample", "cross_fitted": "cross-fitted"}.get(name, name)
        values = [fitted.fitted_on["scores"][name][key] for key in (*TASKS, "p")]
        numbers = ["     none" if value is None else f"{value:9.4f}" for value in values]
        lines.append(f"{words:14}" + "".join(numbers))
    lines.append("(cross-fitted: videos scored by a fit to the others; the number to believe)")
    if fitted.smoothing is not None:
        lines.append(f"smoothing: {fitted.smoothing}")
    stds = ", ".join(f"{name} {value:.4f}" for name, value in fitted.std_scales.items())
    if unfitted := fitted.fitted_on["not_fitted"]:
        lines.append(
            f"not fitted, for want of labels or of a training on them: {', '.join(unfitted)}"
        )
    lines += [
        "temperatures: " + _changed(fitted.temperatures, 1.0),
        ("standard deviations times " if fitted.std_is_predicted else "standard deviations: ")
        + (stds or "none"),
        "thresholds (logit): " + _changed(fitted.au_thresholds, 0.0),
        "biases (logit): " + _changed(fitted.expression_biases, 0.0),
    ]
    lines += [f"note: {text}" for text in fitted.fitted_on["notes"]]
    return lines + [f"not used: {reason}" for reason in fitted.fitted_on["refused"]]


def _changed(values: Mapping[str, float], default: float) -> str:
    changed = [f"{name} {value:.4g}" for name, value in values.items() if value != default]
    return ", ".join(changed) or "unchanged"
