"""Where the pixels of a table come from: image files, shards, or memory."""

import dataclasses
from collections.abc import Callable
from pathlib import Path

from data_pipeline import input as data_input
from data_pipeline.records import Records
from data_pipeline.records import find as find_shards
from mtl_face.config import Config
from mtl_face.errors import ConfigError
from mtl_face.tables import FrameTable


@dataclasses.dataclass(frozen=True)
class Pixels:
    """Rows, and where their pixels come from: the files, shards, or an array decoded once."""

    table: FrameTable
    source: data_input.Source


def find_pixels(
    config: Config, table: FrameTable, say: Callable[[str], None], *, split: str = "validation"
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
