"""`predict`: predict a list of images without labels, as a challenge's test set."""

import argparse

from mtl_face.cli import flags
from mtl_face.config import Config


def add_arguments(parser: argparse.ArgumentParser) -> None:
    flags.model(parser, required=True)
    flags.path(
        parser,
        "--test_list",
        "FILE",
        "the images, as <video>/<frame>.jpg a line, lines of video,frames, or names as anna.jpg",
        required=True,
    )
    flags.path(
        parser,
        "--images",
        "FOLDER",
        "folder that the list's paths start from (default: the data set's image folder)",
    )
    parser.add_argument(
        "--missing_images",
        choices=("error", "skip"),
        default="error",
        help="an image of the list that is absent: an error (default), or left out and counted",
    )
    flags.calibration(parser)
    flags.table_output(parser)


def run(config: Config, options: argparse.Namespace) -> int:
    from mtl_face.evaluation import prediction_files
    from mtl_face.run.predict import predict

    table = predict(
        options.model,
        options.test_list,
        config=flags.with_calibration(config, options.calibration),
        images=options.images,
        missing_images=options.missing_images,
    )
    prediction_files.write(table, options.output)
    for line in prediction_files.lost(table, options.output):
        print(line)
    print(f"predictions: {options.output}")
    print(
        f"next: python run.py submit --predictions={options.output} "
        f"--test_list={options.test_list} --edition=NAME --output=FILE"
    )
    return 0
