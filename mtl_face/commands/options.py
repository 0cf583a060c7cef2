"""The commands of `run.py` and their flags: a table that the command line is built from."""

import argparse
import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Literal


@dataclasses.dataclass(frozen=True)
class Command:
    """A command, as the command line shows it.

    Attributes:
        meaning: one line of help.
        add_arguments: adds the command's own flags to its parser.
        config: whether the command takes `--config` and its dotted changes.
    """

    meaning: str
    add_arguments: Callable[[argparse.ArgumentParser], None]
    config: Literal["required", "optional", "none"] = "required"


def _workdir(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--workdir", required=True, type=Path, metavar="DIR", help="folder of the run"
    )


def _evaluate(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--workdir", type=Path, metavar="DIR", help="folder of the run")
    parser.add_argument(
        "--predictions",
        type=Path,
        metavar="FILE",
        help="instead of a run: score this file (our .parquet or .csv, or a submission)",
    )
    _scoring(parser, required=False)
    parser.add_argument(
        "--lenient",
        action="store_true",
        help="score a file that misses labelled rows or has others, and say so",
    )


def _scoring(parser: argparse.ArgumentParser, *, required: bool) -> None:
    parser.add_argument(
        "--truth",
        required=required,
        type=Path,
        metavar="FILE",
        help="annotation file to score against",
    )
    parser.add_argument("--output", type=Path, metavar="FILE.json", help="also write the numbers")


def _export(parser: argparse.ArgumentParser) -> None:
    _workdir(parser)
    parser.add_argument(
        "--output",
        type=Path,
        metavar="DIR",
        help="where the parameters go (default: WORKDIR/export)",
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


COMMANDS: dict[str, Command] = {
    "train": Command(
        "train, evaluate the best checkpoint and write a report; goes on where it stopped", _workdir
    ),
    "evaluate": Command(
        "evaluate a trained run again (metrics.json, predictions, report.html), or score a file "
        "of predictions",
        _evaluate,
        config="optional",
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
