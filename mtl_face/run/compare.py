"""`run.py compare`: whether two runs or files differ by more than the choice of videos explains."""

import argparse

from mtl_face.errors import ConfigError
from mtl_face.evaluation import comparison
from mtl_face.evaluation.joining import asked_rows, check_rows, join_both
from mtl_face.run import scored_files
from mtl_face.run.score_file import open_predictions, write_json


def run(config: object, options: argparse.Namespace) -> int:
    """Compares `options.first` and `options.second` on the labels of `options.truth`.

    Args:
        config: None; the flags say it all.
        options: `first`, `second`, `truth`, `dataset`, `lenient`, `resamples`, `seed`, `output`.

    Returns:
        Exit status 0.

    Raises:
        ConfigError: the two answer no common task.
        PredictionError: predictions do not fit the labels.
        AnnotationError: the labels or a submission cannot be read.
    """
    files = [
        open_predictions(path, options.dataset, lenient=options.lenient)
        for path in (options.first, options.second)
    ]
    common = tuple(task for task in files[0].tasks if task in files[1].tasks)
    if not common:
        raise ConfigError(
            f"{files[0].path} and {files[1].path} answer no common task",
            remedy="compare files of the same task",
        )
    dataset = files[0].dataset
    files[1] = files[1].renamed(dataset)
    truth = scored_files.read_truth(options.truth, dataset=dataset, answered=common)
    predicted, warnings = [], []
    for file in files:
        rows, found = check_rows(truth, file.predictions, path=file.path, lenient=options.lenient)
        predicted.append(rows)
        warnings += [f"{file.path}: {line}" for line in (*file.warnings, *found.lines())]
    truth = truth.take(asked_rows(truth, predicted[0] & predicted[1]))
    joined = join_both(truth, files[0].predictions, files[1].predictions, lenient=options.lenient)
    result = comparison.compare(*joined, num_resamples=options.resamples, seed=options.seed)
    result["files"] = {
        "first": str(files[0].path),
        "second": str(files[1].path),
        "truth": str(options.truth),
    }
    result["warnings"] = warnings
    for line in (*(f"warning: {warning}" for warning in warnings), *comparison.summary(result)):
        print(line)
    if options.output is None:
        print("next: --output=FILE.json keeps all scores, also by action unit and expression")
    else:
        write_json(options.output, result)
        print(f"results: {options.output}")
    return 0
