"""A model's official score on its validation set, with its predictions and a report."""

import dataclasses
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from data_pipeline.formats.user_files import BadRow
from mtl_face import files
from mtl_face.config import Config
from mtl_face.errors import ConfigError
from mtl_face.evaluation import prediction_files, scoring
from mtl_face.evaluation.bootstrap import NUM_RESAMPLES
from mtl_face.evaluation.scoring import summary
from mtl_face.inference.predictor import Predictor
from mtl_face.report import Report, write_report
from mtl_face.run import Say, datasets, models, named_data, provenance, show
from mtl_face.run import rows as row_hashes
from mtl_face.run import workdir as workdirs
from mtl_face.run.inputs.over_time import find_inputs
from mtl_face.run.inputs.pixels import Pixels
from mtl_face.run.postprocess import RAW, SCORED, PostProcessing
from mtl_face.run.predict import predict_table
from mtl_face.tables import TRAINING
from mtl_face.tasks import TASKS
from mtl_face.training import history as histories
from mtl_face.training.processes import distributed
from mtl_face.weights.provenance import warnings_of_training

_RENDERED_NOTICE = (
    "The faces are rendered, not photographed. These numbers show that the system works from end "
    "to end; they are no evidence of accuracy on people."
)


def evaluate(
    model: str | Path | Predictor,
    config: Config | None = None,
    *,
    split: str = datasets.VALIDATION,
    data: str | Path | None = None,
    output: str | Path | None = None,
    say: Say = show,
) -> dict[str, Any]:
    """Scores a model on the validation set that the settings name, or on other rows.

    Args:
        model: a run, an export, or what `mtl_face.load` returned.
        config: the settings; None for the model's own.
        split: the rows to score: `validation` or `train`.
        data: another data set than that of the settings: a folder of one of the kinds of
            docs/data_formats.md, a file of annotations or a manifest, or the name of a data set of
            the run's mixture. The settings of `config.data` say how it is read.
        output: folder for metrics.json, predictions.parquet, predictions.csv and report.html;
            None: for a run WORKDIR/evaluation, for another split or data set a folder beside it
            that is named for it; nothing is written for another model.
        say: called with each line for the user.

    Returns:
        What metrics.json holds (docs/evaluation.md).

    Raises:
        UserError: the model or the data cannot be read, no row has a label, or the results cannot
            be written.
    """
    if split not in datasets.SPLITS:
        raise ConfigError(f"there is no split {split!r}", remedy="name validation or train")
    if data is not None and split == datasets.TRAIN and Path(data).expanduser().is_file():
        raise ConfigError(
            f"data names one file, {data}, all of whose rows are scored: it has no split {split}",
            remedy="leave split (--split) out, or name the folder of the data set",
        )
    history: Sequence[Mapping[str, Any]] = []
    run: Path | None = None
    if isinstance(model, Predictor):
        config = config or model.config
    else:
        path = Path(model).expanduser()
        own = workdirs.own_config(path)
        config = config or own
        if models.is_run(path):
            run, history = path, histories.read(path / workdirs.HISTORY)
    # Whatever can fail at once does so before the data are made or read, which can take long.
    steps = PostProcessing.of_settings(config)
    scored = config
    if data is not None:
        scored = dataclasses.replace(config, data=named_data.another(config.data, data))
        if not isinstance(model, Predictor):  # how the other rows are read is not the model's
            config = dataclasses.replace(config, data=own.data)
    place = output or (run and run / workdirs.evaluation_folder(split, data))
    folder = None if place is None else files.require_writable(place)
    if not isinstance(model, Predictor):
        model = models.open_model(model, config, say)
    steps = steps.with_own(model)
    bad: list[BadRow] = []
    table = datasets.load_split(scored.data, split, say, bad.extend)
    datasets.require_labels(table, scored.data, split, lambda line: None)
    cautions: tuple[str, ...] = ()
    if run is not None and data is None and (changed := row_hashes.changes(run, table, split)):
        cautions = (f"these are other {split} rows than those of its training: {changed}",)
        say(f"warning: {cautions[0]}")
        if output is None and not named_data.same_place(scored.data, own.data):
            name = named_data.about(scored.data, split).name
            folder = files.require_writable(run / workdirs.evaluation_folder(split, name))
    rows = find_inputs(scored, table, say, split=split, predictor=model)
    about = dataclasses.replace(named_data.about(scored.data, split), cautions=cautions)
    result = evaluate_predictor(model, rows, folder, steps, about=about, history=history, say=say)
    if folder is not None and distributed.is_writer():
        datasets.write_bad_rows(folder, bad)
    return result


def compare(
    result: Mapping[str, Any],
    against: str | Path,
    config: Config,
    *,
    split: str = datasets.VALIDATION,
    data: str | Path | None = None,
    say: Say = show,
) -> dict[str, float]:
    """Scores another model on the rows of an evaluation, and says what the first one loses by it.

    Args:
        result: what `evaluate` returned of a model.
        against: the other model, as the float32 network that a smaller file was made of.
        config: the settings of the evaluation: those of the data and of what is made of
            predictions are the other's too.
        split: as of `evaluate`.
        data: as of `evaluate`.
        say: called with each line for the user.

    Returns:
        The score of the first less that of the other, for `p` and each task that has both.

    Raises:
        UserError: as `evaluate`.
    """
    other = models.load(against)
    samples = other.config.evaluation.mc_dropout_samples
    own = dataclasses.replace(
        other.config,
        data=dataclasses.replace(config.data, image_size=other.crop_size),
        evaluation=dataclasses.replace(config.evaluation, mc_dropout_samples=samples),
    )
    said: list[str] = []
    others = evaluate(other, own, split=split, data=data, say=said.append)
    if not distributed.is_writer():
        return {}
    mine, scores = scores_for_log(result), scores_for_log(others)
    names = [name for name in ("p", *TASKS) if name in mine.keys() & scores.keys()]
    losses = {name: mine[name] - scores[name] for name in names}
    for name, loss in losses.items():
        say(f"{name}: {mine[name]:.4f}, {scores[name]:.4f} of {against}: {loss:+.4f}")
    return losses


def evaluate_predictor(
    predictor: Predictor,
    rows: Pixels,
    folder: Path | None,
    steps: PostProcessing,
    *,
    about: named_data.About,
    history: Sequence[Mapping[str, Any]] = (),
    say: Say,
) -> dict[str, Any]:
    """Scores a predictor, and writes the numbers, the predictions and a report.

    Files go into `folder`; None writes nothing. `about` says what the rows are called; `history`
    holds the learning curves.

    Returns:
        What metrics.json holds; nothing in a process that writes none.

    Raises:
        WorkdirError: the results cannot be written.
    """
    config = predictor.config
    say("evaluating ...")
    raw = predict_table(predictor, rows)
    if not distributed.is_writer():
        return {}
    predictions, cautions = steps.apply(raw, say)
    result = scoring.score(
        rows.table,
        predictions,
        num_resamples=NUM_RESAMPLES,
        before_calibration=None if steps.calibration is None else raw,
    )
    for key in ("probability", "smoothing", "calibration"):
        result[key] = predictions.metadata[key]
    recorded = predictor.origin.get("provenance")
    result["data"] = {"name": about.name, "rows": about.rows}
    result["checkpoint_step"] = predictor.step
    training = predictor.origin.get(TRAINING)
    result["selection"] = (training or {}).get("selection")
    result["provenance"] = recorded
    said = warnings_of_training(training)  # by who opened the model
    warned = provenance.warn(recorded, say)
    result["warnings"] = [*about.cautions, *warned, *cautions, *said]
    if folder is not None:
        say("writing the report ...")
        files.write_json(folder / "metrics.json", result)
        (folder / RAW).unlink(missing_ok=True)  # one of an earlier evaluation would pass for these
        written = {SCORED: predictions, "predictions.csv": predictions}
        if predictions is not raw:
            written[RAW] = raw
        for name, table in written.items():
            prediction_files.write(table, folder / name)
        report = Report(
            title=f"{about.name}, {about.rows}",
            metrics=result,
            predictions=predictions,
            truth=rows.table,
            raw=raw if predictions is not raw else None,
            history=history,
            images=rows.picture,
            attention=predictor.cross_attention if predictor.shows_attention else None,
            config=predictions.metadata["config"],
            notice=_RENDERED_NOTICE if about.rendered else None,
            warnings=result["warnings"],
            gallery_size=config.evaluation.gallery_size,
        )
        write_report(folder / "report.html", report)
    for line in summary(result):
        say(line)
    if folder is not None:
        say(f"results: {folder}{os.sep}  (open report.html; metrics.json, predictions.parquet)")
    return result


def scores_for_log(result: Mapping[str, Any]) -> dict[str, float]:
    """The numbers of a metrics result that the learning curves show.

    `score` is what the best checkpoint is chosen by: P, or the sum of the tasks that have labels.
    Besides, `p`, `va`, `au` and `expr` where they exist.
    """
    tasks = {task: result[task]["score"] for task in TASKS if result[task]["score"] is not None}
    total = {"p": result["p"]} if result["p"] is not None else {}
    return {"score": float(sum(tasks.values())), **total, **tasks}
