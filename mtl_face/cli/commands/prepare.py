"""`prepare`: make the embedded data set, check or audit a real one, or write images for one."""

import argparse

from mtl_face import config as config_lib
from mtl_face.cli import flags
from mtl_face.cli.progress import Progress
from mtl_face.config import Config
from mtl_face.errors import ConfigError


def add_arguments(parser: argparse.ArgumentParser) -> None:
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
    flags.skip_bad_rows(parser)
    flags.path(
        parser,
        "--videos",
        "PATH",
        "a video, a photo, or a folder of them: find the faces and write aligned crops",
    )
    parser.add_argument(
        "--from",
        dest="layout",
        choices=("affectnet", "fer2013", "ferplus"),
        help="write images and their lists: aligned crops by AffectNet's landmarks, or the images "
        "that FER2013's list holds as text",
    )
    flags.path(parser, "--source", "PATH", "the list that --from reads, or its folder")
    flags.path(parser, "--images", "DIR", "the images that --from=affectnet cuts faces out of")
    flags.path(
        parser,
        "--output",
        "DIR",
        "where --audit (default: DATA/audit), --videos and --from (must be given) write",
    )
    flags.min_face(parser)
    flags.path(
        parser,
        "--shards",
        "DIR",
        "write the rows and images that --config names as shards below DIR",
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
    if options.videos is not None:
        return _videos(config, options)
    if any(value is not None for value in (options.layout, options.source, options.images)):
        return _images(config, options)
    if config is None:
        raise ConfigError(
            "prepare needs --config, which names the data",
            remedy="add --config=configs/NAME.py, or give --videos=PATH to cut faces out of videos",
        )
    _check_flags(options)
    from mtl_face.run import prepare

    config = prepare.own_files(config, print)
    if options.shards is not None:
        folder = prepare.write_shards(
            config.data,
            options.shards,
            file_format=options.shard_format,
            beam=options.beam,
            say=print,
            bar=Progress,
        )
        print(f"next: python run.py train with the same --config, --config.data.shards={folder}")
    elif options.audit:
        sound = prepare.audit(config, options.output, say=print, bar=Progress)
        first = "" if sound else "correct what is listed as error, then "
        print(f"next: {first}python run.py train with this --config and --workdir=DIR")
    else:
        if options.num_videos is not None:
            values = config_lib.to_dict(config)
            values["data"]["rendered_faces"]["num_videos"] = options.num_videos
            config = config_lib.validate(values)
        roots = prepare.check(config.data, say=print, bar=Progress)
        print(f"all rows and images are sound: {', '.join(map(str, roots))}")
        print("next: python run.py train with the same --config and --workdir=DIR")
    return 0


def _images(config: Config | None, options: argparse.Namespace) -> int:
    if options.layout is None or options.source is None or options.output is None:
        raise ConfigError(
            "--from, --source and --output go together",
            remedy="as in --from=fer2013 --source=fer2013.csv --output=DIR",
        )
    others = (config, options.num_videos, options.shards, options.beam)
    if options.audit or options.skip_bad_rows or any(other is not None for other in others):
        raise ConfigError(
            "--from goes with --source, --images and --output alone",
            remedy="leave out --config, --audit, --num_videos, --skip_bad_rows, --shards and "
            "--beam",
        )
    if (options.layout == "affectnet") != (options.images is not None):
        raise ConfigError(
            "--from=affectnet and --images go together",
            remedy="name the folder of the images, as Manually_Annotated_Images, as --images; "
            "lists of FER2013 hold theirs",
        )
    from mtl_face.run import prepare
    from mtl_face.run.faces import listed_faces

    if options.layout == "affectnet":
        folder = listed_faces.cut(
            options.source, options.images, options.output, say=print, bar=Progress
        )
    else:
        folder = prepare.write_images(
            options.layout, options.source, options.output, say=print, bar=Progress
        )
    print(f"images and manifests: {folder}")
    print(
        "next: python run.py prepare --config=configs/paper.py --config.data.kind=manifest "
        f"--config.data.root={folder}"
    )
    return 0


def _videos(config: Config | None, options: argparse.Namespace) -> int:
    if options.output is None:
        raise ConfigError(
            "--videos needs --output", remedy="add --output=DIR, a new folder for the crops"
        )
    others = (
        *(config, options.num_videos, options.shards, options.beam),
        *(options.layout, options.source, options.images),
    )
    if options.audit or options.skip_bad_rows or any(other is not None for other in others):
        raise ConfigError(
            "--videos goes with --output and --min_face alone",
            remedy="leave out --config, --audit, --num_videos, --skip_bad_rows, --from, --shards "
            "and --beam",
        )
    from mtl_face.faces import layout
    from mtl_face.run.faces import videos

    count, folder = videos.cut_faces(
        options.videos,
        options.output,
        min_face=options.min_face,
        say=print,
        progress=Progress("frames"),
    )
    crops = folder / layout.CROPS
    print(f"{count:,} crops: {crops}")
    print(f"lists: {folder / layout.MANIFEST}, {layout.TEST_LIST}, {layout.GAPS}")
    print(f"what a crop is: {folder / layout.SPECIFICATION}")
    print(
        "next: look at some crops; then python run.py predict --model=RUN "
        f"--test_list={folder / layout.TEST_LIST} --images={crops} --output=predictions.parquet"
    )
    return 0


def _check_flags(options: argparse.Namespace) -> None:
    """Refuses flags that would have no effect together."""
    if options.min_face is not None:
        raise ConfigError("--min_face goes with --videos", remedy="add --videos=PATH")
    if options.beam is not None and options.shards is None:
        raise ConfigError("--beam goes with --shards", remedy="add --shards=DIR, or leave it out")
    if options.audit and options.shards is not None:
        raise ConfigError("--audit and --shards do two things", remedy="run one after the other")
    if options.output is not None and not options.audit:
        raise ConfigError(
            "--output goes with --audit, --videos or --from",
            remedy="add one of them, or leave --output out",
        )
    if options.num_videos is not None and (options.audit or options.shards is not None):
        raise ConfigError(
            "--num_videos goes with neither --audit nor --shards",
            remedy="give --config.data.rendered_faces.num_videos=N",
        )
