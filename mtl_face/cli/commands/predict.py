"""`predict`: what faces in photos, videos and cameras show, or the images of a test list.

python run.py predict photo.jpg
python run.py predict photos/ 'more/*.png' talk.mp4 --output=faces.csv --output=faces.parquet
python run.py predict camera:0 --output=faces.csv
python run.py predict talk.mp4 --annotate=seen.mp4 --plot=talk.svg --summary=talk.csv
python run.py predict --model=RUN --pseudo_labels=taught/train.csv --confidence=0.9
"""

import argparse
from pathlib import Path

from mtl_face.cli import flags
from mtl_face.config import Config
from mtl_face.errors import ConfigError
from mtl_face.run import workdir as workdirs

_DEFAULT = Path(workdirs.DEFAULT_MODEL)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "inputs",
        nargs="*",
        metavar="INPUT",
        help="a photo, a video, a folder, a pattern as 'photos/**/*.jpg' (quoted), or camera:0, "
        "which Ctrl-C ends",
    )
    flags.model(parser, default=_DEFAULT)
    parser.add_argument(
        "--output",
        action="append",
        default=[],
        type=flags.new_file,
        metavar="FILE",
        help="a table to write: .csv, .parquet or .jsonl; can be given several times (default: a "
        "short table is printed)",
    )
    parser.add_argument(
        "--mesh", action="store_true", help="keep all 468 points of each face in the tables"
    )
    parser.add_argument(
        "--relative",
        choices=("auto", "none"),
        default="auto",
        help="auto: persons of videos and cameras are judged by how they differ from themselves at "
        "rest, by models that take the points of a face (default); none: each picture by itself",
    )
    flags.path(
        parser,
        "--neutral",
        "PICTURE",
        "of the person at rest, whom all faces show: they are judged by how they differ from it",
    )
    flags.min_face(parser)
    flags.calibration(parser)
    _add_products(parser)
    listed = parser.add_argument_group("aligned crops of a test list, in place of INPUT")
    flags.path(
        listed,
        "--test_list",
        "FILE",
        "the images, as <video>/<frame>.jpg a line, lines of video,frames, or names as anna.jpg",
    )
    flags.path(
        listed,
        "--images",
        "FOLDER",
        "folder that the list's paths start from (default: the data set's image folder)",
    )
    listed.add_argument(
        "--missing_images",
        choices=("error", "skip"),
        default="error",
        help="an image of the list that is absent: an error (default), or left out and counted",
    )
    taught = parser.add_argument_group(
        "labels for training, of the images of --test_list or of the training set of the settings"
    )
    flags.path(
        taught,
        "--pseudo_labels",
        "FILE.csv",
        "a manifest of the model's labels to write, where it is sure and a label is missing",
        type=flags.new_file,
    )
    taught.add_argument(
        "--confidence",
        metavar="RULE",
        help="0.9: smallest probability of action units and expressions; or by task, as "
        "va:0.2,au:0.9,expr:0.8, of va the largest standard deviation",
    )
    taught.add_argument(
        "--replace_labels",
        action="store_true",
        help="leave out the labels at hand: all are the model's",
    )
    flags.path(
        taught,
        "--data",
        "PATH|NAME",
        "in place of the data set of the settings: its folder, a file of annotations or a "
        "manifest, or the name of one of the run's mixture",
    )


def _add_products(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("pictures and summaries of the faces")
    flags.path(
        group,
        "--annotate",
        "FILE|FOLDER",
        "draws the answers: a photo (.jpg, .png) or a video (.mp4, .mkv, .mov) of one input, or a "
        "folder for those of all",
    )
    group.add_argument(
        "--anonymise", action="store_true", help="hides the faces in what --annotate draws"
    )
    flags.path(group, "--plot", "FILE", "timeline of the videos: .svg, .png or .html")
    flags.path(
        group,
        "--summary",
        "FILE",
        "FILE_summary.csv, a row for each person of a video, and FILE_events.csv: onset, apex and "
        "offset of action units and expressions",
    )
    flags.event_rules(group)


def run(config: Config, options: argparse.Namespace) -> int:
    config = flags.with_calibration(config, options.calibration)
    if options.pseudo_labels is not None:
        return _pseudo_labels(config, options)
    for flag in ("confidence", "replace_labels", "data"):
        if getattr(options, flag):
            raise ConfigError(f"--{flag} goes with --pseudo_labels", remedy="give it, or neither")
    if options.test_list is not None:
        return _test_list(config, options)
    if not options.inputs:
        raise ConfigError(
            "nothing to look at", remedy="name photos, videos or folders, or give --test_list=FILE"
        )
    return _faces(config, options)


def _faces(config: Config, options: argparse.Namespace) -> int:
    from mtl_face.cli.progress import Progress, late
    from mtl_face.evaluation.face_events import EventRules
    from mtl_face.run import models, show
    from mtl_face.run.faces.predict_faces import Request, predict_faces
    from mtl_face.run.faces.products import Wanted
    from mtl_face.run.postprocess import PostProcessing

    wanted = Wanted(
        annotate=options.annotate,
        anonymise=options.anonymise,
        plot=options.plot,
        summary=options.summary,
        rules=EventRules.from_texts(options.event_rule),
    )
    steps = PostProcessing.of_settings(config)
    request = Request(
        options.inputs,
        options.output,
        mesh=options.mesh,
        relative=options.relative == "auto",
        neutral=options.neutral,
        min_face=options.min_face,
        wanted=wanted,
    )
    model = models.open_model(options.model, config, show)
    predict_faces(
        model,
        request,
        steps=steps.with_own(model),
        say=show,
        progress=Progress("frames"),
        drawing=late("pictures drawn"),
    )
    if not options.output:
        print("next: --output=FILE.csv keeps all columns, of each frame")
    return 0


def _pseudo_labels(config: Config, options: argparse.Namespace) -> int:
    from mtl_face.run import show
    from mtl_face.run.predict import read_list
    from mtl_face.run.teachers import pseudo_labels

    _require_model(options, "the labels")
    given = [flag for flag in ("inputs", "output", *_OF_FACES) if getattr(options, flag)]
    if given:
        what = "INPUT" if given[0] == "inputs" else f"--{given[0]}"
        raise ConfigError(
            f"{what} is of no use to --pseudo_labels",
            remedy="labels are given to aligned crops: of the training set, or of --test_list",
        )
    of_list = options.test_list is not None
    for flag, needs_list in (("images", True), ("replace_labels", False), ("data", False)):
        if getattr(options, flag) and needs_list != of_list:
            raise ConfigError(
                f"--{flag} is of no use to the labels of "
                + ("a test list" if of_list else "a training set"),
                remedy="leave it out, or "
                + ("leave --test_list out" if of_list else "add --test_list=LIST"),
            )
    if options.confidence is None:
        raise ConfigError(
            "--pseudo_labels needs --confidence",
            remedy="give --confidence=0.9, or by task --confidence=va:0.2,au:0.9,expr:0.8",
        )
    output = options.pseudo_labels
    if output.suffix.lower() != ".csv":
        raise ConfigError(f"--pseudo_labels={output} is no .csv", remedy="write a FILE.csv")
    rule = pseudo_labels.Confidence.from_text(options.confidence)
    if not of_list:
        if options.data is not None:
            config = pseudo_labels.of_other_data(config, options.data)
        pseudo_labels.of_training_set(
            options.model, output, rule, config=config, replace=options.replace_labels
        )
        return 0
    table = read_list(config, options.test_list, options.images, options.missing_images, show)
    pseudo_labels.of_list(options.model, table, output, rule, config=config, images=options.images)
    return 0


_OF_FACES = (
    "mesh",
    "neutral",
    "min_face",
    "annotate",
    "anonymise",
    "plot",
    "summary",
    "event_rule",
)


def _require_model(options: argparse.Namespace, what: str) -> None:
    if options.model is _DEFAULT:  # it is for faces that are found
        raise ConfigError(
            f"no model is named for {what}", remedy="give --model=RUN or --model=EXPORT"
        )


def _test_list(config: Config, options: argparse.Namespace) -> int:
    from mtl_face.evaluation import prediction_files
    from mtl_face.run.predict import predict

    if options.inputs:
        raise ConfigError(
            f"{options.inputs[0]} besides --test_list={options.test_list}",
            remedy="give one of the two: photos and videos, or a list of aligned crops",
        )
    _require_model(options, "the test list")
    for flag in _OF_FACES:
        if getattr(options, flag):
            raise ConfigError(
                f"--{flag} is of no use to a test list", remedy="name photos or videos instead"
            )
    outputs = [flags.new_table(str(output)) for output in options.output]
    if len(outputs) != 1:
        raise ConfigError(
            f"--output is given {len(outputs)} times, a test list takes one",
            remedy="give --output=FILE.parquet, or a .csv",
        )
    (output,) = outputs
    table = predict(
        options.model,
        options.test_list,
        config=config,
        images=options.images,
        missing_images=options.missing_images,
    )
    prediction_files.write(table, output)
    for line in prediction_files.lost(table, output):
        print(line)
    print(f"predictions: {output}")
    print(
        f"next: python run.py submit --predictions={output} "
        f"--test_list={options.test_list} --edition=NAME --output=FILE"
    )
    return 0
