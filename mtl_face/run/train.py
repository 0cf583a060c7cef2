"""Data, training, evaluation of the best checkpoint, report."""

import dataclasses
import signal
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np

from data_pipeline import input as data_input
from data_pipeline import mixture, order
from data_pipeline.formats.user_files import BadRow
from mtl_face import config as config_lib
from mtl_face.config import Config
from mtl_face.errors import ConfigError, WeightsError
from mtl_face.evaluation import scoring
from mtl_face.inference.predictor import Forward, Predictor
from mtl_face.objective.class_weights import ClassCounts
from mtl_face.run import Say, datasets, models, named_data, processes, provenance, show
from mtl_face.run import workdir as workdirs
from mtl_face.run.evaluate import evaluate_predictor, scores_for_log
from mtl_face.run.inputs import over_time
from mtl_face.run.inputs.over_time import find_inputs
from mtl_face.run.inputs.pixels import Pixels
from mtl_face.run.postprocess import PostProcessing
from mtl_face.run.predict import predict_table
from mtl_face.run.rows import Rows
from mtl_face.tables import CLASS_COUNTS, TRAINING, FrameTable, label_counts
from mtl_face.tasks import AU_NAMES, TASKS
from mtl_face.training import average, metadata, sharding
from mtl_face.training import history as histories
from mtl_face.training import optimizer as optimizers
from mtl_face.training.checkpoint import Checkpoints
from mtl_face.training.experiment import Experiment, counts_classes
from mtl_face.training.processes import distributed
from mtl_face.training.state import TrainState, with_backbone, with_network
from mtl_face.training.stop import AgreedStop, StopRequest
from mtl_face.training.trainer import Trainer, TrainingData
from mtl_face.weights import load_backbone
from mtl_face.weights.backbone import check_settings, describe, fitted
from mtl_face.weights.card import model_differences


@dataclasses.dataclass(frozen=True)
class TrainingResult:
    """How a training ended.

    Attributes:
        workdir: absolute.
        step: steps of the newest checkpoint.
        metrics: what evaluation/metrics.json holds; empty for a run that was stopped, and in a
            process that writes no files.
    """

    workdir: Path
    step: int
    metrics: dict[str, Any]
    stopped_by: signal.Signals | None = None


def train(
    config: Config,
    workdir: str | Path,
    *,
    profile_steps: tuple[int, int] | None = None,
    accept_changed_data: bool = False,
    lap: Callable[[str], None] = lambda part: None,
    say: Say = show,
) -> TrainingResult:
    """Trains, or goes on where an earlier call stopped; then evaluates the best checkpoint.

    Two settings act before JAX starts, and so on the command line alone: `training.xla_preset` and
    `training.compilation_cache`. From Python, set XLA_FLAGS and JAX_COMPILATION_CACHE_DIR.

    Args:
        config: the settings.
        workdir: the run's folder; everything is written there.
        profile_steps: number of the first step to trace, from 1, and of steps.
        accept_changed_data: go on although rows came, went or have other labels since the newest
            checkpoint; otherwise an error.
        lap: called when a part of the start ends, with its name: "data", "network", and those of
            `training.loop`, the last of which is `FIRST_STEP`.
        say: called in process 0 with each line for the user.

    Raises:
        UserError: data, weights or settings are at fault, another training is under way in the
            workdir, the disk refuses a write, or the training diverged.
    """
    if not isinstance(config, Config):
        raise ConfigError(
            f"train was given settings of type {type(config).__name__}",
            remedy='give those of mtl_face.load_config("NAME or FILE")',
        )
    begin = time.perf_counter()
    say = distributed.in_first_process(say)
    with processes.own_workdir(Path(workdir), say) as require_workdir:
        folder = processes.open_workdir(Path(workdir), config, say)
        with processes.unless_refused(folder):
            # Whatever can fail at once does so before data are made or read, which can take long.
            steps = PostProcessing.of_settings(config)
            weights = None if workdirs.has_checkpoint(folder) else initial_weights(config, say)
            if config.optimizer.lora.rank or config.optimizer.trains:
                Experiment(config).check_rules()
            distributed.first(lambda: datasets.ensure_all(config.data, say))
            bad: list[BadRow] = []
            train_table, rows = datasets.load_training(
                config.data, seed=config.seed, say=say, keep=bad.extend
            )
            validation_table = datasets.load_split(config.data, "validation", say, bad.extend)
            if config.loss.va.spread:
                datasets.require_raters(train_table)
            if distributed.is_writer():
                datasets.write_bad_rows(folder, bad)
            datasets.require_labels(validation_table, config.data, "validation", say)
            datasets.say_shared(train_table, validation_table, say)
            read = Rows.of({"train": train_table, "validation": validation_table})
            read.require_same_everywhere()
            read.require_as_before(folder, accepted=accept_changed_data, say=say)
            labels = labels_seen(train_table, rows, config.optimizer.epochs)
            examples, things = rows, "rows"
            if config.is_over_time:
                count = len(over_time.windows_of(config, train_table))
                examples, things = order.Permutations(count, config.seed), "windows of frames"
            steps_per_epoch = order.steps_per_epoch(
                examples.length, config.optimizer.batch_size, things=things
            )
            lap("data")
            counts = class_counts(config, folder, train_table, rows)
            experiment = Experiment(config, steps_per_epoch=steps_per_epoch, class_counts=counts)
            experiment.check_batch(config.optimizer.batch_size, name="optimizer.batch_size")
            sharding.check_batch(
                config.evaluation.batch_size, experiment.mesh, name="evaluation.batch_size"
            )
            lap("network")
            validation = find_inputs(config, validation_table, say)
        with (
            StopRequest(require_workdir) as own_stop,
            Checkpoints(
                folder / workdirs.CHECKPOINTS,
                keep=config.training.keep_checkpoints,
                on_save_failure=config.training.on_save_failure,  # type: ignore[arg-type]
                warn=distributed.warn,
            ) as checkpoints,
        ):
            checkpoints.metadata |= {metadata.SETTINGS: config_lib.to_dict(config), **read.metadata}
            read.write(folder)
            stop = own_stop if jax.process_count() == 1 else AgreedStop(own_stop, experiment.mesh)
            newest = checkpoints.newest()
            total = order.total_steps(config.optimizer.epochs, steps_per_epoch)
            if newest == total:  # if it is damaged, it is set aside here, and there is more to do
                newest, _ = checkpoints.restore_newest(experiment.state_like)
            if newest is None or newest < total:
                trainer = Trainer(
                    experiment,
                    _training_data(experiment, train_table, examples, say),
                    folder,
                    checkpoints,
                    evaluate=_scorer(experiment, validation, labels, say),
                    stop=stop,
                    say=say,
                    lap=lap,
                )
                lap("data")
                if newest is not None:
                    _lengthen(folder, experiment, newest, say)
                state = _start(trainer, newest, weights, _record(labels, counts))
                lap("network")
                trainer.train(state, profile_steps=profile_steps)
            else:
                say(f"training is complete ({newest} steps)")
            newest = checkpoints.newest()
            stopped_by = stop.conclude()
        assert newest is not None  # the state at step 0 is saved before the first step
        if stopped_by is not None:
            say(
                f"stopped by {stopped_by.name} at step {newest}, saved; "
                "run the same command again to go on"
            )
            return TrainingResult(folder, newest, {}, stopped_by)
        result = evaluate_predictor(
            models.open_run(folder, config, say, experiment=experiment),
            validation,
            folder / workdirs.EVALUATION,
            steps,
            about=named_data.about(config.data, datasets.VALIDATION),
            history=histories.read(folder / workdirs.HISTORY),
            say=say,
        )
        say(f"next: python run.py export --model={folder} writes the parameters alone")
        say(f"all done in {(time.perf_counter() - begin) / 60:.1f} minutes")
        return TrainingResult(folder, newest, result)


@dataclasses.dataclass(frozen=True)
class InitialWeights:
    """What a run starts from: arrays of a whole network, or of its backbone.

    A network over time starts from random weights and another one's answers: it has no arrays.
    `source` is as `weights.provenance.record` takes it.
    """

    params: Any
    batch_stats: Any
    source: Mapping[str, Any]
    whole: bool


def _start(
    trainer: Trainer,
    newest: int | None,
    weights: InitialWeights | None,
    training: dict[str, Any],
) -> TrainState:
    """The state to go on from, or a fresh one, which is saved.

    `training`, see `_record`, goes into the metadata; labels of tasks that the run saw labels of
    before are added.
    """
    labels = training["labels"]
    experiment, checkpoints, say = trainer.experiment, trainer.checkpoints, trainer.say
    config = experiment.config
    if newest is not None:
        step, state = checkpoints.restore_newest(experiment.state_like)
        recorded = provenance.resume(config, trainer.workdir, checkpoints, step)
        if config.is_over_time:
            models.require_read(recorded, models.frame_model(config), config.temporal.frame_model)
        provenance.warn(recorded, say)
        earlier = label_counts(checkpoints.read_metadata(step).get(TRAINING))
        labels.update({t: earlier[t] for t in TASKS if not labels[t] and earlier.get(t)})
        checkpoints.metadata[TRAINING] = training
        say(f"going on from step {step}")
        return state
    weights = weights or initial_weights(config, say)
    several = f" of {jax.process_count()} processes" if jax.process_count() > 1 else ""
    say(f"compiling on {jax.device_count()} {jax.default_backend()} device(s){several} ...")
    state = experiment.make_state()
    if weights is not None and weights.params is not None:
        put = with_network if weights.whole else with_backbone
        state = average.restarted(put(state, weights.params, weights.batch_stats))
    source = None if weights is None else weights.source
    provenance.warn(provenance.begin(config, trainer.workdir, checkpoints, source), say)
    checkpoints.metadata[TRAINING] = training
    checkpoints.save(0, state)
    return state


def _lengthen(folder: Path, experiment: Experiment, step: int, say: Say) -> None:
    """Writes down and says that a run goes on past its end, with what its learning rates do."""
    config = experiment.config
    before = distributed.first(lambda: workdirs.lengthen(folder, config))
    if before is None:
        return
    say(f"optimizer.epochs was {before} and is {config.optimizer.epochs}")
    earlier = dataclasses.replace(config.optimizer, epochs=before)
    rates = optimizers.learning_rates(earlier, experiment.steps_per_epoch)
    for group, schedule in experiment.learning_rates.items():
        old, new = float(rates[group](step)), float(schedule(step))
        if old != new:
            say(
                f"note: the learning rate of {group} goes on at {new:.3g}, and not at {old:.3g}: "
                f"its cosine now ends with epoch {config.optimizer.epochs}"
            )


def initial_weights(config: Config, say: Say) -> InitialWeights | None:
    """Reads `training.init_from` or `model.backbone.init_from`; None if neither is set.

    Raises:
        WeightsError: the file does not fit.
        WorkdirError: there is no such model.
    """
    if config.is_over_time:
        return _network_of_frames(config)
    if config.training.init_from is not None:
        return _whole_network(config, config.training.init_from, say)
    settings = config.model.backbone
    if settings.init_from is None:
        return None
    backbone = load_backbone(
        settings.init_from,
        variant=settings.variant,
        channel_order=None if settings.init_channels == "auto" else settings.init_channels,  # type: ignore[arg-type]
        prefix=settings.init_prefix,
        end=settings.end if settings.kind == "mobilenet" else None,
    )
    check_settings(backbone, config.model, settings.init_from)
    backbone = fitted(backbone, config.model)
    for line in describe(backbone, settings.init_from):
        say(line)
    return InitialWeights(backbone.params, backbone.batch_stats, backbone.source, whole=False)


def _network_of_frames(config: Config) -> InitialWeights:
    """What a network over time starts from; UserError if it cannot be read."""
    for name, path in (
        ("training.init_from", config.training.init_from),
        ("model.backbone.init_from", config.model.backbone.init_from),
    ):
        if path is not None:
            raise ConfigError(
                f"{name} is set, and temporal.kind is {config.temporal.kind}",
                remedy=f"leave {name} out: temporal.frame_model names what it starts from",
            )
    model = models.frame_model(config)
    assert config.temporal.frame_model is not None
    source = over_time.source(model, config.temporal.frame_model)
    return InitialWeights(None, None, source, whole=False)


def _whole_network(config: Config, path: str, say: Say) -> InitialWeights:
    model = models.load(path)
    if model.config.is_over_time:
        raise WeightsError(
            "is a network over time, and the settings describe one of frames",
            path=path,
            remedy="name a network of frames, or leave training.init_from out",
        )
    expected, new = config.model, ""
    if not model.config.model.predicts_variance and expected.va_variance == "from_features":
        # A head beside the others, which do without it.
        expected = dataclasses.replace(expected, va_variance="shared")
        new = ", with a new head_va_variance"
    found = model_differences({"config": config_lib.to_dict(model.config)}, expected)
    if found:
        raise WeightsError(
            "is another network than that of the settings: "
            + "; ".join(line.replace("in the export", "there") for line in found),
            path=path,
            remedy="set these as the model has them, or train from random weights: "
            "training.init_from=None",
        )
    variables = jax.device_get(model.variables)
    say(f"starting from the weights of {path}{new}")
    return InitialWeights(
        variables["params"],
        variables["batch_stats"],
        {
            "file": Path(path).name,
            "sha256": model.origin["weights_sha256"],
            "format": "a whole network of mtl_face",
            "provenance": model.origin.get("provenance"),
        },
        whole=True,
    )


def _training_data(
    experiment: Experiment, table: FrameTable, rows: order.Order, say: Say
) -> TrainingData:
    config = experiment.config
    batch_size = config.optimizer.batch_size
    data = find_inputs(config, table, say, split="train")
    if isinstance(data, over_time.Windowed):
        more, row = {}, data.windows.row_MW[:, 0]
    else:
        more = {"numbers": mixture.Counter(table, rows, batch_size).of_step}
        row = np.arange(len(table))
    steps_per_epoch = order.steps_per_epoch(rows.length, batch_size)
    return TrainingData(
        steps_per_epoch=steps_per_epoch,
        total_steps=order.total_steps(config.optimizer.epochs, steps_per_epoch),
        batches=lambda taken: data_input.to_devices(
            data.train_batches(
                rows,
                batch_size,
                start_step=taken,
                process=order.Process(jax.process_index(), jax.process_count()),
            ),
            sharding.by_example(experiment.mesh),
        ),
        rows=lambda taken: row[order.step_indices(rows, batch_size, step=taken)],
        image=table.image,
        **more,
    )


def labels_seen(table: FrameTable, rows: order.Order, epochs: int) -> dict[str, Any]:
    """Labels that an epoch of training holds: by task, and under `per_au` by action unit.

    Where what an epoch draws has none of a task, those of later epochs count.
    """
    masks = table.labelled()
    counts = dict.fromkeys(masks, 0)
    for number in range(epochs):
        drawn = rows.epoch(number)
        counts |= {task: int(mask[drawn].sum()) for task, mask in masks.items() if not counts[task]}
        if all(counts[task] or not mask.any() for task, mask in masks.items()):
            break
    units = (~np.isnan(table.au)).sum(axis=0).tolist()
    return {**counts, "per_au": dict(zip(AU_NAMES, units, strict=True))}


def class_counts(
    config: Config, workdir: Path, table: FrameTable, rows: order.Order
) -> ClassCounts | None:
    """How often the first epoch shows each class, as the run recorded it if it has begun.

    So sampling and a mixture's shares count. None where the loss weighs no classes.
    """
    if not counts_classes(config):
        return None
    return recorded_counts(workdir) or ClassCounts.of(table, rows.epoch(0))


def recorded_counts(workdir: Path) -> ClassCounts | None:
    """The counts of classes that a run's newest checkpoint holds; None without any."""
    training = metadata.newest(workdir / workdirs.CHECKPOINTS, TRAINING)
    return ClassCounts.from_metadata((training or {}).get(CLASS_COUNTS))


def _record(labels: dict[str, Any], counts: ClassCounts | None) -> dict[str, Any]:
    """What a checkpoint holds under `TRAINING`."""
    if counts is None:
        return {"labels": labels}
    return {"labels": labels, CLASS_COUNTS: dataclasses.asdict(counts)}


def _scorer(
    experiment: Experiment, validation: Pixels, labels: Mapping[str, Any], say: Say
) -> Callable[[TrainState], dict[str, float]]:
    """Scores of a state on the validation set, and on the others of a mixture by their names."""
    forward = Forward(experiment.config, mesh=experiment.mesh)
    mixed = experiment.config.data
    others = {}
    for name, entry in mixed.mixture.items() if mixed.validate_each else ():
        if name != mixed.validation:
            with datasets.naming(f"data.mixture.{name}"):
                table = datasets.load_split(entry, "validation", say)
            others[name] = find_inputs(experiment.config, table, say)

    def scores_on(state: TrainState, data: Pixels) -> dict[str, float]:
        predictor = Predictor(
            forward=forward,
            variables=experiment.variables(state),
            temperatures=experiment.temperatures(state),
            step=int(jax.device_get(state.step)),
            origin={TRAINING: {"labels": labels}},
        )
        predictions = predict_table(predictor, data, sample_dropout=False)
        return scores_for_log(scoring.score(data.table, predictions))

    def scores(state: TrainState) -> dict[str, float]:
        result = scores_on(state, validation)
        for name, data in others.items():
            result |= {f"{name}/{key}": value for key, value in scores_on(state, data).items()}
        return result

    return scores
