"""`run.py submit`: writes a challenge submission from a file of predictions, and validates it."""

import argparse
from pathlib import Path

from data_pipeline.formats import submission_check, submission_write, test_list
from mtl_face.evaluation import prediction_files
from mtl_face.run.validate import print_deviations
from mtl_face.tasks import AU, EXPR
from mtl_face.weights import provenance


def run(config: None, options: argparse.Namespace) -> int:
    """Writes a submission.

    Args:
        config: not used.
        options: `predictions`, `edition`, `test_list`, `output`, `fill`.

    Returns:
        Exit status 0, or 1 if what was written is not as the edition asks for.

    Raises:
        UserError: a file cannot be read or written, a row of the list has no prediction, or the
            edition is unknown.
    """
    table = prediction_files.read(options.predictions)
    for warning in provenance.warnings_of_predictions(table.metadata):
        print(f"warning: {warning}")
    wanted = test_list.load_test_list(options.test_list, Path())
    decisions = submission_write.decide(
        video=table.video,
        frame=table.frame,
        valence=table.valence,
        arousal=table.arousal,
        au_logits=table.logits(AU) - table.au_thresholds,
        expression_logits=table.logits(EXPR) + table.expression_biases,
    )
    rows, filled = submission_write.match_list(
        wanted, decisions, list_path=options.test_list, fill=options.fill
    )
    files = submission_write.write_submission(
        options.output,
        edition=options.edition,
        test_list=wanted,
        decisions=decisions,
        rows=rows,
        list_path=options.test_list,
    )
    print(f"{len(wanted)} rows of {len(set(wanted.video))} videos, from {len(table)} predictions")
    print(f"values of valence and arousal clipped to [-1, 1]: {decisions.clipped}")
    if options.fill == "nearest":
        print(f"rows filled from the nearest frame of their video: {int(filled.sum())}")
    deviations = submission_check.validate_submission(
        options.output, edition=options.edition, test_list=wanted, list_path=options.test_list
    )
    print_deviations(deviations, options.output)
    what = "the submission" if len(files) == 1 else f"{len(files)} files of the submission"
    print(f"{what}: {options.output}")
    print(
        "next: hand it in; after any change, python run.py validate "
        f"--submission={options.output} --test_list={options.test_list} --edition={options.edition}"
    )
    return 1 if deviations else 0
