"""`validate`: check a finished submission against the test list: every deviation, by line."""

import argparse
import collections
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from mtl_face.cli import flags

if TYPE_CHECKING:
    from data_pipeline.formats.submission import Deviation


def add_arguments(parser: argparse.ArgumentParser) -> None:
    flags.path(parser, "--submission", "FILE", "file or folder to check", required=True)
    flags.challenge(parser)


def run(config: None, options: argparse.Namespace) -> int:
    """Runs the command; returns exit status 0 if the submission is as the edition asks for."""
    from mtl_face.run.submit import validate

    deviations = validate(options.submission, edition=options.edition, test_list=options.test_list)
    if any(found.kind == "header" and not found.readable for found in deviations):
        print(f"the header is not that of {options.edition}: is it the right --edition?")
    print_deviations(deviations, options.submission)
    if deviations:
        print("next: correct the lines above, or write the file again with python run.py submit")
        return 1
    print(f"next: hand in {options.submission}")
    return 0


def print_deviations(deviations: Sequence["Deviation"], path: Path) -> None:
    """Prints each deviation, and how many there are of each kind."""
    for deviation in deviations:
        print(deviation)
    if not deviations:
        print(f"accepted: {path} has the form and the rows that the edition asks for")
        return
    kinds = collections.Counter(deviation.kind for deviation in deviations)
    counts = ", ".join(f"{kind} {count}" for kind, count in kinds.most_common())
    print(f"rejected: {len(deviations)} deviations in {path} ({counts})")
