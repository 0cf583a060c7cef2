"""`submit`: write a challenge submission from a file of predictions, and validate it."""

import argparse

from mtl_face.cli import flags
from mtl_face.cli.validate import print_deviations

CONFIG = "none"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    flags.path(parser, "--predictions", "FILE", "a .parquet or .csv of predictions", required=True)
    flags.challenge(parser)
    flags.path(
        parser,
        "--output",
        "FILE",
        "the submission to write; a folder for abaw3_va, abaw3_expr and abaw3_au",
        required=True,
    )
    parser.add_argument(
        "--fill",
        choices=("none", "nearest"),
        default="none",
        help="a row of the list without a prediction: an error (none), or the prediction of the "
        "nearest frame of its video, each counted (default: none)",
    )


def run(config: None, options: argparse.Namespace) -> int:
    """Runs the command; returns exit status 1 if the result is not as the edition asks for."""
    from mtl_face.run.submit import submit

    done = submit(
        options.predictions,
        options.output,
        edition=options.edition,
        test_list=options.test_list,
        fill=options.fill,
    )
    for warning in done.warnings:
        print(f"warning: {warning}")
    print(
        f"{done.num_rows} rows of {done.num_videos} videos, from {done.num_predictions} predictions"
    )
    print(f"values of valence and arousal clipped to [-1, 1]: {done.num_clipped}")
    if options.fill == "nearest":
        print(f"rows filled from the nearest frame of their video: {done.num_filled}")
    print_deviations(done.deviations, options.output)
    what = "the submission" if done.num_files == 1 else f"{done.num_files} files of the submission"
    print(f"{what}: {options.output}")
    print(
        "next: hand it in; after any change, python run.py validate "
        f"--submission={options.output} --test_list={options.test_list} --edition={options.edition}"
    )
    return 1 if done.deviations else 0
