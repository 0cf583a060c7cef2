"""A manifest: anyone's own images and labels as one CSV or Parquet file, one row an image.

Columns, by name (in any order, upper or lower case, others are named and ignored):

    image       path of the image below the image folder (required)
    video       name of the video; without it, each image is a video of its own
    frame       number of the frame in its video; without it, the image's file name must be one
    valence     number in the range that the setting `va_range` gives
    arousal     the same
    expression  class number or word, translated by an expression map
    au1 ... au26  any subset of the twelve action units, also written AU01, AU01_r or AU01_c

An empty cell is a missing label; `nan`, `na`, `none` and `null` as well.

Dimension letters: N rows, A action units (12).
"""

import collections
import os
import re
from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from data_pipeline.formats.expression_maps import ExpressionMap, find_map
from data_pipeline.formats.user_files import WHITESPACE, Columns, FaultList, read_columns
from data_pipeline.formats.values import check_image_path, to_number
from mtl_face import tables, tasks
from mtl_face.config.schema import ManifestConfig
from mtl_face.errors import AnnotationError

_KNOWN = ("image", "video", "frame", *tasks.VA_NAMES, "expression")
_AU_COLUMN = re.compile(r"au0*([1-9][0-9]?)(?:_[rc])?", re.ASCII)
_FRAME_NAME = re.compile(r"[0-9]{1,18}", re.ASCII)
_FRAME_REMEDY = "add a column frame, with whole numbers that do not go below 0"
_MISSING_WORDS = frozenset(("", "nan", "na", "n/a", "none", "null"))


def read_manifest(
    path: str | os.PathLike[str],
    settings: ManifestConfig,
    *,
    image_root: str | os.PathLike[str],
    dataset: str = "manifest",
    say: Callable[[str], None] = lambda line: None,
) -> tables.FrameTable:
    """Reads a manifest: CSV (comma, semicolon or tab, a header line, UTF-8) or Parquet.

    The settings say what its labels mean. Valence and arousal are mapped linearly from `va_range`
    to [-1, 1]; an action unit of an intensity is present from `au_threshold` on; `missing_values`
    count where they are no valid label: outside `va_range`, below 0 in action units. The images are
    not looked at. `say` is given one line on each thing that was left out or translated.

    Returns:
        The sorted table; `row` is the line in the file (of a Parquet file, the row from 1).

    Raises:
        ConfigError: the expression map is unknown.
        AnnotationError: the file cannot be read or has faults; names path, line and remedy.
    """
    columns = read_columns(path, lambda name: known_name(name) is not None)
    return to_table(columns, settings, path=path, image_root=image_root, dataset=dataset, say=say)


def to_table(
    columns: Columns,
    settings: ManifestConfig,
    *,
    path: str | os.PathLike[str],
    image_root: str | os.PathLike[str],
    dataset: str,
    say: Callable[[str], None],
) -> tables.FrameTable:
    """The table of columns that are named as a manifest's; as `read_manifest`, without a file.

    `path` is named in errors.
    """
    classes = find_map(settings.expression_map)
    names = _name_columns(columns, path, say)
    faults = FaultList(path)
    images = []
    for line, cell in zip(columns.lines, columns.cells[names["image"]], strict=True):
        try:
            images.append(check_image_path(cell))
        except ValueError as error:
            faults.add(line, str(error), "name each image by its path below the image folder")
            images.append("")
    videos, numbers = _places(columns, names, images, faults)
    labels = _Labels(columns, names, settings, faults)
    va_N2 = np.stack([labels.affect(name) for name in tasks.VA_NAMES], axis=1)
    expression_N = labels.expressions(classes, say)
    au_NA = np.stack([labels.action_unit(name) for name in tasks.AU_NAMES], axis=1)
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


def known_name(column: str) -> str | None:
    """What a manifest's column of this name gives: `image`, `au1` and the like; None for others."""
    name = column.strip(WHITESPACE).lower()
    unit = _AU_COLUMN.fullmatch(name)
    if unit and int(unit[1]) in tasks.AU_NUMBERS:
        return f"au{int(unit[1])}"
    return name if name in _KNOWN else None


def _name_columns(
    columns: Columns, path: str | os.PathLike[str], say: Callable[[str], None]
) -> dict[str, str]:
    """The file's name of each known column."""
    names: dict[str, str] = {}
    for column in columns.cells:
        name = known_name(column)
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
                problem = f"{video[:40]!r} is no name of a video"
                faults.add(line, problem, "name it, or leave the column out")
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


class _Labels:
    """Labels as numbers in this project's ranges, from cells of text."""

    def __init__(
        self, columns: Columns, names: dict[str, str], settings: ManifestConfig, faults: FaultList
    ) -> None:
        self._columns, self._names = columns, names
        self._settings, self._faults = settings, faults

    def affect(self, name: str) -> npt.NDArray[np.float64]:
        """Valence or arousal, float64 [N] in [-1, 1], NaN where missing."""
        low, high = self._settings.va_range
        value_N = self._numbers(name)
        self._check(
            name,
            value_N,
            (value_N >= low) & (value_N <= high),
            f"outside [{low:g}, {high:g}]",
            "set data.manifest.va_range to the scale of the file, or "
            "data.manifest.missing_values to the numbers that mark a missing label",
        )
        # Scaling may round past the ends by one bit.
        return np.clip((value_N - low) / (high - low) * 2 - 1, -1.0, 1.0)

    def action_unit(self, name: str) -> npt.NDArray[np.float64]:
        """One action unit, float64 [N] of 0 and 1, NaN where missing."""
        threshold = self._settings.au_threshold
        value_N = self._numbers(name)
        if threshold is None:
            valid_N = np.isin(value_N, (0, 1))
            allowed = "neither 0 nor 1"
            remedy = "set data.manifest.au_threshold if the file holds intensities"
        else:
            valid_N = (value_N >= 0) & (value_N <= 5)
            allowed = "no intensity from 0 to 5"
            remedy = "set data.manifest.missing_values to the numbers that mark a missing label"
        self._check(name, value_N, valid_N, allowed, remedy)
        if threshold is None:
            return value_N
        return np.where(np.isnan(value_N), np.nan, value_N >= threshold)

    def expressions(
        self, classes: ExpressionMap, say: Callable[[str], None]
    ) -> npt.NDArray[np.int8]:
        """Classes of this project, int8 [N], -1 where missing or without counterpart."""
        expression_N = np.full(len(self._columns.lines), -1, np.int8)
        index = {name: number for number, name in enumerate(tasks.EXPRESSION_NAMES)}
        unmapped: collections.Counter[str] = collections.Counter()
        for row, cell in enumerate(self._cells("expression")):
            label = cell.strip(WHITESPACE).lower()
            whole = label.removesuffix(".0")
            name = classes.get(label, classes.get(whole))
            if name is not None:
                expression_N[row] = index[name]
            elif label not in _MISSING_WORDS and whole != "-1":
                unmapped[whole] += 1
        if unmapped:
            shown = ", ".join(f"{label[:20]!r} {count}" for label, count in unmapped.most_common(8))
            say(
                f"{sum(unmapped.values())} expressions have no counterpart in the map "
                f"{self._settings.expression_map} and count as missing: {shown}"
            )
        return expression_N

    def _check(
        self,
        name: str,
        value_N: npt.NDArray[np.float64],
        valid_N: npt.NDArray[np.bool_],
        problem: str,
        remedy: str,
    ) -> None:
        """Sets marks of missing labels to NaN, and adds a fault for each other invalid value."""
        value_N[~valid_N & np.isin(value_N, self._settings.missing_values)] = np.nan
        for row in np.flatnonzero(~valid_N & ~np.isnan(value_N)).tolist():
            line = self._columns.lines[row]
            self._faults.add(line, f"{name} is {value_N[row]:g}, {problem}", remedy)

    def _cells(self, name: str) -> list[str]:
        return self._columns.cells[self._names[name]] if name in self._names else []

    def _numbers(self, name: str) -> npt.NDArray[np.float64]:
        """A column as numbers, NaN where empty, or where there is no such column."""
        value_N = np.full(len(self._columns.lines), np.nan)
        for row, cell in enumerate(self._cells(name)):
            text = cell.strip(WHITESPACE)
            if text.lower() in _MISSING_WORDS:
                continue
            try:
                value_N[row] = to_number(text)
            except ValueError:
                self._faults.add(
                    self._columns.lines[row],
                    f"{name} is {text[:40]!r}, not a number",
                    "write numbers with a decimal point; leave the cell of a missing label empty",
                )
        return value_N
