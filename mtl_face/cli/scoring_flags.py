"""Flags of what is made of predictions: evaluate, compare, smooth, calibrate, ensemble."""

import argparse
from pathlib import Path
from typing import Any

from mtl_face.cli.numbers import natural_number


def evaluate(parser: argparse.ArgumentParser) -> None:
    """Flags of `evaluate`."""
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
    _scoring(parser, required=False)


def settings_of_export(options: argparse.Namespace) -> tuple[dict[str, Any], Path] | None:
    """What the export of `--params` was trained with, but for what only training uses."""
    if options.params is None:
        return None
    from mtl_face.weights import export

    config = export.read_card(options.params)["config"]
    wanted = ("name", "seed", "data", "model", "uncertainty", "evaluation")
    values = {name: config[name] for name in wanted if name in config}
    backbone = dict(values["model"].get("backbone", {}))
    for name in ("init_from", "init_channels"):  # the file lies elsewhere, if anywhere
        backbone.pop(name, None)
    return {**values, "model": {**values["model"], "backbone": backbone}}, options.params


def compare(parser: argparse.ArgumentParser) -> None:
    """Flags of `compare`."""
    for name, letter in (("first", "A"), ("second", "B")):
        parser.add_argument(
            name,
            type=Path,
            metavar=letter,
            help="folder of an evaluated run, our .parquet or .csv, or a submission",
        )
    _scoring(parser, required=True)


def _scoring(parser: argparse.ArgumentParser, *, required: bool) -> None:
    parser.add_argument(
        "--truth",
        required=required,
        type=Path,
        metavar="FILE",
        help="labels: a multi-task annotation file, or a folder of one-task files <video>.txt",
    )
    parser.add_argument(
        "--lenient",
        action="store_true",
        help="score a file that lacks labelled rows, has others, or departs from its form, and "
        "say so",
    )
    parser.add_argument(
        "--dataset", metavar="NAME", help="the data set to score, if the predictions are of several"
    )
    parser.add_argument(
        "--resamples",
        type=natural_number,
        default=1000,
        metavar="N",
        help="resamples of the videos for the intervals (default: 1000; 0: no intervals)",
    )
    parser.add_argument(
        "--seed", type=natural_number, default=0, metavar="N", help="of the resamples (default: 0)"
    )
    parser.add_argument("--output", type=Path, metavar="FILE.json", help="also write the numbers")


def smooth(parser: argparse.ArgumentParser) -> None:
    """Flags of `smooth`."""
    parser.add_argument(
        "--predictions", required=True, type=Path, metavar="FILE", help="our .parquet or .csv"
    )
    _smoothing(parser, default="30", default_meaning="30, the paper's")
    parser.add_argument(
        "--on",
        choices=("logits", "probabilities", "values"),
        default="logits",
        help="average logits (default, as the paper; values is the same), or probabilities; "
        "valence and arousal are averaged as they are",
    )
    table_output(parser)


def table_output(parser: argparse.ArgumentParser) -> None:
    """`--output` of a command that writes a table of predictions."""
    parser.add_argument(
        "--output", required=True, type=Path, metavar="FILE", help="a .parquet or .csv to write"
    )


def _smoothing(parser: argparse.ArgumentParser, *, default: str, default_meaning: str) -> None:
    parser.add_argument(
        "--window",
        default=default,
        metavar="S",
        help="length of the box or standard deviation of the Gaussian, in the unit below: one "
        f"number, or va:30,au:30,expr:60; 0: no smoothing (default: {default_meaning})",
    )
    _kernel(parser)


def _kernel(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--kernel", choices=("box", "gaussian"), default="box", help="weights (default: box)"
    )
    parser.add_argument(
        "--unit",
        choices=("frames", "samples"),
        default="frames",
        help="frames: numbers of video frames, predicted or not (default); samples: predictions, "
        "however far apart",
    )


def calibrate(parser: argparse.ArgumentParser) -> None:
    """Flags of `calibrate`."""
    parser.add_argument(
        "--predictions", type=Path, metavar="FILE", help="of the validation set: our .parquet"
    )
    parser.add_argument(
        "--truth", type=Path, metavar="FILE", help="labels: a multi-task annotation file"
    )
    parser.add_argument(
        "--workdir",
        type=Path,
        metavar="DIR",
        help="instead of both: folder of an evaluated run, with the --config that names its data",
    )
    parser.add_argument(
        "--output", required=True, type=Path, metavar="FILE.json", help="the calibration to write"
    )
    parser.add_argument(
        "--windows",
        default="0,5,10,20,30,60,120,240",
        metavar="S,S,...",
        help="smoothing windows to choose from for each task, as in run.py smooth; 0: none "
        "(default: 0,5,10,20,30,60,120,240)",
    )
    _kernel(parser)
    parser.add_argument(
        "--on",
        choices=("logits", "probabilities", "values"),
        default="logits",
        help="what is smoothed (default: logits)",
    )
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


def ensemble(parser: argparse.ArgumentParser) -> None:
    """Flags of `ensemble`."""
    parser.add_argument(
        "predictions", nargs="*", type=Path, metavar="FILE", help="our .parquet or .csv"
    )
    parser.add_argument(
        "--workdirs",
        nargs="+",
        default=[],
        type=Path,
        metavar="DIR",
        help="folders of evaluated runs, whose predictions are members too",
    )
    table_output(parser)
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
    _smoothing(parser, default="0", default_meaning="0; the paper smooths each member by 30")
    parser.add_argument(
        "--smooth_on",
        choices=("logits", "probabilities", "values"),
        default="logits",
        help="what is smoothed in each member before the mean is taken (default: logits)",
    )
