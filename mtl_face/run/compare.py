"""`run.py compare`: whether two runs or files differ by more than the choice of videos explains."""

import argparse
from collections.abc import Mapping
from typing import Any

from mtl_face.errors import ConfigError
from mtl_face.evaluation import paired
from mtl_face.evaluation.joining import asked_rows, check_rows, join_both
from mtl_face.evaluation.summary import ends, number
from mtl_face.run import scored_files
from mtl_face.run.score_file import open_predictions, write_json

_ROWS = (
    ("va.score", "valence/arousal", "mean CCC"),
    ("va.valence", "  valence", "CCC"),
    ("va.arousal", "  arousal", "CCC"),
    ("au.score", "action units", "mean F1"),
    ("expr.score", "expressions", "macro F1"),
    ("p", "P", "sum"),
)


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
    result = paired.compare(*joined, num_resamples=options.resamples, seed=options.seed)
    result["files"] = {
        "first": str(files[0].path),
        "second": str(files[1].path),
        "truth": str(options.truth),
    }
    result["warnings"] = warnings
    for line in (*(f"warning: {warning}" for warning in warnings), *table(result)):
        print(line)
    if options.output is None:
        print("next: --output=FILE.json keeps all scores, also by action unit and expression")
    else:
        write_json(options.output, result)
        print(f"results: {options.output}")
    return 0


def table(result: Mapping[str, Any]) -> list[str]:
    """A comparison in lines.

    Args:
        result: what `paired.compare` returned, with `files`.

    Returns:
        What A and B are, a head, a line a score, and how to read it.
    """
    lines = [f"A: {result['files']['first']}", f"B: {result['files']['second']}"]
    head = f"{'A':>7} {'B':>7} {'B - A':>8} {result['level']:.0%} interval"
    lines.append(f"{'':25} {head:45}  p-value")
    for path, name, measure in _ROWS:
        values = result["scores"].get(path)
        if values is None:
            lines.append(f"{name:15} {measure:9} {'none':>7}")
            continue
        numbers = (
            f"{number(values['first']):>7} {number(values['second']):>7} "
            f"{number(values['difference'], sign=True):>8} "
            f"{ends({path: values['interval']}, path, sign=True)}"
        )
        chance = values["p_value"]
        lines.append(
            f"{name:15} {measure:9} {numbers}  {'none' if chance is None else f'{chance:.3f}'}"
        )
    lines.append(
        f"{result['num_rows']} rows of {result['num_videos']} videos, "
        f"{result['num_resamples']} paired resamples of the videos; p-values are for each line by "
        "itself"
    )
    if result["num_unpredicted"]:
        lines.append(f"left out: {result['num_unpredicted']} labelled rows that not both predict")
    return lines
