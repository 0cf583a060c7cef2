"""`run.py train`: data, training, evaluation of the best checkpoint, report."""

import argparse
import itertools
import math
import time
from collections.abc import Callable
from pathlib import Path

import jax
from clu import metric_writers, parameter_overview

from data_pipeline import input as data_input
from data_pipeline import mixture, order
from mtl_face import config as config_lib
from mtl_face.run import datasets, evaluate_run, initial_weights, processes
from mtl_face.run import provenance as lineage
from mtl_face.run import workdir as workdirs
from mtl_face.run.session import Pixels, Session, evaluate_table, pixels, say, scores_for_log
from mtl_face.training import (
    distributed,
    experiment,
    history,
    loop,
    monitoring,
    replay,
    sharding,
)
from mtl_face.training.checkpoint import Checkpoints
from mtl_face.training.guard import Guard
from mtl_face.training.state import TrainState, make_state, with_backbone
from mtl_face.training.step import make_train_step
from mtl_face.training.stop import AgreedStop, Stop, StopRequest
from mtl_face.weights import LoadedBackbone


def run(config: config_lib.Config, options: argparse.Namespace) -> int:
    """Trains, or goes on; then evaluates.

    Args:
        config: the settings.
        options: `workdir`, `profile_steps`, and the flags of `processes.joined`.

    Returns:
        Exit status: 0, or 128 + the signal that stopped the run.
    """
    traced = (
        None if options.profile_steps is None else monitoring.parse_steps(options.profile_steps)
    )
    with processes.joined(config, options):
        return _run(config, options.workdir, traced)


def _run(config: config_lib.Config, folder: Path, traced: tuple[int, int] | None) -> int:
    begin = time.perf_counter()
    workdir = processes.open_workdir(folder, config)
    backbone = initial_weights.load_early(config, workdir, say)
    distributed.first(lambda: datasets.ensure_all(config.data, say))
    train_table, rows = datasets.load_training(config.data, seed=config.seed, say=say)
    root = datasets.ensure_data(config.data, say)
    validation_table = datasets.load_split(config.data, root, "validation", say)
    steps_per_epoch = order.steps_per_epoch(rows.length, config.optimizer.batch_size)
    session = Session(config, steps_per_epoch=steps_per_epoch)
    sharding.check_batch(
        config.optimizer.batch_size,
        session.mesh,
        name="optimizer.batch_size",
        even=config.augmentation.mixup_alpha > 0,
        microbatches=config.optimizer.accumulation_steps,
    )
    validation = pixels(config, validation_table, say)

    total_steps = order.total_steps(config.optimizer.epochs, steps_per_epoch)
    with (
        StopRequest() as own_stop,
        Checkpoints(
            workdir / workdirs.CHECKPOINTS,
            keep=config.training.keep_checkpoints,
            on_save_failure=config.training.on_save_failure,  # type: ignore[arg-type]
            warn=processes.warn,
        ) as checkpoints,
    ):
        stop = own_stop if jax.process_count() == 1 else AgreedStop(own_stop, session.mesh)
        newest = checkpoints.newest()
        if newest is None or newest < total_steps:
            train = pixels(config, train_table, say, split="train")
            first_step, state = _start(session, workdir, checkpoints, newest, backbone)
            others = _other_validation_sets(config, say)
            _train(
                session,
                state,
                train,
                rows,
                validation,
                others,
                workdir,
                checkpoints,
                first_step,
                stop,
                traced,
            )
        else:
            say(f"training is complete ({newest} steps)")
        newest = checkpoints.newest()
        stopped_by = stop.conclude()
    if stopped_by is not None:
        say(
            f"stopped by {stopped_by.name} at step {newest}, saved; "
            "run the same command again to go on"
        )
        return 128 + int(stopped_by)
    evaluate_run.evaluate_workdir(session, workdir, root, validation, say)
    say(f"all done in {(time.perf_counter() - begin) / 60:.1f} minutes")
    return 0


def _start(
    session: Session,
    workdir: Path,
    checkpoints: Checkpoints,
    newest: int | None,
    backbone: LoadedBackbone | None,
) -> tuple[int, TrainState]:
    if newest is not None:
        step, state = checkpoints.restore_newest(session.state_like)
        lineage.warn(lineage.resume(session.config, workdir, checkpoints, step), say)
        say(f"going on from step {step}")
        return step, state
    config = session.config
    backbone = backbone or initial_weights.load(config, say)
    say(f"compiling on {_devices()} ...")
    state = make_state(
        session.network,
        session.optimizer,
        session.mesh,
        seed=config.seed,
        input_size=config.model.input_size,
        uncertainty=experiment.initial_uncertainty(config),
        split_rules=config.mesh.rules,
    )
    if backbone is not None:
        state = with_backbone(state, backbone.params, backbone.batch_stats)
    source = None if backbone is None else backbone.source
    lineage.warn(lineage.begin(config, workdir, checkpoints, source), say)
    checkpoints.save(0, state)
    return 0, state


def _devices() -> str:
    words = f"{jax.device_count()} {jax.default_backend()} device(s)"
    several = jax.process_count() > 1
    return f"{words} of {jax.process_count()} processes" if several else words


def _other_validation_sets(
    config: config_lib.Config, say: Callable[[str], None]
) -> dict[str, Pixels]:
    """Of a mixture, the data sets besides the evaluated one that are scored in training."""
    data = config.data
    if not data.validate_each:
        return {}
    return {
        name: pixels(
            config,
            datasets.load_split(entry, datasets.ensure_data(entry, say), "validation", say),
            say,
        )
        for name, entry in data.mixture.items()
        if name != data.validation
    }


def _train(
    session: Session,
    state: TrainState,
    train: Pixels,
    rows: order.Order,
    validation: Pixels,
    others: dict[str, Pixels],
    workdir: Path,
    checkpoints: Checkpoints,
    first_step: int,
    stop: Stop,
    traced: tuple[int, int] | None,
) -> None:
    config = session.config
    settings = config.training
    steps_per_epoch = order.steps_per_epoch(rows.length, config.optimizer.batch_size)
    say(f"parameters: {parameter_overview.count_parameters(state.params):,}")
    if distributed.is_writer():
        (workdir / "parameters.txt").write_text(
            parameter_overview.get_parameter_overview(state.params, include_stats=False) + "\n"
        )
    step = make_train_step(
        session.network,
        session.optimizer,
        session.mesh,
        session.state_shardings,
        augment=experiment.augmentation(config),
        objective=experiment.objective(config),
        loss_limit=config.training.loss_limit,
        microbatches=config.optimizer.accumulation_steps,
        wide=config.optimizer.gradient_dtype == "float32",
    )
    batches = data_input.to_devices(
        data_input.train_batches(
            train.table,
            batch_size=config.optimizer.batch_size,
            image_size=config.data.image_size,
            rows=rows,
            start_step=first_step,
            source=train.source,
            process=order.Process(jax.process_index(), jax.process_count()),
        ),
        sharding.by_example(session.mesh),
    )
    watch = monitoring.InputWatch(
        batches,
        timeout_seconds=settings.input_timeout_s,
        where=processes.this_host(),
        first_step=first_step,
    )

    def keep_evidence(taken: int, state: TrainState, batch: dict, numbers: dict[str, float]) -> str:
        row_B = order.step_indices(rows, config.optimizer.batch_size, step=taken)
        images = train.table.image[row_B].tolist()
        return replay.write(
            workdir / replay.FOLDER,
            replay.BadStep(taken, state, batch, numbers, row_B, images),
            seed=config.seed,
            policy=settings.on_bad_step,
            mesh=session.mesh,
        )

    guard = Guard(
        step,
        placement=sharding.replicated(session.mesh),
        policy=settings.on_bad_step,  # type: ignore[arg-type]
        on_bad=keep_evidence,
        say=say,
    )
    if distributed.is_writer():
        history.forget_events_after(workdir / workdirs.LOGS, first_step)
    writer = metric_writers.create_default_writer(
        str(workdir / workdirs.LOGS), just_logging=not distributed.is_writer(), asynchronous=False
    )

    def scores_on(state: TrainState, data: Pixels) -> loop.Scores:
        predictions = session.predict(state, data.table, data.source, sample_dropout=False)
        return scores_for_log(evaluate_table(predictions, data.table))

    def scores(state: TrainState) -> loop.Scores:
        result = scores_on(state, validation)
        for name, data in others.items():
            result |= {f"{name}/{key}": value for key, value in scores_on(state, data).items()}
        return result

    counter = mixture.Counter(train.table, rows, config.optimizer.batch_size)
    steps = itertools.count(first_step)
    tracer = monitoring.StepProfile(
        workdir / workdirs.PROFILE, traced if distributed.is_writer() else None, say
    )

    def counted_step(state: TrainState, batch: dict) -> tuple[TrainState, dict]:
        taken = next(steps)
        tracer.before(taken + 1)
        state, numbers = guard(state, batch)
        tracer.after(taken + 1, numbers)
        return state, numbers | counter.of_step(taken)

    warn = processes.warn if settings.on_save_failure == "continue" else None
    loop.train(
        state,
        train_step=counted_step,
        batches=watch,
        total_steps=order.total_steps(config.optimizer.epochs, steps_per_epoch),
        steps_per_epoch=float(steps_per_epoch),
        examples_per_step=config.optimizer.batch_size,
        log_every=config.training.log_every_steps,
        evaluate_every=math.ceil(config.training.evaluate_every_epochs * steps_per_epoch),
        checkpoint_every=config.training.checkpoint_every_steps,
        evaluate=scores,
        learning_rates=session.learning_rates,
        checkpoints=checkpoints,
        history=history.History(
            workdir / workdirs.HISTORY,
            after_step=first_step,
            write=distributed.is_writer(),
            warn=warn,
        ),
        write_scalars=history.scalar_writer(writer, workdir / workdirs.LOGS, warn=warn),
        say=say,
        stop=stop,
        settle=guard.settle,
        input_seconds=lambda: watch.waited_seconds,
        gauges=monitoring.memory,
    )
    tracer.close()
    writer.close()
