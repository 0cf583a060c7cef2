"""Scores a file of predictions against labels, without JAX or TensorFlow."""

import argparse
import dataclasses
import json
from pathlib import Path
from typing import Any

from mtl_face.errors import ConfigError
from mtl_face.evaluation import scoring
from mtl_face.evaluation.joining import join_file
from mtl_face.evaluation.scoring import summary
from mtl_face.files import replacing
from mtl_face.run import scored_files
from mtl_face.run.postprocess import post_process
from mtl_face.run.scored_files import ScoredFile
from mtl_face.tables import PredictionError
from mtl_face.weights.provenance import warnings_of_predictions


def run(config: object, options: argparse.Namespace) -> int:
    """Scores `options.predictions` against `options.truth`.

    Args:
        config: None; the flags say it all.
        options: `predictions`, `truth`, `dataset`, `lenient`, `resamples`, `seed`, `output`,
            `calibration`, `report`, `images`.

    Returns:
        Exit status 0.

    Raises:
        ConfigError: one of the two files was not named, or images without a report, or their
            folder does not exist.
        PredictionError: the predictions do not fit the labels.
        AnnotationError: the labels or a submission cannot be read.
    """
    for name in ("predictions", "truth"):
        if getattr(options, name) is None:
            raise ConfigError(
                f"scoring a file needs --{name}",
                remedy="give --predictions=FILE --truth=ANNOTATIONS",
            )
    if options.images is not None and options.report is None:
        raise ConfigError(
            "--images are for the report", remedy="give --report=FILE.html too, or leave it out"
        )
    if options.images is not None and not options.images.is_dir():
        raise ConfigError(
            f"--images={options.images} is no folder",
            remedy="give the folder that the paths of the labels start from, or leave it out",
        )
    file = open_predictions(options.predictions, options.dataset, lenient=options.lenient)
    cautions: list[str] = []
    plain = None
    if options.calibration is not None:
        plain = file
        file, cautions = _calibrated(file, options.calibration)
    truth = scored_files.read_truth(options.truth, dataset=file.dataset, answered=file.tasks)
    print(f"{file.path}: {file.kind}, {len(file.predictions)} rows")
    print(f"{options.truth}: {len(truth)} rows of labels")
    joined, found = join_file(truth, file.predictions, path=file.path, lenient=options.lenient)
    provenance, seen = _provenance(file)
    for warning in (*file.warnings, *found.lines(), *cautions, *seen):
        print(f"warning: {warning}")
    before = (
        join_file(truth, plain.predictions, path=plain.path, lenient=options.lenient)[0]
        if plain
        else None
    )
    result = scoring.score_joined(
        joined, before=before, num_resamples=options.resamples, seed=options.seed
    )
    result["au"]["mask"] = "all"
    result["matching"] = {
        "num_missing": joined.num_unpredicted,
        "num_extra": found.num_extra,
        "num_repeated": found.num_repeated,
        "warnings": [*file.warnings, *found.lines(), *cautions],
    }
    result["warnings"] = seen
    result["provenance"] = provenance
    result["files"] = {"predictions": str(file.path), "truth": str(options.truth)}
    for line in summary(result):
        print(line)
    if options.output is not None:  # before the report, so that a fault of that costs no number
        write_json(options.output, result)
        print(f"results: {options.output}")
    if options.report is not None:
        from mtl_face.report import write_report
        from mtl_face.run import reports

        report = reports.of_file(
            file,
            truth,
            result,
            raw=plain,
            image_folder=options.images,
            warnings=result["matching"]["warnings"],
        )
        write_report(options.report, report)
        print(f"report: {options.report}")
    if options.output is None:
        print("next: --output=FILE.json keeps all numbers; run.py compare sets two files apart")
    else:
        print("next: run.py compare A B --truth=... says whether two files really differ")
    return 0


def _calibrated(file: ScoredFile, calibration: Path) -> tuple[ScoredFile, list[str]]:
    """The file with a calibration applied, and warnings."""
    if file.predictions.au_logits is None:
        raise PredictionError(
            "holds decisions only, which cannot be calibrated",
            path=file.path,
            remedy="give a .parquet or .csv of ours, which holds logits",
        )
    table, warnings = post_process(
        file.predictions, smoothing=None, calibration=calibration, say=print
    )
    return dataclasses.replace(file, predictions=table), warnings


def _provenance(file: ScoredFile) -> tuple[Any, list[str]]:
    """What the weights have seen, and its warnings; only a table of ours can say it."""
    metadata = file.predictions.metadata
    says = "provenance" in metadata or "ensemble" in metadata
    return metadata.get("provenance"), warnings_of_predictions(metadata) if says else []


def open_predictions(path: Path, dataset: str | None, *, lenient: bool) -> ScoredFile:
    """Reads predictions, of one data set if it is named."""
    file = scored_files.read_predictions(path, lenient=lenient)
    return file if dataset is None else file.of_dataset(dataset)


def write_json(path: Path, values: dict[str, Any]) -> None:
    """Writes values as JSON; the file appears whole or not at all."""
    with replacing(path) as temporary:
        temporary.write_text(json.dumps(values, indent=2, allow_nan=False) + "\n")
