"""A manifest: anyone's own images and labels as one CSV or Parquet file, one row an image.

Columns, by name (in any order, upper or lower case, others are named and left aside):

    image       path of the image below the image folder (required)
    video       name of the video; without it, each image is a video of its own
    frame       number of the frame in its video; without it, the image's file name must be one
    valence     number in the range that `va_range` says
    arousal     the same
    expression  class number or word, translated by an expression map
    au1 ... au26  any subset of the twelve action units, also written AU01, AU01_r or AU01_c

An empty cell is a missing label; `nan`, `na`, `none` and `null` as well.

Dimension letters: N rows, A action units (12).
"""

import os
import re
from collections.abc import Callable, Sequence

import numpy as np

from data_pipeline.formats import expression_maps
from data_pipeline.formats.image_id import check_image_path
from data_pipeline.formats.manifest_columns import Columns, read_columns
from data_pipeline.formats.manifest_labels import action_units, affect, expressions
from data_pipeline.formats.text_file import WHITESPACE, FaultList
from mtl_face import tables, tasks
from mtl_face.errors import AnnotationError

_KNOWN = ("image", "video", "frame", *tasks.VA_NAMES, "expression")
_AU_COLUMN = re.compile(r"au0*([1-9][0-9]?)(?:_[rc])?", re.ASCII)
_FRAME_NAME = re.compile(r"[0-9]{1,18}", re.ASCII)
_FRAME_REMEDY = "add a column frame, with whole numbers that do not go below 0"


def read_manifest(
    path: str | os.PathLike[str],
    *,
    image_root: str | os.PathLike[str],
    dataset: str = "manifest",
    expression_map: str = "aff_wild2",
    au_threshold: float | None = None,
    va_range: tuple[float, float] = (-1.0, 1.0),
    missing_values: Sequence[float] = (-1.0, -5.0),
    say: Callable[[str], None] = lambda line: None,
) -> tables.FrameTable:
    """Reads a manifest.

    Args:
        path: CSV (comma, semicolon or tab, a header line, UTF-8) or Parquet.
        image_root: folder below which the images lie; not looked at here.
        dataset: name for the column `dataset`.
        expression_map: a name in `expression_maps.MAPS` or a JSON file, see `find_map`.
        au_threshold: intensity from which on an action unit is present (present if intensity >=
            threshold, absent below); None: action units are 0 or 1.
        va_range: valence and arousal at their lowest and highest, mapped to [-1, 1] linearly.
        missing_values: numbers that mean a missing label, besides empty cells. They count where
            they are no valid label: outside `va_range`, below 0 in action units.
        say: is given one line on each thing that was left out or translated.

    Returns:
        The sorted table; `row` is the line in the file (of a Parquet file, the row from 1).

    Raises:
        ConfigError: the expression map is unknown.
        AnnotationError: the file cannot be read or has faults; names path, line and remedy.
    """
    classes = expression_maps.find_map(expression_map)
    columns = read_columns(path, lambda name: _our_name(name) is not None)
    names = _name_columns(columns, path, say)
    faults = FaultList(path)
    missing = frozenset(missing_values)
    images = _images(columns, names["image"], faults)
    videos, numbers = _places(columns, names, images, faults)
    va_N2 = np.stack(
        [
            affect(columns, names.get(name), name, va_range, missing, faults)
            for name in tasks.VA_NAMES
        ],
        axis=1,
    )
    expression_N = expressions(columns, names.get("expression"), classes, expression_map, say)
    au_NA = np.stack(
        [
            action_units(columns, names.get(name), name, au_threshold, missing, faults)
            for name in tasks.AU_NAMES
        ],
        axis=1,
    )
    faults.raise_if_any()
    return tables.FrameTable.from_columns(
        dataset=dataset,
        video=videos,
        frame=numbers,
        image=images,
        root=os.fspath(image_root),
        valence=va_N2[:, 0],
        arousal=va_N2[:, 1],
        expression=expression_N,
        au=au_NA,
        row=columns.lines,
    )


def _our_name(column: str) -> str | None:
    """What a column of the file is called here, or None if it is none of ours."""
    name = column.strip(WHITESPACE).lower()
    unit = _AU_COLUMN.fullmatch(name)
    if unit and int(unit[1]) in tasks.AU_NUMBERS:
        return f"au{int(unit[1])}"
    return name if name in _KNOWN else None


def _name_columns(
    columns: Columns, path: str | os.PathLike[str], say: Callable[[str], None]
) -> dict[str, str]:
    """Which column of the file is which of ours."""
    names: dict[str, str] = {}
    for column in columns.cells:
        name = _our_name(column)
        assert name is not None
        if name in names:
            raise AnnotationError(
                f"columns {names[name]!r} and {column!r} both give {name}",
                path=path,
                line=1,
                remedy="keep one of the two",
            )
        names[name] = column
    if "image" not in names:
        raise AnnotationError(
            f"no column image among {', '.join([*columns.cells, *columns.others])[:200]}",
            path=path,
            line=1,
            remedy="the first line names the columns; docs/data_formats.md lists them",
        )
    if columns.others:
        say(f"columns that are not read: {', '.join(columns.others)[:200]}")
    if set(names) <= {"image", "video", "frame"}:
        say("the manifest has no labels")
    return names


def _images(columns: Columns, column: str, faults: FaultList) -> list[str]:
    images = []
    for line, cell in zip(columns.lines, columns.cells[column], strict=True):
        try:
            images.append(check_image_path(cell))
        except ValueError as error:
            faults.add(line, str(error), "name each image by its path below the image folder")
            images.append("")
    return images


def _places(
    columns: Columns, names: dict[str, str], images: list[str], faults: FaultList
) -> tuple[list[str], list[int]]:
    """Video and frame of each row."""
    stems = [os.path.splitext(image)[0] for image in images]
    if "video" not in names:
        videos = stems
    else:
        videos = [cell.strip(WHITESPACE) for cell in columns.cells[names["video"]]]
        for line, video in zip(columns.lines, videos, strict=True):
            if not video or not video.isprintable():
                faults.add(
                    line,
                    f"{video[:40]!r} is no name of a video",
                    "name it, or leave the column out",
                )
    if "frame" in names:
        cells: list[str] = [cell.strip(WHITESPACE) for cell in columns.cells[names["frame"]]]
    elif "video" in names:
        cells = [stem.rsplit("/", 1)[-1] for stem in stems]
    else:
        return videos, [1] * len(videos)
    numbers = []
    for line, cell, image in zip(columns.lines, cells, images, strict=True):
        whole = cell.removesuffix(".0")  # tables with gaps turn whole numbers into 3.0
        if _FRAME_NAME.fullmatch(whole):
            numbers.append(int(whole))
            continue
        numbers.append(0)
        if image:  # else it has a fault already
            faults.add(line, f"{cell[:40]!r} is no frame number", _FRAME_REMEDY)
    return videos, numbers
