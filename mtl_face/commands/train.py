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
from mtl_face.commands import build, evaluate_run, initial_weights, lineage, tables
from mtl_face.commands import workdir as workdirs
from mtl_face.commands.session import (
    Pixels,
    Session,
    evaluate_table,
    pixels,
    say,
    scores_for_log,
)
from mtl_face.training import loop, sharding
from mtl_face.training.checkpoint import Checkpoints
from mtl_face.training.history import History
from mtl_face.training.state import TrainState, make_state
from mtl_face.training.step import make_train_step
from mtl_face.training.stop import StopRequest
from mtl_face.weights import LoadedBackbone


def run(config: config_lib.Config, options: argparse.Namespace) -> int:
    """Trains, or goes on; then evaluates.

    Args:
        config: the settings.
        options: `workdir`.

    Returns:
        Exit status: 0, or 128 + the signal that stopped the run.
    """
    begin = time.perf_counter()
    workdir = workdirs.open_for_training(options.workdir, config)
    backbone = initial_weights.load_early(config, workdir, say)
    train_table, rows = tables.load_training(config.data, seed=config.seed, say=say)
    root = tables.ensure_data(config.data, say)
    validation_table = tables.load_split(config.data, root, "validation", say)
    steps_per_epoch = order.steps_per_epoch(rows.length, config.optimizer.batch_size)
    session = Session(config, steps_per_epoch=steps_per_epoch)
    sharding.check_batch(
        config.optimizer.batch_size,
        session.mesh,
        name="optimizer.batch_size",
        even=config.augmentation.mixup_alpha > 0,
    )
    validation = pixels(config, validation_table, say)

    total_steps = order.total_steps(config.optimizer.epochs, steps_per_epoch)
    with (
        StopRequest() as stop,
        Checkpoints(
            workdir / workdirs.CHECKPOINTS, keep=config.training.keep_checkpoints
        ) as checkpoints,
    ):
        newest = checkpoints.newest()
        if newest is None or newest < total_steps:
            train = pixels(config, train_table, say, split="train")
            state = _start(session, workdir, checkpoints, newest, backbone)
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
                newest or 0,
                stop,
            )
        else:
            say(f"training is complete ({newest} steps)")
        newest = checkpoints.newest()
    if stop.signal is not None:
        say(
            f"stopped by {stop.signal.name} at step {newest}, saved; "
            "run the same command again to go on"
        )
        return 128 + int(stop.signal)
    evaluate_run.evaluate_workdir(session, workdir, root, validation, say)
    say(f"all done in {(time.perf_counter() - begin) / 60:.1f} minutes")
    return 0


def _start(
    session: Session,
    workdir: Path,
    checkpoints: Checkpoints,
    newest: int | None,
    backbone: LoadedBackbone | None,
) -> TrainState:
    if newest is not None:
        lineage.warn(lineage.resume(session.config, workdir, checkpoints, newest), say)
        state = checkpoints.restore(newest, session.state_like)
        say(f"going on from step {newest}")
        return state
    config = session.config
    backbone = backbone or initial_weights.load(config, say)
    say(f"compiling on {jax.device_count()} {jax.default_backend()} device(s) ...")
    state = make_state(
        session.network,
        session.optimizer,
        session.mesh,
        seed=config.seed,
        input_size=config.model.input_size,
        uncertainty=build.initial_uncertainty(config),
    )
    if backbone is not None:
        state = initial_weights.place(state, backbone)
    source = None if backbone is None else backbone.source
    lineage.warn(lineage.begin(config, workdir, checkpoints, source), say)
    checkpoints.save(0, state)
    return state


def _other_validation_sets(
    config: config_lib.Config, say: Callable[[str], None]
) -> dict[str, Pixels]:
    """Of a mixture, the data sets besides the evaluated one that are scored in training."""
    data = config.data
    if not data.validate_each:
        return {}
    return {
        name: pixels(
            config, tables.load_split(entry, tables.ensure_data(entry, say), "validation", say), say
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
    stop: StopRequest,
) -> None:
    config = session.config
    steps_per_epoch = order.steps_per_epoch(rows.length, config.optimizer.batch_size)
    say(f"parameters: {parameter_overview.count_parameters(state.params):,}")
    (workdir / "parameters.txt").write_text(
        parameter_overview.get_parameter_overview(state.params, include_stats=False) + "\n"
    )
    step = make_train_step(
        session.network,
        session.optimizer,
        session.mesh,
        session.state_shardings,
        augment=build.augmentation(config),
        objective=build.objective(config),
    )
    batches = data_input.to_devices(
        data_input.train_batches(
            train.table,
            batch_size=config.optimizer.batch_size,
            image_size=config.data.image_size,
            rows=rows,
            start_step=first_step,
            source=train.source,
            process_index=jax.process_index(),
            process_count=jax.process_count(),
        ),
        sharding.by_example(session.mesh),
    )
    writer = metric_writers.create_default_writer(
        str(workdir / workdirs.LOGS), just_logging=jax.process_index() > 0, asynchronous=False
    )

    def scores_on(state: TrainState, data: Pixels) -> loop.Scores:
        predictions = session.predict(state, data.table, data.source)
        return scores_for_log(evaluate_table(predictions, data.table))

    def scores(state: TrainState) -> loop.Scores:
        result = scores_on(state, validation)
        for name, data in others.items():
            result |= {f"{name}/{key}": value for key, value in scores_on(state, data).items()}
        return result

    counter = mixture.Counter(train.table, rows, config.optimizer.batch_size)
    steps = itertools.count(first_step)

    def counted_step(state: TrainState, batch: dict) -> tuple[TrainState, dict]:
        state, numbers = step(state, batch)
        return state, numbers | counter.of_step(next(steps))

    loop.train(
        state,
        train_step=counted_step,
        batches=batches,
        total_steps=order.total_steps(config.optimizer.epochs, steps_per_epoch),
        steps_per_epoch=float(steps_per_epoch),
        examples_per_step=config.optimizer.batch_size,
        log_every=config.training.log_every_steps,
        evaluate_every=math.ceil(config.training.evaluate_every_epochs * steps_per_epoch),
        checkpoint_every=config.training.checkpoint_every_steps,
        evaluate=scores,
        learning_rates=session.learning_rates,
        checkpoints=checkpoints,
        history=History(workdir / workdirs.HISTORY, after_step=first_step),
        write_scalars=writer.write_scalars,
        say=say,
        stop=stop,
    )
    writer.close()
