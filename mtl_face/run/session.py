"""What training and evaluation have in common: devices, network, state, predictions, scores."""

import dataclasses
import functools
import importlib.metadata
import sys
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import mtl_face
from data_pipeline import input as data_input
from data_pipeline import order
from data_pipeline.records import Records
from data_pipeline.records import find as find_shards
from mtl_face import config as config_lib
from mtl_face import probabilities
from mtl_face.errors import ConfigError
from mtl_face.evaluation import scoring
from mtl_face.inference.batched import predict_rows
from mtl_face.inference.columns import output_sizes, table_columns
from mtl_face.inference.dropout import make_dropout_step
from mtl_face.model.network import PER_EXAMPLE, MtlFace
from mtl_face.objective import uncertainty
from mtl_face.run import processes
from mtl_face.tables import FrameTable, PredictionTable
from mtl_face.tasks import TASKS
from mtl_face.training import experiment, sharding
from mtl_face.training.monitoring import InputWatch
from mtl_face.training.state import TrainState, abstract_state
from mtl_face.training.step import make_predict_step

_PACKAGES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy", "tensorflow-cpu")


def say(line: str) -> None:
    """Prints a line, from one process only."""
    if jax.process_index() == 0:
        print(line)


class Session:
    """The parts of a run that a config determines, on the devices of this machine."""

    def __init__(self, config: config_lib.Config, *, steps_per_epoch: Fraction | int = 1) -> None:
        """Builds the parts; nothing is computed yet.

        Args:
            config: the settings.
            steps_per_epoch: steps of an epoch, in which the learning rates count; matters only
                to training.
        """
        self.config = config
        self.mesh = sharding.make_mesh(data=config.mesh.data, fsdp=config.mesh.fsdp)
        sharding.check_batch(config.evaluation.batch_size, self.mesh, name="evaluation.batch_size")
        self.network = MtlFace(config.model, devices=self.mesh.size)
        self.learning_rates = experiment.learning_rates(config, steps_per_epoch)
        self.optimizer = experiment.optimizer(config, self.learning_rates)
        self.state_like: TrainState = abstract_state(
            self.network,
            self.optimizer,
            self.mesh,
            input_size=config.model.input_size,
            uncertainty=experiment.initial_uncertainty(config),
            split_rules=config.mesh.rules,
        )
        self.predict_step = make_predict_step(
            self.network, self.mesh, prepare=experiment.preparation(config)
        )
        self.dropout_step: Callable[..., dict[str, jax.Array]] | None = None
        if samples := config.evaluation.mc_dropout_samples:
            self.dropout_step = make_dropout_step(
                self.network,
                prepare=experiment.preparation(config),
                samples=samples,
                seed=config.seed,
                out_shardings=sharding.replicated(self.mesh),
            )

    @property
    def state_shardings(self) -> Any:
        """Where each array of the state lies."""
        return jax.tree.map(lambda leaf: leaf.sharding, self.state_like)

    def temperatures(self, state: TrainState) -> dict[str, jax.Array]:
        """Temperature of each task: learned, or as configured."""
        learned = state.params["uncertainty"] or None
        return uncertainty.resolve_temperatures(experiment.temperatures(self.config), learned)

    def predict(
        self,
        state: TrainState,
        table: FrameTable,
        source: data_input.Source,
        *,
        sample_dropout: bool = True,
    ) -> PredictionTable:
        """Predictions of a state for every row of a table.

        Args:
            state: its network and its temperatures are used.
            table: the rows.
            source: of their pixels.
            sample_dropout: False for one prediction without dropout, whatever
                `evaluation.mc_dropout_samples` says.
        """
        kind = self.config.uncertainty.kind
        temperatures = {
            task: float(value) for task, value in jax.device_get(self.temperatures(state)).items()
        }
        probability = probabilities.statement(
            kind, temperatures, self.config.evaluation.probability
        )
        step, sampled = self.predict_step, False
        if self.dropout_step is not None and sample_dropout:
            divisors = {task: jnp.float32(value) for task, value in probability["divisors"].items()}
            step, sampled = functools.partial(self.dropout_step, divisors=divisors), True
        batches: Iterator[Any] = data_input.to_devices(
            data_input.eval_batches(
                table,
                batch_size=self.config.evaluation.batch_size,
                image_size=self.config.data.image_size,
                source=source,
                process=order.Process(jax.process_index(), jax.process_count()),
            ),
            sharding.by_example(self.mesh),
        )
        batches = InputWatch(
            batches,
            timeout_seconds=self.config.training.input_timeout_s,
            where=processes.this_host(),
            unit="step of the evaluation",
        )
        outputs = predict_rows(
            step,
            state.params["network"],
            state.batch_stats,
            batches,
            num_rows=len(table),
            sizes=output_sizes(
                va_variance=self.config.model.va_variance == PER_EXAMPLE, sampled=sampled
            ),
        )
        columns: dict[str, Any] = table_columns(
            outputs, kind=kind, temperatures=temperatures, divisors=probability["divisors"]
        )
        return PredictionTable(
            dataset=table.dataset.astype(np.str_),
            video=table.video.astype(np.str_),
            frame=table.frame,
            image=table.image.astype(np.str_),
            **columns,
            metadata={
                "config": config_lib.to_dict(self.config),
                "step": int(jax.device_get(state.step)),
                "temperatures": temperatures,
                "probability": probability,
                "mc_dropout_samples": self.config.evaluation.mc_dropout_samples if sampled else 0,
                "smoothing": None,
                "calibration": None,
                "versions": versions(),
            },
        )


def scores_for_log(result: dict[str, Any]) -> dict[str, float]:
    """The numbers of a metrics result that the learning curves show.

    Returns:
        `score` (what the best checkpoint is chosen by: P, or the sum of the tasks that have
        labels), and `p`, `va`, `au`, `expr` where they exist.
    """
    tasks = {task: result[task]["score"] for task in TASKS if result[task]["score"] is not None}
    total = {"p": result["p"]} if result["p"] is not None else {}
    return {"score": float(sum(tasks.values())), **total, **tasks}


def evaluate_table(
    predictions: PredictionTable,
    truth: FrameTable,
    *,
    num_resamples: int = 0,
    before_calibration: PredictionTable | None = None,
) -> dict[str, Any]:
    """The official metric of predictions; with resamples, its confidence intervals too."""
    return scoring.score(
        truth,
        predictions,
        num_resamples=num_resamples,
        before_calibration=before_calibration,
    )


def versions() -> dict[str, str]:
    """Versions of this program and of what it computes with."""
    return {
        "mtl_face": mtl_face.__version__,
        "python": ".".join(map(str, sys.version_info[:3])),
        **{name: importlib.metadata.version(name) for name in _PACKAGES},
    }


@dataclasses.dataclass(frozen=True)
class Pixels:
    """Where a table's pixels come from: the files, shards, or an array decoded once."""

    table: FrameTable
    source: data_input.Source


def pixels(
    config: config_lib.Config,
    table: FrameTable,
    say: Callable[[str], None],
    *,
    split: str = "validation",
) -> Pixels:
    """Finds a table's images, and decodes them now if the config wants them in memory.

    Args:
        config: the settings.
        table: of a split of the data.
        say: prints a line.
        split: its name, which shards go by.

    Raises:
        ConfigError: the shards are not those of the table, or memory does not suffice.
    """
    stored: str | Records = "files"
    if config.data.shards is not None:
        stored = Records(find_shards(Path(config.data.shards).expanduser()), split)
        if len(stored) != len(table):
            raise ConfigError(
                f"the shards of the split {split} hold {len(stored)} records, their table has "
                f"{len(table)} rows",
                path=stored.folder,
                remedy="copy table and shards of one writing, or write them again",
            )
    if config.data.source == "files":
        return Pixels(table, stored)
    image_NSSC = data_input.decode_all(table, image_size=config.data.image_size, source=stored)
    say(f"decoded {len(table)} images into memory ({image_NSSC.nbytes / 2**20:.0f} MiB)")
    return Pixels(table, image_NSSC)


def absolute(path: Path) -> Path:
    """An absolute path; orbax takes no other."""
    return path.expanduser().resolve()
