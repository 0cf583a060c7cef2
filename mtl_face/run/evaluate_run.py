"""Evaluates a run's checkpoint: its official score, its predictions, a report."""

import argparse
import dataclasses
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax

from mtl_face import config as config_lib
from mtl_face.errors import WorkdirError
from mtl_face.evaluation import prediction_files
from mtl_face.evaluation.bootstrap import NUM_RESAMPLES
from mtl_face.evaluation.scoring import summary
from mtl_face.report import write_report
from mtl_face.run import datasets, reports
from mtl_face.run import provenance as lineage
from mtl_face.run import workdir as workdirs
from mtl_face.run.postprocess import RAW, post_process, smoothing_of_settings
from mtl_face.run.score_file import write_json
from mtl_face.run.session import Pixels, Session, evaluate_table, pixels, say
from mtl_face.training import distributed, sharding
from mtl_face.training import history as histories
from mtl_face.training.checkpoint import Checkpoints
from mtl_face.training.state import TrainState
from mtl_face.weights.exported import weights_sha256


def run(config: config_lib.Config, options: argparse.Namespace) -> int:
    """Evaluates the checkpoint that the config asks for.

    Args:
        config: the settings of the run; those of `evaluation` may differ from training.
        options: `workdir`.

    Returns:
        Exit status 0.
    """
    workdir = workdirs.open_for_reading(options.workdir, config)
    root = datasets.ensure_data(config.data, say)
    table = datasets.load_split(config.data, root, "validation", say)
    session = Session(config)
    evaluate_workdir(session, workdir, root, pixels(config, table, say), say)
    return 0


def evaluate_workdir(
    session: Session,
    workdir: Path,
    root: Path,
    validation: Pixels,
    say: Callable[[str], None],
) -> dict[str, Any]:
    """Scores a checkpoint and writes `evaluation/` below the workdir.

    Args:
        session: the run's parts.
        workdir: the run's folder.
        root: the data set's folder.
        validation: the validation set.
        say: prints a line.

    Returns:
        What metrics.json holds.

    Raises:
        WorkdirError: if there is no checkpoint, or the results cannot be written.
    """
    config = session.config
    step, state = restore(session, workdir)
    say(f"evaluating the {config.evaluation.checkpoint} checkpoint, step {step} ...")
    metrics = evaluate_state(
        session,
        state,
        validation,
        workdirs.make_folder(workdir / workdirs.EVALUATION),
        provenance=lineage.of_checkpoint(config, workdir, step),
        history=histories.read(workdir / workdirs.HISTORY),
        say=say,
    )
    say("next: python run.py export --config=... --workdir=... writes the parameters alone")
    return metrics


def evaluate_state(
    session: Session,
    state: TrainState,
    validation: Pixels,
    folder: Path,
    *,
    provenance: dict[str, Any] | None,
    history: Sequence[Mapping[str, Any]],
    say: Callable[[str], None],
) -> dict[str, Any]:
    """Scores a state, and writes the numbers, the predictions and a report.

    Args:
        session: the run's parts.
        state: its network's parameters and statistics, its temperatures and its step are used.
        validation: the validation set.
        folder: where the files go; it exists.
        provenance: of the weights, None if they record none.
        history: learning curves, empty if unknown.
        say: prints a line.

    Returns:
        What metrics.json holds; nothing in a process that writes none.

    Raises:
        WorkdirError: if the results cannot be written.
    """
    config = session.config
    table = validation.table
    predictions = session.predict(state, table, validation.source)
    variables = sharding.whole(
        {"params": state.params["network"], "batch_stats": state.batch_stats}, session.mesh
    )
    if not distributed.is_writer():
        return {}
    predictions = dataclasses.replace(
        predictions,
        metadata={
            **predictions.metadata,
            "weights_sha256": weights_sha256(variables),
            "provenance": provenance,
        },
    )
    raw = predictions
    predictions, cautions = post_process(
        raw,
        smoothing=smoothing_of_settings(config.evaluation.smoothing),
        calibration=config.evaluation.calibration,
        say=say,
    )
    metrics = evaluate_table(
        predictions,
        table,
        num_resamples=NUM_RESAMPLES,
        before_calibration=None if config.evaluation.calibration is None else raw,
    )
    for key in ("probability", "smoothing", "calibration"):
        metrics[key] = predictions.metadata[key]
    metrics["checkpoint_step"] = int(jax.device_get(state.step))
    metrics["provenance"] = provenance
    metrics["warnings"] = lineage.warn(provenance, say) + cautions
    for line in cautions:
        say(f"warning: {line}")
    if jax.process_index() == 0:
        say("writing the report ...")
        write_json(folder / "metrics.json", metrics)
        prediction_files.write(predictions, folder / "predictions.parquet")
        prediction_files.write_csv(predictions, folder / "predictions.csv")
        if predictions is not raw:
            prediction_files.write(raw, folder / RAW)
        else:  # one of an earlier evaluation would be taken for these
            (folder / RAW).unlink(missing_ok=True)

        report = reports.of_run(
            session,
            variables,
            validation,
            predictions=predictions,
            raw=raw,
            metrics=metrics,
            history=history,
        )
        write_report(folder / "report.html", report)
        for line in summary(metrics):
            say(line)
        say(f"results: {folder}{os.sep}  (open report.html; metrics.json, predictions.parquet)")
    return metrics


def restore(session: Session, workdir: Path) -> tuple[int, Any]:
    """Reads the checkpoint that the config asks for.

    Returns:
        (step, state).

    Raises:
        WorkdirError: if there is none.
    """
    folder = workdir / workdirs.CHECKPOINTS
    problem = WorkdirError(
        "has no evaluated checkpoint yet",
        path=folder,
        remedy="train first: python run.py train with the same --config and --workdir",
    )
    if not folder.is_dir():
        raise problem
    with Checkpoints(folder, keep=1, read_only=True) as checkpoints:
        best = session.config.evaluation.checkpoint == "best"
        step = checkpoints.best() if best else checkpoints.newest()
        if step is None:
            raise problem
        return step, checkpoints.restore(step, session.state_like)
