"""`prepare`: make the embedded data set, check or audit a real one, or cut faces out of videos."""

import argparse
from pathlib import Path

from mtl_face.config import Config

HELP = "make the embedded data set, check or audit a real one, or cut faces out of videos"
CONFIG = "optional"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the flags."""
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


def run(config: Config | None, options: argparse.Namespace) -> int:
    """Runs the command; returns the exit status."""
    from mtl_face.run import prepare

    return prepare.run(config, options)
