"""A model's official score on its validation set, with its predictions and a report."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mtl_face import files
from mtl_face.config import Config
from mtl_face.evaluation import prediction_files, scoring
from mtl_face.evaluation.bootstrap import NUM_RESAMPLES
from mtl_face.evaluation.scoring import summary
from mtl_face.inference.predictor import Predictor
from mtl_face.report import write_report
from mtl_face.run import Say, datasets, models, postprocess, provenance, reports
from mtl_face.run import workdir as workdirs
from mtl_face.run.predict import Pixels, find_pixels, predict_table
from mtl_face.tasks import TASKS
from mtl_face.training import distributed
from mtl_face.training import history as histories


def evaluate(
    model: str | Path | Predictor,
    config: Config | None = None,
    *,
    output: str | Path | None = None,
    say: Say = print,
) -> dict[str, Any]:
    """Scores a model on the validation set that the settings name.

    Args:
        model: a run, an export, or what `mtl_face.load` returned.
        config: the settings; None for the model's own.
        output: folder for metrics.json, predictions.parquet, predictions.csv and report.html;
            None: WORKDIR/evaluation for a run, and nothing is written for another model.
        say: prints a line.

    Returns:
        What metrics.json holds (docs/evaluation.md).

    Raises:
        UserError: the model or the data cannot be read, or the results not be written.
    """
    history: Sequence[Mapping[str, Any]] = []
    if isinstance(model, Predictor):
        config = config or model.config
    else:
        own = models.own_config(model)  # before the data is read, which can take long
        config = config or own
        if models.is_run(Path(model)):
            workdir = workdirs.open_for_reading(Path(model), config)
            history = histories.read(workdir / workdirs.HISTORY)
            output = output or workdir / workdirs.EVALUATION
    validation = load_validation(config, say)
    if not isinstance(model, Predictor):
        model = models.open_model(model, config, say)
    folder = None if output is None else files.make_folder(Path(output).expanduser().resolve())
    return evaluate_predictor(model, validation, folder, history=history, say=say)


def load_validation(config: Config, say: Say) -> Pixels:
    """The validation set that the settings name; renders the embedded one first if absent."""
    table = datasets.load_split(config.data, "validation", say)
    return find_pixels(config, table, say)


def evaluate_predictor(
    predictor: Predictor,
    validation: Pixels,
    folder: Path | None,
    *,
    history: Sequence[Mapping[str, Any]] = (),
    say: Say,
) -> dict[str, Any]:
    """Scores a predictor, and writes the numbers, the predictions and a report.

    Files go into `folder`, which exists; None writes nothing. `history` holds the learning curves.

    Returns:
        What metrics.json holds; nothing in a process that writes none.

    Raises:
        WorkdirError: the results cannot be written.
    """
    config = predictor.config
    say("evaluating ...")
    raw = predict_table(predictor, validation)
    if not distributed.is_writer():
        return {}
    predictions, cautions = postprocess.post_process(
        raw,
        smoothing=postprocess.smoothing_of_settings(config.evaluation.smoothing),
        calibration=config.evaluation.calibration,
        say=say,
    )
    result = scoring.score(
        validation.table,
        predictions,
        num_resamples=NUM_RESAMPLES,
        before_calibration=None if config.evaluation.calibration is None else raw,
    )
    for key in ("probability", "smoothing", "calibration"):
        result[key] = predictions.metadata[key]
    recorded = predictor.origin.get("provenance")
    result["checkpoint_step"] = predictor.step
    result["provenance"] = recorded
    result["warnings"] = provenance.warn(recorded, say) + cautions
    for line in cautions:
        say(f"warning: {line}")
    if folder is not None:
        say("writing the report ...")
        files.write_json(folder / "metrics.json", result)
        prediction_files.write(predictions, folder / "predictions.parquet")
        prediction_files.write_csv(predictions, folder / "predictions.csv")
        if predictions is not raw:
            prediction_files.write(raw, folder / postprocess.RAW)
        else:  # one of an earlier evaluation would be taken for these
            (folder / postprocess.RAW).unlink(missing_ok=True)
        report = reports.of_model(
            predictor,
            validation,
            predictions=predictions,
            raw=raw,
            metrics=result,
            history=history,
        )
        write_report(folder / "report.html", report)
    for line in summary(result):
        say(line)
    if folder is not None:
        say(f"results: {folder}{os.sep}  (open report.html; metrics.json, predictions.parquet)")
    return result


def scores_for_log(result: Mapping[str, Any]) -> dict[str, float]:
    """The numbers of a metrics result that the learning curves show.

    Returns:
        `score` (what the best checkpoint is chosen by: P, or the sum of the tasks that have
        labels), and `p`, `va`, `au`, `expr` where they exist.
    """
    tasks = {task: result[task]["score"] for task in TASKS if result[task]["score"] is not None}
    total = {"p": result["p"]} if result["p"] is not None else {}
    return {"score": float(sum(tasks.values())), **total, **tasks}
