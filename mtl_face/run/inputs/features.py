"""Face points of the rows of a data set: computed once, kept, and read by whoever needs them."""

import dataclasses
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from data_pipeline import features as stored
from data_pipeline import input as data_input
from data_pipeline.records import Records
from data_pipeline.records import find as find_shards
from mtl_face.config import Config
from mtl_face.errors import ConfigError
from mtl_face.faces import points
from mtl_face.inputs import BASELINE, POINTS
from mtl_face.run import Progress, Say, datasets, progress_lines, show
from mtl_face.run.rows import named_sha256
from mtl_face.tables import FrameTable
from mtl_face.training.processes import distributed

FOLDER = "features"

KIND = "mesh_points"

FOUND = "found"
"""Name of the array that says of which rows the points are to be trusted."""


@dataclasses.dataclass(frozen=True)
class Points:
    """Face points of the rows of a table.

    Attributes:
        points: float32 [N, 468, 3], see `mtl_face.inputs`; 0 where none were found.
        baselines: float32 [N, K, 468, 3], of the kinds of `data.baseline`.
    """

    points: NDArray[np.float32]
    baselines: stored.Shared

    def by_name(self, training: bool) -> dict[str, stored.Rows]:
        """As a network takes them: in training with all kinds of baselines, else the first."""
        values = self.baselines.values
        baseline = dataclasses.replace(self.baselines, values=values if training else values[:, 0])
        return {POINTS: self.points, BASELINE: baseline}


def features(
    config: Config, *, output: str | Path | None = None, progress: Progress, say: Say = show
) -> list[Path]:
    """Computes the face points of every split of the data set, where they are not there yet.

    Args:
        config: the settings.
        output: folder to keep them in; None: as `data.features` says.
        progress: called with the number of faces done, and of all.
        say: called with each line for the user.

    Returns:
        The folders, in the order of the splits.

    Raises:
        UserError: the data cannot be read, or the folder not be written.
    """
    config = kept_in(config, output)
    made = []
    for split, table in tables(config, say).items():
        source = find_images(config, table, split)
        ensure(config, table, source, say=say, progress=progress)
        made.append(_identity(config, table).folder(folder_of(config, say)))
        say(f"{split}: face points of {len(table):,} rows: {made[-1]}")
    return made


def kept_in(config: Config, output: str | Path | None) -> Config:
    """The settings with another folder for the features; None: as they are."""
    if output is None:
        return config
    return dataclasses.replace(config, data=dataclasses.replace(config.data, features=str(output)))


def tables(config: Config, say: Say) -> dict[str, FrameTable]:
    """The rows of every split, made where they are to be rendered; UserError if they cannot be."""
    datasets.ensure_all(config.data, say)
    train, _ = datasets.load_training(config.data, seed=config.seed, say=say)
    validation = datasets.load_split(config.data, datasets.VALIDATION, say)
    return {datasets.TRAIN: train, datasets.VALIDATION: validation}


def ensure(
    config: Config,
    table: FrameTable,
    source: data_input.Source,
    *,
    say: Say,
    progress: Progress | None = None,
) -> Points:
    """The face points of a table, computed in process 0 if they are not there.

    Of a face whose points cannot be right the points are 0, which is the mean face, and it counts
    in no baseline; such rows are counted aloud.

    Raises:
        UserError: an image cannot be read, or the folder not be written.
    """
    parent, identity = folder_of(config, say), _identity(config, table)

    def make() -> None:
        if identity.folder(parent).exists():
            return
        say(f"finding the face points of {len(table):,} images, once for {parent} ...")
        stored.write(
            parent,
            identity,
            lambda start: _mesh_points(config, table, source, start),
            progress=progress or progress_lines(say, "face points"),
            say=say,
        )

    distributed.first(make)
    make()  # of a host that does not see the folder of the first process
    arrays = stored.read(parent, identity)
    assert arrays is not None  # made above
    found_N = np.asarray(arrays[FOUND])
    if not found_N.all():
        say(
            f"note: of {int((~found_N).sum()):,} of {len(table):,} faces no points were found: "
            "they count as the mean face"
        )
    baselines = stored.baselines(table, arrays[POINTS], found_N, config.data.baseline)
    return Points(arrays[POINTS], baselines)


def _mesh_points(
    config: Config, table: FrameTable, source: data_input.Source, start: int
) -> Iterator[Mapping[str, NDArray[Any]]]:
    size = config.data.image_size
    for image_nSSC in data_input.images_from(table, start, image_size=size, source=source):
        point_nV3, found_n = points.points_of_crops(image_nSSC)
        yield {POINTS: point_nV3, FOUND: found_n}


def find_images(
    config: Config, table: FrameTable, split: str
) -> Records | data_input.Upright | None:
    """Where the images of a table come from: its files, or shards.

    `split` is the name that shards go by. ConfigError if they are not those of the table.
    """
    stored_images: Records | None = None
    if config.data.shards is not None:
        stored_images = Records(find_shards(Path(config.data.shards).expanduser()), split)
        if len(stored_images) != len(table):
            raise ConfigError(
                f"the shards of the split {split} hold {len(stored_images)} records, their table "
                f"has {len(table)} rows",
                path=stored_images.folder,
                remedy="copy table and shards of one writing, or write them again",
            )
    upright = config.data.exif_orientation == "apply"
    return data_input.Upright(stored_images) if upright else stored_images


def _identity(config: Config, table: FrameTable) -> stored.Identity:
    making = {
        **points.specification(),
        "crop_size": config.data.image_size,
        "exif_orientation": config.data.exif_orientation,
    }
    return stored.Identity(KIND, len(table), named_sha256(table), making)


def folder_of(config: Config, say: Say) -> Path:
    """The folder that holds the features of a data set."""
    if config.data.features is not None:
        return Path(config.data.features).expanduser()
    return datasets.ensure_data(config.data, say) / FOLDER
