"""The provenance of a run: what its settings say, what its files recorded, and the warnings.

A run's provenance lies in its folder and beside the state of every checkpoint.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mtl_face.config import Config
from mtl_face.errors import WeightsError
from mtl_face.files import read_json, write_json
from mtl_face.run import Say, datasets, named_data
from mtl_face.run import workdir as workdirs
from mtl_face.run.teachers import record as teacher_records
from mtl_face.training.checkpoint import Checkpoints
from mtl_face.training.processes import distributed
from mtl_face.weights import provenance

FILE = "provenance.json"
"""In a workdir, beside config.json."""

_KEY = "provenance"


def begin(
    config: Config, workdir: Path, checkpoints: Checkpoints, source: Mapping[str, Any] | None
) -> dict[str, Any]:
    """The provenance of a run that starts now: written to its folder and to every checkpoint.

    `source` is the file of its initial weights, as `provenance.record` takes it; None for random.

    Raises:
        WorkdirError: the folder cannot be written.
        WeightsError: the source's own provenance is not sound, or a model gave labels and what is
            recorded of it is not.
    """
    settings = config.provenance
    teachers = teacher_records.of_training(config.data)
    images_of = [name for teacher in teachers for name in teacher["images_of"]]
    found = provenance.record(
        training_data=settings.training_data or [*data_sets(config), *images_of],
        pretrained_on=settings.pretrained_on or (),
        aff_wild2_pretrained=settings.aff_wild2_pretrained,
        initial_weights=source,
        teachers=teachers,
    )
    checkpoints.metadata[_KEY] = found
    if distributed.is_writer():
        write_json(workdir / FILE, found)
    return found


def resume(config: Config, workdir: Path, checkpoints: Checkpoints, step: int) -> dict[str, Any]:
    """`recorded`, for a run that goes on from `step`: further checkpoints will have it too."""
    found = recorded(config, workdir, checkpoints, step)
    checkpoints.metadata[_KEY] = found
    return found


def warn(found: Mapping[str, Any] | None, say: Say) -> list[str]:
    """Says what a user must know of a provenance; returns the sentences."""
    lines = provenance.warnings(found)
    for line in lines:
        say(f"warning: {line}")
    return lines


def data_sets(config: Config) -> list[str]:
    """Names of the data sets that a run trains on.

    They are named by their folders, or as a mixture names them. What lies in the layout of a known
    data set has that name too, since it may be that one; where the folder says so, that alone.
    """
    data = config.data
    return [
        provenance.name_of(
            entry.kind,
            named_data.own_name(entry, name if data.mixture else None, data.shards),
            entry.root or data.shards or "",
        )
        for name, entry in datasets.data_sets(data).items()
    ]


def recorded(config: Config, workdir: Path, checkpoints: Checkpoints, step: int) -> dict[str, Any]:
    """The provenance of a checkpoint, else of the folder, else of the settings; then amended.

    Versions that recorded none could start from random weights alone.

    Raises:
        WorkdirError: the checkpoint's metadata are damaged.
        WeightsError: what was recorded is no sound provenance.
    """
    found = checkpoints.read_metadata(step).get(_KEY)
    path = workdir / FILE
    if found is not None:
        path = workdir / workdirs.CHECKPOINTS / str(step)
    elif path.is_file():
        remedy = "restore the file: what weights were trained on cannot be guessed"
        found = read_json(path, remedy=remedy, failure=WeightsError)
    else:
        found = provenance.record(training_data=data_sets(config))
    return provenance.amend(provenance.check(found, path), config.provenance)
