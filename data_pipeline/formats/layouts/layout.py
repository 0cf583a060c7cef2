"""What a layout of labels is: how it is recognised, how its rows become a manifest's columns."""

import dataclasses
import functools
import os
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from data_pipeline.formats.user_files import (
    WHITESPACE,
    BadRow,
    Columns,
    FaultList,
    peek,
    read_columns,
)
from data_pipeline.formats.values import EXTENSIONS
from mtl_face.config.schema import ManifestConfig
from mtl_face.errors import AnnotationError, ConfigError

IMAGE_CELL = re.compile(r"[^\s,;].*\.(?:jpe?g|png|bmp|tiff?|webp|gif)", re.IGNORECASE)
"""A cell that names an image, which no header has."""

Rows = list[list[str]]
"""Cells of the first rows of a file."""


@dataclasses.dataclass(frozen=True)
class Place:
    """What is to be read: a file or folder, which of its rows, and with what settings.

    Attributes:
        path: the file or folder that the settings name.
        split: `train` or `validation`, where the layout itself says which rows are which.
        settings: those of the manifest.
        image_root: the folder that images are below.
        skipped: takes rows with faults, which are then left out; None where they are errors.
    """

    path: Path
    split: str
    settings: ManifestConfig
    image_root: Path
    skipped: list[BadRow] | None = None

    @functools.cached_property
    def stems(self) -> Counter[str]:
        """How many tables have each name, without folder and ending."""
        return Counter(file.stem for file in table_files(self.path))

    def faults(self, path: Path) -> FaultList:
        """A new list of the faults of one file."""
        return FaultList(path, self.skipped)

    def video_of(self, file: Path) -> str:
        """Name of the video that a file is about: its own, with the folders that it lies in."""
        inside = Path(file.name) if file == self.path else file.relative_to(self.path)
        return inside.with_suffix("").as_posix()

    def expression_map(self, own: str) -> str:
        """The map that the settings name, or the layout's own where they name none."""
        named = self.settings.expression_map
        return own if named == ManifestConfig.expression_map else named


@dataclasses.dataclass(frozen=True)
class Labels:
    """Rows of one file as a manifest has them.

    Attributes:
        faults: those of the file so far.
        columns: cells named as a manifest's columns.
        expression_map: what the expressions mean.
        au_threshold: as the setting.
        remarks: what the user has to know about these labels.
        counts: what was left out or translated, in words, and in how many rows.
    """

    faults: FaultList
    columns: Columns
    expression_map: str = ManifestConfig.expression_map
    au_threshold: float | None = None
    remarks: Sequence[str] = ()
    counts: Mapping[str, int] = dataclasses.field(default_factory=dict)

    def settings(self, named: ManifestConfig) -> ManifestConfig:
        """The settings with which a manifest of these columns is read."""
        return dataclasses.replace(
            named, expression_map=self.expression_map, au_threshold=self.au_threshold
        )


@dataclasses.dataclass(frozen=True)
class Layout:
    """A layout of labels.

    Attributes:
        name: value of the setting `data.manifest.layout`.
        title: what it is, for messages.
        recognise: whether a path is such labels, by the first rows of its first file.
        read: the labels, one file at a time.
    """

    name: str
    title: str
    recognise: Callable[[Path, Rows], bool]
    read: Callable[[Place], Iterator[Labels]]


def of_tables(
    name: str,
    title: str,
    *,
    is_header: Callable[[set[str]], bool],
    wanted: Callable[[str], bool],
    convert: Callable[[Columns, FaultList, Place], Labels],
) -> Layout:
    """A layout of one table, or of a folder of them, with a header line.

    `is_header` is asked with the names of all columns, `wanted` with one; both get them in lower
    case, and `convert` gets the wanted columns under such names, with a list of the file's faults.
    """

    def recognise(path: Path, rows: Rows) -> bool:
        return bool(rows) and is_header({cell.lower() for cell in rows[0]})

    def read(place: Place) -> Iterator[Labels]:
        for file in table_files(place.path):
            if file != place.path and not recognise(file, peek(file)):
                raise AnnotationError(
                    f"this is not {title}, as other files of the folder are",
                    path=file,
                    remedy="move it out of the folder",
                )
            faults = place.faults(file)
            columns = read_columns(
                file, lambda column: wanted(column.strip(WHITESPACE).lower()), faults
            )
            cells = {key.strip(WHITESPACE).lower(): cell for key, cell in columns.cells.items()}
            named = dataclasses.replace(columns, cells=cells, others=[])
            yield convert(named, faults, place)

    return Layout(name, title, recognise, read)


def table_files(path: Path) -> list[Path]:
    """The file, or every `*.csv` below the folder, by name."""
    return sorted(path.rglob("*.csv")) if path.is_dir() else [path]


def folder_below(folder: Path, image_root: Path) -> str:
    """A folder's path below the image folder; ConfigError if it is elsewhere."""
    below = Path(os.path.relpath(folder, image_root)).as_posix()
    if below.startswith(".."):
        raise ConfigError(
            f"the images are in {folder}, which is not below {image_root}",
            remedy="set data.image_folder to a folder above them, as data.image_folder=.",
        )
    return below


def readable(images: Sequence[str], rows: Sequence[int]) -> tuple[list[int], dict[str, int]]:
    """Those of some rows whose images training reads, by their endings; and what is left out."""
    kept = [row for row in rows if images[row].lower().endswith(EXTENSIONS)]
    others = sorted({os.path.splitext(images[row])[1] for row in set(rows) - set(kept)})
    what = (
        f"rows name images that training does not read ({', '.join(others)[:80]}) and are left "
        "out: convert them to JPEG or PNG to have them"
    )
    return kept, {what: len(rows) - len(kept)}


def photos(images: Sequence[str]) -> dict[str, list[str]]:
    """Cells image, video and frame of images that are no frames: each is a video of its own."""
    stems = [image.strip(WHITESPACE).replace("\\", "/").rsplit(".", 1)[0] for image in images]
    return {"image": list(images), "video": stems, "frame": ["1"] * len(stems)}


def take(columns: Columns, rows: Sequence[int], **cells: list[str]) -> Columns:
    """Some rows of these cells, whose names are a manifest's; lines as in `columns`."""
    kept = {name: [column[row] for row in rows] for name, column in cells.items()}
    return Columns(kept, [], [columns.lines[row] for row in rows])
