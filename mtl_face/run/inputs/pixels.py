"""The inputs of a network for the rows of a table: where they come from."""

import dataclasses
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from data_pipeline import images as image_files
from data_pipeline import input as data_input
from data_pipeline import order
from data_pipeline.batch import Batch
from mtl_face.config import Config
from mtl_face.inputs import IMAGE, POINTS
from mtl_face.run import Say
from mtl_face.run.inputs import features
from mtl_face.tables import FrameTable


@dataclasses.dataclass(frozen=True)
class Pixels:
    """Rows, and where their pixels come from: the files, shards, or an array decoded once.

    `upright` says whether images are turned as their EXIF orientation says; `points` are those of
    the rows, if the network takes them; `images` says whether it takes images.
    """

    table: FrameTable
    source: data_input.Source
    image_size: int
    upright: bool = False
    points: features.Points | None = None
    images: bool = True

    def inputs(self, *, training: bool = False) -> data_input.Source | data_input.WithFeatures:
        """What a network takes of the rows; in training with all kinds of baselines."""
        if self.points is None:
            return self.source
        return data_input.WithFeatures(self.points.by_name(training), self.source, self.images)

    def train_batches(
        self, rows: order.Order, batch_size: int, *, start_step: int, process: order.Process
    ) -> Iterator[Batch]:
        """Endless batches for training, see `data_pipeline.input.train_batches`."""
        return data_input.train_batches(
            self.table,
            batch_size=batch_size,
            image_size=self.image_size,
            rows=rows,
            start_step=start_step,
            source=self.inputs(training=True),
            process=process,
        )

    def eval_batches(
        self, batch_size: int, *, first: int = 0, process: order.Process = order.ALONE
    ) -> Iterator[Batch]:
        """Every row from `first` on once, see `data_pipeline.input.eval_batches`."""
        return data_input.eval_batches(
            self.table,
            batch_size=batch_size,
            image_size=self.image_size,
            first=first,
            source=self.inputs(),
            process=process,
        )

    def picture(self, row: int) -> NDArray[np.uint8] | None:
        """A row's image; None where shards took the place of the files and these are absent."""
        if isinstance(self.source, np.ndarray):
            return self.source[row]
        path = self.table.paths()[row]
        from_files = self.source is None or self.source == data_input.Upright()
        if not from_files and not Path(path).is_file():
            return None
        return image_files.read_image(path, self.image_size, upright=self.upright)


def find_pixels(
    config: Config,
    table: FrameTable,
    say: Say,
    *,
    split: str = "validation",
    inputs: Sequence[str] | None = None,
) -> Pixels:
    """Finds the images of a split's table, and decodes them now if the config wants them in memory.

    Where the network takes points, they are computed if they are not there yet. `split` is the name
    that shards go by; `inputs` are names as in `model.inputs`, None for those.

    ConfigError if shards are not those of the table, or memory does not suffice.
    """
    size = config.data.image_size
    source = features.find_images(config, table, split)
    upright = config.data.exif_orientation == "apply"
    points = None
    inputs = config.model.inputs if inputs is None else inputs
    if POINTS in inputs:
        points = features.ensure(config, table, source, say=say)
    images = IMAGE in inputs
    if config.data.source == "files" or not images:
        return Pixels(table, source, size, upright, points, images)
    image_NSSC = data_input.decode_all(table, image_size=size, source=source)
    say(f"decoded {len(table)} images into memory ({image_NSSC.nbytes / 2**20:.0f} MiB)")
    return Pixels(table, image_NSSC, size, upright, points)
