"""The commands of `run.py` and their flags: a table that the command line is built from."""

import argparse
import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal


@dataclasses.dataclass(frozen=True)
class Command:
    """A command, as the command line shows it.

    Attributes:
        meaning: one line of help.
        add_arguments: adds the command's own flags to its parser.
        config: whether the command takes `--config` and its dotted changes.
        own_settings: reads the settings, and says from where, if the flags name a file that holds
            some and no `--config` is given; None if they don't.
        presets: changes made to the settings before the user's.
    """

    meaning: str
    add_arguments: Callable[[argparse.ArgumentParser], None]
    config: Literal["required", "optional", "none"] = "required"
    own_settings: Callable[[argparse.Namespace], tuple[dict[str, Any], Path] | None] | None = None
    presets: tuple[str, ...] = ()


def _workdir(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--workdir", required=True, type=Path, metavar="DIR", help="folder of the run"
    )


def _train(parser: argparse.ArgumentParser) -> None:
    _workdir(parser)
    parser.add_argument(
        "--profile_steps",
        metavar="START:COUNT",
        help="trace COUNT steps from step START on, into WORKDIR/profile",
    )
    _processes(parser)


def _processes(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group(
        "several processes",
        "the same line on every host; TPU pods, SLURM (srun) and Open MPI (mpirun) need no flags",
    )
    group.add_argument("--coordinator", metavar="HOST:PORT", help="where process 0 is reached")
    group.add_argument(
        "--num_processes",
        type=_positive_number,
        metavar="N",
        help="processes in all; 1: alone, though a launcher says otherwise",
    )
    group.add_argument(
        "--process_id", type=_natural_number, metavar="I", help="number of this one, from 0"
    )
    group.add_argument(
        "--join_timeout_s",
        type=_positive_number,
        default=300,
        metavar="S",
        help="longest wait for all processes, in seconds (default: 300)",
    )


def _plan(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--topology",
        required=True,
        metavar="KIND:SHAPE",
        help="slice of TPUs, as v5e:4x4 or v5p:2x2x4; local: the devices of this machine",
    )
    parser.add_argument(
        "--batch",
        type=_positive_number,
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
        type=_natural_number,
        default=3,
        metavar="N",
        help="compiles to spend on the largest batch that fits (default: 3; 0: none)",
    )
    parser.add_argument(
        "--input_rate",
        type=float,
        metavar="RATE",
        help="images/s that one host's input delivers, as benchmarks/input.py measures it",
    )
    parser.add_argument("--output", type=Path, metavar="FILE.json", help="also write the figures")


def _replay(parser: argparse.ArgumentParser) -> None:
    _workdir(parser)
    parser.add_argument(
        "--dump",
        required=True,
        type=Path,
        metavar="FILE",
        help="the bad step: WORKDIR/replay/STEP.npz",
    )


def _evaluate(parser: argparse.ArgumentParser) -> None:
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


def _settings_of_export(options: argparse.Namespace) -> tuple[dict[str, Any], Path] | None:
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


def _compare(parser: argparse.ArgumentParser) -> None:
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
        type=_natural_number,
        default=1000,
        metavar="N",
        help="resamples of the videos for the intervals (default: 1000; 0: no intervals)",
    )
    parser.add_argument(
        "--seed", type=_natural_number, default=0, metavar="N", help="of the resamples (default: 0)"
    )
    parser.add_argument("--output", type=Path, metavar="FILE.json", help="also write the numbers")


def _natural_number(text: str) -> int:
    value = int(text)
    if value < 0:
        raise argparse.ArgumentTypeError(f"{value} is below 0")
    return value


def _positive_number(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{value} is below 1")
    return value


def _export(parser: argparse.ArgumentParser) -> None:
    _workdir(parser)
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


def _prepare(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--num_videos",
        type=int,
        metavar="N",
        help="videos to render, as --config.data.rendered_faces.num_videos=N",
    )
    parser.add_argument(
        "--audit",
        action="store_true",
        help="report on rows, labels and images of the data that --config names",
    )
    parser.add_argument(
        "--videos",
        type=Path,
        metavar="PATH",
        help="a video, a photo, or a folder of them: find the faces and write aligned crops",
    )
    parser.add_argument(
        "--output",
        type=Path,
        metavar="DIR",
        help="where --audit (default: DATA/audit) and --videos (must be given) write",
    )
    _shards(parser)


def _shards(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--shards",
        type=Path,
        metavar="DIR",
        help="write the rows and images that --config names as shards below DIR",
    )
    parser.add_argument(
        "--shard_format",
        choices=("array_record", "tfrecord"),
        default="array_record",
        help="of --shards (default array_record)",
    )
    parser.add_argument(
        "--beam",
        metavar="OPTIONS",
        help="write --shards through Apache Beam, with its options, as '--runner=DirectRunner'",
    )


def _predict(parser: argparse.ArgumentParser) -> None:
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
    parser.add_argument(
        "--output", required=True, type=Path, metavar="FILE", help="a .parquet or .csv to write"
    )


def _settings_of_weights(options: argparse.Namespace) -> tuple[dict[str, Any], Path] | None:
    """What the export of `--params`, or the run of `--workdir`, was trained with."""
    if options.params is not None or options.workdir is None:
        return _settings_of_export(options)
    from mtl_face.commands import workdir as workdirs

    return workdirs.read_settings(options.workdir), options.workdir


def _submit(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--predictions", required=True, type=Path, metavar="FILE", help="our .parquet or .csv"
    )
    _challenge(parser)
    parser.add_argument(
        "--output",
        required=True,
        type=Path,
        metavar="FILE",
        help="the submission to write; a folder for abaw3_va, abaw3_expr and abaw3_au",
    )
    parser.add_argument(
        "--fill",
        choices=("none", "nearest"),
        default="none",
        help="a row of the list without a prediction: an error (none), or the prediction of the "
        "nearest frame of its video, each counted (default: none)",
    )


def _validate(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--submission", required=True, type=Path, metavar="FILE", help="file or folder to check"
    )
    _challenge(parser)


def _challenge(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--test_list",
        required=True,
        type=Path,
        metavar="FILE",
        help="the challenge's list of test images, or lines of video,frames",
    )
    parser.add_argument(
        "--edition",
        required=True,
        metavar="NAME",
        help="abaw3_mtl, abaw4_mtl, abaw7_mtl, abaw11_mtl, or abaw3, 5, 6, 8, 10 with _va, _expr "
        "or _au",
    )


def _weights(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "path", type=Path, metavar="PATH", help="a weights file, or the folder of an export"
    )
    parser.add_argument(
        "--channels",
        choices=("auto", "rgb", "bgr"),
        default="auto",
        help="channel order of its first convolution, if the file does not tell it",
    )


def _smooth(parser: argparse.ArgumentParser) -> None:
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


def _calibrate(parser: argparse.ArgumentParser) -> None:
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


def _ensemble(parser: argparse.ArgumentParser) -> None:
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
    parser.add_argument(
        "--output", required=True, type=Path, metavar="FILE", help="a .parquet or .csv to write"
    )
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


COMMANDS: dict[str, Command] = {
    "train": Command(
        "train, evaluate the best checkpoint and write a report; goes on where it stopped", _train
    ),
    "plan": Command(
        "compile the train step for TPUs or for this machine, without data or weights, and tell "
        "its memory, arithmetic, traffic and shortest time",
        _plan,
        # Nothing is read, so the settings may lack a data.root.
        presets=("data.shards=unread", "data.validate_each=false"),
    ),
    "replay": Command(
        "take a bad step of a run again, and tell where its first bad number appears", _replay
    ),
    "evaluate": Command(
        "evaluate a trained run again (metrics.json, predictions, report.html), or score a file "
        "of predictions",
        _evaluate,
        config="optional",
        own_settings=_settings_of_export,
    ),
    "compare": Command(
        "whether two runs or files of predictions differ by more than luck", _compare, config="none"
    ),
    "weights": Command(
        "tell what a file of initial weights is, and the settings that it needs",
        _weights,
        config="none",
    ),
    "export": Command("write the network's parameters alone, for use elsewhere", _export),
    "prepare": Command(
        "make the embedded data set, check or audit a real one, or cut faces out of videos",
        _prepare,
        config="optional",
    ),
    "smooth": Command(
        "smooth a file of predictions over time, video by video", _smooth, config="none"
    ),
    "ensemble": Command(
        "average the predictions of several models, and keep how far they differ",
        _ensemble,
        config="optional",
    ),
    "calibrate": Command(
        "fit temperatures, thresholds, biases and smoothing on validation predictions, "
        "cross-fitted by video",
        _calibrate,
        config="optional",
    ),
    "predict": Command(
        "predict a list of images without labels, as a challenge's test set",
        _predict,
        config="optional",
        own_settings=_settings_of_weights,
    ),
    "submit": Command(
        "write a challenge submission from a file of predictions, and validate it",
        _submit,
        config="none",
    ),
    "validate": Command(
        "check a finished submission against the test list: every deviation, by line",
        _validate,
        config="none",
    ),
}
