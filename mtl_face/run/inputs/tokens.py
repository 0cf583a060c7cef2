"""Task tokens of the rows of a data set: computed once by a trained network, and kept.

With them its own answers. They are what a network over time reads in place of pictures.
"""

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import jax
from numpy.typing import NDArray

from data_pipeline import features as stored
from data_pipeline import input as data_input
from mtl_face import probabilities
from mtl_face.config import Config
from mtl_face.errors import ConfigError
from mtl_face.faces import align, points
from mtl_face.inference.predictor import Predictor
from mtl_face.inputs import POINTS
from mtl_face.run import Progress, Say, models, progress_lines, show
from mtl_face.run.inputs import features
from mtl_face.run.inputs.pixels import Pixels, find_pixels
from mtl_face.run.rows import Rows, named_sha256
from mtl_face.tables import FrameTable
from mtl_face.training import sharding
from mtl_face.training.processes import distributed

KIND = "task_tokens"


def compute(
    model: str | Path | Predictor,
    config: Config | None = None,
    *,
    output: str | Path | None = None,
    progress: Progress,
    say: Say = show,
) -> list[Path]:
    """Computes the task tokens of every split of a data set, where they are not there yet.

    Args:
        model: a run, an export of arrays, or what `mtl_face.load` returned.
        config: the settings, of which `data` says what the data set is; None: the model's own.
        output: folder to keep them in; None: as `data.features` says.
        progress: called with the number of rows done, and of all.
        say: called with each line for the user.

    Returns:
        The folders, in the order of the splits.

    Raises:
        UserError: the model or the data cannot be read, the model is a program, or takes other
            crops than those of the settings, or the folder cannot be written.
    """
    if not isinstance(model, Predictor):
        model = models.load(model)
    config = features.kept_in(config or model.config, output)
    made = []
    for split, table in features.tables(config, say).items():
        ensure(model, config, table, split=split, progress=progress, say=say)
        place = _identity(model, config, table).folder(features.folder_of(config, say))
        say(f"{split}: task tokens of {len(table):,} rows: {place}")
        made.append(place)
    return made


def ensure(
    model: Predictor,
    config: Config,
    table: FrameTable,
    *,
    split: str,
    progress: Progress | None = None,
    say: Say,
) -> dict[str, NDArray[Any]]:
    """The task tokens of a table and the answers beside them, mapped into memory.

    They are computed if they are not there, in a run of one process. `split` is the name that
    shards go by.

    Returns:
        By name the arrays of `Predictor.token_blocks`, a row for each of the table.

    Raises:
        ConfigError: the model is a program, or takes other crops than those of the settings; or
            they are not there, and several processes run.
        UserError: an image cannot be read, or the folder not be written.
    """
    if model.forward.with_tokens is None:
        raise ConfigError(
            "is a program or a network over time, which give no task tokens",
            path=model.forward.path,
            remedy="name a network of frames: its run, or an export of arrays",
        )
    if model.crop_size != config.data.image_size:
        raise ConfigError(
            f"the model takes crops of {model.crop_size} pixels, and data.image_size is "
            f"{config.data.image_size}",
            remedy=f"set data.image_size={model.crop_size}",
        )
    parent, identity = features.folder_of(config, say), _identity(model, config, table)
    if not identity.folder(parent).exists():
        if jax.process_count() > 1:
            raise ConfigError(
                f"there are no task tokens of the {len(table):,} rows in {parent}",
                remedy="compute them first, in one process: run.py features --model=MODEL",
            )
        say(f"computing the task tokens of {len(table):,} rows, once for {parent} ...")
        rows = find_pixels(_as_read(model, config), table, say, split=split, inputs=model.inputs)
        stored.write(
            parent,
            identity,
            _blocks(model, rows, patches=config.temporal.reads_patches),
            progress=progress or progress_lines(say, "task tokens"),
            say=say,
        )
    distributed.wait_for_all()
    arrays = stored.read(parent, identity)
    assert arrays is not None  # made above
    return arrays


def _blocks(
    model: Predictor, rows: Pixels, *, patches: bool
) -> Callable[[int], Iterator[Mapping[str, NDArray[Any]]]]:
    def of_rows(first: int) -> Iterator[Mapping[str, NDArray[Any]]]:
        batches = rows.eval_batches(model.config.evaluation.batch_size, first=first)
        assert model.forward.mesh is not None  # those of runs and exports have one
        return model.token_blocks(
            data_input.to_devices(batches, sharding.by_example(model.forward.mesh)), patches=patches
        )

    return of_rows


def _as_read(model: Predictor, config: Config) -> Config:
    """The settings by which rows become inputs of the model: its own, of other data."""
    data = dataclasses.replace(config.data, source="files", baseline=model.config.data.baseline)
    return dataclasses.replace(model.config, data=data)


def _identity(model: Predictor, config: Config, table: FrameTable) -> stored.Identity:
    """All that tokens depend on: weights, crops, and the rows by their names."""
    own = model.config
    making: dict[str, Any] = {
        "weights_sha256": model.origin["weights_sha256"],
        "compute_dtype": own.model.compute_dtype,
        "crop": dict(model.crop) or align.specification(model.crop_size),
        "exif_orientation": config.data.exif_orientation,
        "divisors": probabilities.divisors(
            own.uncertainty.kind, model.temperatures, probabilities.FITTED
        ),
    }
    if config.temporal.reads_patches:
        making["tokens"] = config.temporal.tokens
    if POINTS in model.inputs:
        making |= {"points": points.specification(), "baseline": own.data.baseline[0]}
        if own.data.baseline[0] == stored.NEUTRAL:  # which frames show it, the labels say
            making["labelled_sha256"] = Rows.of({"": table}).metadata["rows"][""]["sha256"]
    return stored.Identity(KIND, len(table), named_sha256(table), making)
