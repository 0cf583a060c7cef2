"""`run.py validate`: checks a finished submission against the test list."""

import argparse
import collections
from collections.abc import Sequence
from os import PathLike
from pathlib import Path

from data_pipeline.formats import submission_check, test_list
from data_pipeline.formats.submission_rows import Deviation


def run(config: None, options: argparse.Namespace) -> int:
    """Validates a submission; prints every deviation.

    Args:
        config: not used.
        options: `submission`, `test_list`, `edition`.

    Returns:
        Exit status 0 if the submission is as the edition asks for, else 1.

    Raises:
        UserError: a file cannot be read, or the edition is unknown.
    """
    wanted = test_list.load_test_list(options.test_list, Path())
    deviations = submission_check.validate_submission(
        options.submission, edition=options.edition, test_list=wanted, list_path=options.test_list
    )
    print_deviations(deviations, options.submission)
    if deviations:
        print("next: mend the lines named above, or write the file again with python run.py submit")
        return 1
    print(f"next: hand in {options.submission}")
    return 0


def print_deviations(deviations: Sequence[Deviation], path: str | PathLike[str]) -> None:
    """Prints each deviation, and how many there are of each kind."""
    for deviation in deviations:
        print(deviation)
    if not deviations:
        print(f"accepted: {path} has the form and the rows that the edition asks for")
        return
    kinds = collections.Counter(deviation.kind for deviation in deviations)
    counts = ", ".join(f"{kind} {count}" for kind, count in kinds.most_common())
    print(f"rejected: {len(deviations)} deviations in {path} ({counts})")
