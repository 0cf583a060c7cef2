"""Flags of data, weights and submissions: prepare, weights, predict, submit, validate."""

import argparse
from pathlib import Path
from typing import Any

from mtl_face.cli.scoring_flags import settings_of_export, table_output


def prepare(parser: argparse.ArgumentParser) -> None:
    """Flags of `prepare`."""
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


def weights(parser: argparse.ArgumentParser) -> None:
    """Flags of `weights`."""
    parser.add_argument(
        "path", type=Path, metavar="PATH", help="a weights file, or the folder of an export"
    )
    parser.add_argument(
        "--channels",
        choices=("auto", "rgb", "bgr"),
        default="auto",
        help="channel order of its first convolution, if the file does not tell it",
    )


def predict(parser: argparse.ArgumentParser) -> None:
    """Flags of `predict`."""
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
    table_output(parser)


def settings_of_weights(options: argparse.Namespace) -> tuple[dict[str, Any], Path] | None:
    """What the export of `--params`, or the run of `--workdir`, was trained with."""
    if options.params is not None or options.workdir is None:
        return settings_of_export(options)
    from mtl_face.run import workdir as workdirs

    return workdirs.read_settings(options.workdir), options.workdir


def submit(parser: argparse.ArgumentParser) -> None:
    """Flags of `submit`."""
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


def validate(parser: argparse.ArgumentParser) -> None:
    """Flags of `validate`."""
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
