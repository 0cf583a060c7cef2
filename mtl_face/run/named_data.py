"""Data sets by name: what evaluated rows are called, and what data a path or a name stands for."""

import dataclasses
from pathlib import Path
from typing import Any

from data_pipeline import formats
from mtl_face.config import DataConfig, DataSetConfig
from mtl_face.config.schema import ManifestConfig
from mtl_face.errors import ConfigError
from mtl_face.run import datasets


@dataclasses.dataclass(frozen=True)
class About:
    """What evaluated rows are called, from the data and not from the name of an experiment.

    Attributes:
        name: of the data set.
        rows: the split, or the file of annotations.
        rendered: whether the faces are those of the embedded data set.
        cautions: warnings about the rows, for the results.
    """

    name: str
    rows: str
    rendered: bool
    cautions: tuple[str, ...] = ()


def about(data: DataConfig, split: str) -> About:
    """What the rows of a split are called; of a mixture, those of the data set evaluated."""
    entry = datasets.evaluated(data)
    given = data.validation if data.mixture else None
    file, other = entry.train_annotations, entry.validation_annotations
    rows = f"{split} set" if file is None or file != other else file
    rendered = entry.kind == datasets.EMBEDDED
    if entry.root is not None and not rendered:
        from data_pipeline.rendered_faces import layout

        rendered = layout.is_rendered(Path(entry.root).expanduser())
    name = "rendered faces" if rendered else own_name(entry, given, data.shards)
    return About(name, rows, rendered)


def own_name(entry: DataSetConfig, given: str | None = None, shards: str | None = None) -> str:
    """The name that a mixture gives to a data set, or that of its folder; else its kind's."""
    place = entry.root or shards
    return given or (entry.kind if place is None else Path(place).expanduser().absolute().name)


def same_place(data: DataConfig, other: DataConfig) -> bool:
    """Whether two settings name the same annotations for evaluation, read as the same kind."""

    def place(of: DataConfig) -> tuple[Any, ...]:
        entry = datasets.evaluated(of)
        root = entry.root and Path(entry.root).expanduser().absolute()
        return root, entry.kind, entry.train_annotations, entry.validation_annotations, of.shards

    return place(data) == place(other)


def another(data: DataConfig, named: str | Path) -> DataConfig:
    """The settings that read another data set in place of a run's own.

    `named` is a folder, whose kind its files tell; a file of annotations or a manifest, for either
    split, whose images lie in `data.image_folder` beside it if there is such a folder, else from
    its own folder on; or the name of a data set of the run's mixture. What a manifest means, and
    what becomes of missing images, is as in the run's settings.

    Raises:
        ConfigError: there is no such file, folder or name, or a folder tells no kind.
        AnnotationError: the file cannot be read.
    """
    alone: dict[str, Any] = {"mixture": {}, "validation": None, "shards": None}
    path = Path(named).expanduser()
    if not path.exists() and str(named) in data.mixture:
        entry = data.mixture[str(named)]
        own = {f.name: getattr(entry, f.name) for f in dataclasses.fields(DataSetConfig)}
        return dataclasses.replace(data, **own, **alone)
    files_of_splits: tuple[str | None, str | None] = (None, None)
    if path.is_dir():
        root, image_folder, kinds = path, data.image_folder, list(formats.kinds_in(path))
        if len(kinds) != 1:
            usual = ", ".join(dict.fromkeys(names[1] for names in formats.USUAL_NAMES.values()))
            raise ConfigError(
                f"holds files of {' and of '.join(kinds)}"
                if kinds
                else "holds no annotations under a usual name",
                path=path,
                remedy=f"name the file of annotations itself; usual names are {usual}",
            )
    elif path.exists():
        root, files_of_splits = path.parent, (path.name, path.name)
        image_folder = data.image_folder if (root / data.image_folder).is_dir() else "."
        is_manifest = data.kind == "manifest" or data.manifest != ManifestConfig()
        kinds = [formats.kind_of_file(path, data.manifest if is_manifest else None)]
    else:
        names = f", or one of {', '.join(data.mixture)}" if data.mixture else ""
        raise ConfigError(
            "does not exist", path=path, remedy=f"name a folder or a file of annotations{names}"
        )
    return dataclasses.replace(
        data,
        kind=kinds[0],
        root=str(root),
        image_folder=image_folder,
        train_annotations=files_of_splits[0],
        validation_annotations=files_of_splits[1],
        **alone,
    )
