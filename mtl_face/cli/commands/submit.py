"""`submit`: write a challenge submission from a file of predictions, and validate it."""

import argparse

from mtl_face.cli import flags
from mtl_face.cli.commands.validate import print_deviations


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
    parser.add_argument(
        "--fill_untrained",
        action="store_true",
        help="a task that the network was never trained on: constants (valence and arousal 0, no "
        "action unit, Neutral) in place of an error",
    )


def run(config: None, options: argparse.Namespace) -> int:
    """Runs the command; returns exit status 1 if the result is not as the edition asks for."""
    from mtl_face.run.submit import submit

    deviations = submit(
        options.predictions,
        options.output,
        edition=options.edition,
        test_list=options.test_list,
        fill=options.fill,
        fill_untrained=options.fill_untrained,
        say=print,
    )
    print_deviations(deviations, options.output)
    print(
        "next: hand it in; after any change, python run.py validate "
        f"--submission={options.output} --test_list={options.test_list} --edition={options.edition}"
    )
    return 1 if deviations else 0
