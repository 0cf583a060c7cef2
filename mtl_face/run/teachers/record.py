"""What is kept of the model that gave labels, beside the manifest that holds them.

NAME.csv            the manifest; its column `teacher` says which rows have labels of the model
NAME.teacher.json   the model, its provenance, the rule that its labels passed, their counts
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from data_pipeline import formats, records
from data_pipeline.formats.user_files import peek
from mtl_face.config import DataConfig
from mtl_face.errors import WeightsError
from mtl_face.files import read_json
from mtl_face.run import datasets
from mtl_face.weights import provenance

COLUMN = "teacher"
"""Name of the manifest's column."""

SHARDED = "teachers.json"
"""In a folder of shards: `teachers`, the records of the manifests that they were made of."""

_REMEDY = (
    "copy it again beside the manifest, or write the labels again: what taught them must be known"
)


def path_of(manifest: Path) -> Path:
    """Where the record of a manifest lies."""
    return manifest.with_suffix(".teacher.json")


def of_training(data: DataConfig) -> list[dict[str, Any]]:
    """The records of the models that gave labels of a training set, each as `read` gives it.

    Raises:
        WeightsError: a manifest has labels of a model, and no sound record of it.
    """
    if data.shards is not None:
        path = records.find(Path(data.shards).expanduser()) / SHARDED
        if not path.is_file():
            return []
        found = read_json(path, remedy=_REMEDY, failure=WeightsError).get("teachers")
        if not isinstance(found, list):
            raise WeightsError("does not say which models gave labels", path=path, remedy=_REMEDY)
        return [_sound(record, path) for record in found]
    return of_manifests(data)


def of_manifests(data: DataConfig) -> list[dict[str, Any]]:
    """As `of_training`, whether the settings name shards or not."""
    found = []
    for entry in datasets.data_sets(data).values():
        if entry.kind == "manifest" and entry.root is not None:
            name = formats.annotations_name(entry, datasets.TRAIN)
            record = read(Path(entry.root).expanduser() / name)
            if record is not None:
                found.append(record)
    return found


def read(manifest: Path) -> dict[str, Any] | None:
    """The record of the model that gave labels of a manifest; None if none did.

    JSON values: `file`, `sha256` and `provenance` of the model, `images_of` (names of the data sets
    whose images it saw), `confidence` and `counts`.

    Raises:
        WeightsError: the manifest has the column `COLUMN`, and there is no sound record.
    """
    path = path_of(manifest)
    if not path.is_file():
        header = peek(manifest) if manifest.is_file() else []
        if header and COLUMN in (cell.lower() for cell in header[0]):
            raise WeightsError(
                f"has labels that a model gave, and there is no {path.name} that says which",
                path=manifest,
                remedy=_REMEDY,
            )
        return None
    return _sound(read_json(path, remedy=_REMEDY, failure=WeightsError), path)


def _sound(record: Any, path: Path) -> dict[str, Any]:
    if not isinstance(record, Mapping) or not isinstance(record.get("file"), str):
        raise WeightsError("does not say which model gave labels", path=path, remedy=_REMEDY)
    names = record.get("images_of")
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise WeightsError("does not say of which images", path=path, remedy=_REMEDY)
    if record.get("provenance") is not None:
        provenance.check(record["provenance"], path)
    return dict(record)
