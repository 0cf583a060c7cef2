"""Prediction tables as files: Parquet to keep, CSV to look at.

Parquet holds the table and its metadata exactly. CSV holds the same columns (every number reads
back bit for bit, names are written by `files.safe_cell`) without the metadata, followed by the
decisions in readable form: `expression` (a name) and `au1_present` ... `au26_present` (0 or 1).
`read` takes both and ignores columns that it does not know. The decisions of a calibrated table
depend on its metadata: such a CSV can be looked at, and `read` refuses it. Every file is written
whole or not at all.
"""

import csv
import itertools
import json
import operator
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mtl_face import probabilities
from mtl_face.errors import quoted, shortened
from mtl_face.files import plain_cell, replacing, unreadable, write_csv
from mtl_face.tables import (
    KEY_COLUMNS,
    OPTIONAL_COLUMNS,
    REQUIRED_COLUMNS,
    PredictionError,
    PredictionTable,
)
from mtl_face.tasks import AU_NAMES

_SCHEMA_KEY = b"mtl_face.predictions"
_REMEDY = "use a file of predictions that this program wrote (.parquet or .csv)"
_READ_COLUMNS = (*REQUIRED_COLUMNS, *itertools.chain(*OPTIONAL_COLUMNS.values()))
_DECISION_COLUMNS = ("expression", *(f"{name}_present" for name in AU_NAMES))
_TEXT_COLUMNS = tuple(name for name in KEY_COLUMNS if name != "frame")


def lost(table: PredictionTable, path: str | os.PathLike[str]) -> list[str]:
    """A line on what a file of this name does not keep, where that leads to mistakes; else none.

    A calibrated table needs none: `read` refuses its CSV.
    """
    smoothed = table.metadata.get("smoothing") and not table.is_calibrated
    if not smoothed or Path(path).suffix.lower() != ".csv":
        return []
    return [
        "note: a .csv does not say that it was smoothed, and could be taken for predictions as the "
        "network made them; a .parquet says it"
    ]


def write(table: PredictionTable, path: str | os.PathLike[str]) -> None:
    """Writes a table by the ending of its path: `.parquet`, or `.csv` (UTF-8, comma, header line).

    The metadata go into the Parquet schema as JSON. A file that exists is replaced, missing folders
    are made.

    Raises:
        PredictionError: the ending is neither, or the table has no logits.
        WorkdirError: the place cannot be written.
        TypeError: the metadata hold something that is no JSON value.
    """
    suffix = Path(path).suffix.lower()
    if suffix not in (".parquet", ".csv"):
        raise PredictionError(
            f"ends in {suffix!r}, which is no format of predictions",
            path=path,
            remedy="let the name end in .parquet or .csv",
        )
    columns = table.columns()
    if suffix == ".csv":
        columns |= table.readable_decisions()
        # tolist gives Python floats, whose text is the shortest that reads back the same
        rows = zip(*(column.tolist() for column in columns.values()), strict=True)
        write_csv(path, itertools.chain([tuple(columns)], rows))
        return
    import pyarrow
    import pyarrow.parquet

    metadata = {_SCHEMA_KEY: json.dumps(table.metadata, sort_keys=True).encode()}
    arrow = pyarrow.table(columns, metadata=metadata)
    with replacing(path) as part:
        pyarrow.parquet.write_table(arrow, part, compression="zstd")


def read(path: str | os.PathLike[str]) -> PredictionTable:
    """Reads a table that `write` wrote, whatever its name ends in.

    The metadata of a table from CSV are empty.

    Raises:
        PredictionError: the file is missing, empty, of another kind, lacks a column, or holds
            something that is no number; with the line, in CSV.
    """
    start = _first_line(path)
    if not start:
        raise PredictionError("is empty", path=path, remedy=_REMEDY)
    return _read_parquet(path) if start.startswith(b"PAR1") else _read_csv(path)


def is_one(path: str | os.PathLike[str]) -> bool:
    """Whether a file is Parquet, or CSV with a column of logits.

    Raises:
        PredictionError: the file cannot be read.
    """
    header = _first_line(path)
    return header.startswith(b"PAR1") or Path(path).suffix == ".parquet" or b"_logit" in header


def _first_line(path: str | os.PathLike[str]) -> bytes:
    """The first line, of at most 4096 bytes; PredictionError if the file cannot be read."""
    try:
        with open(path, "rb") as file:
            return file.readline(4096)
    except OSError as error:
        problem, remedy = unreadable(error, "file of predictions")
        raise PredictionError(problem, path=path, remedy=remedy) from error


def _check_columns(names: Iterable[str], path: str | os.PathLike[str], line: int | None) -> None:
    """Raises PredictionError unless all required columns are there."""
    found = list(names)
    missing = [name for name in REQUIRED_COLUMNS if name not in found]
    if missing:
        listed = ", ".join(shortened(missing, 3))
        raise PredictionError(f"has no column {listed}", path=path, line=line, remedy=_REMEDY)
    repeated = sorted({name for name in found if found.count(name) > 1})
    if repeated:
        raise PredictionError(
            f"has column {quoted(repeated[0])} more than once", path=path, line=line, remedy=_REMEDY
        )
    for meaning, group in OPTIONAL_COLUMNS.items():
        if 0 < len(set(group) & set(found)) < len(group):
            absent = next(name for name in group if name not in found)
            raise PredictionError(
                f"has some of the columns of {meaning}, {absent} not among them",
                path=path,
                line=line,
                remedy=f"keep all columns of {meaning} or none",
            )


def _read_parquet(path: str | os.PathLike[str]) -> PredictionTable:
    import pyarrow
    import pyarrow.parquet

    try:
        # ParquetFile reads this one file; read_table would also take folder names as columns
        with pyarrow.parquet.ParquetFile(path) as file:
            schema = file.schema_arrow
            _check_columns(schema.names, path, None)
            wanted = [name for name in _READ_COLUMNS if name in schema.names]
            arrow = file.read(columns=wanted)
    except (pyarrow.ArrowException, OSError) as error:
        problem = f"is no readable Parquet file ({error})"
        raise PredictionError(problem, path=path, remedy=_REMEDY) from error
    columns: dict[str, NDArray[Any]] = {}
    for name in wanted:
        column = arrow.column(name)
        kind = column.type
        fits = (
            pyarrow.types.is_string(kind) or pyarrow.types.is_large_string(kind)
            if name in _TEXT_COLUMNS
            else pyarrow.types.is_integer(kind)
            if name == "frame"
            else pyarrow.types.is_floating(kind)
        )
        if not fits or column.null_count:
            found = f"{column.null_count} empty values" if fits else f"type {kind}"
            raise PredictionError(f"column {name} has {found}", path=path, remedy=_REMEDY)
        columns[name] = column.to_numpy()
    try:
        metadata = json.loads((schema.metadata or {}).get(_SCHEMA_KEY, b"{}"))
        if stated := probabilities.stated(metadata):
            metadata["probability"] = stated
        return PredictionTable.from_columns(columns, metadata)
    except (ValueError, AttributeError, KeyError, TypeError) as error:  # no JSON, or another shape
        raise PredictionError("has damaged metadata", path=path, remedy=_REMEDY) from error


def _read_csv(path: str | os.PathLike[str]) -> PredictionTable:
    # utf-8-sig: a spreadsheet that saved the file may have put a byte order mark at its start
    with open(path, newline="", encoding="utf-8-sig") as file:
        reader = csv.reader(file, strict=True)
        try:
            header = next(reader)
            _check_columns(header, path, reader.line_num)
            rows, lines = [], []
            for fields in reader:
                if len(fields) != len(header):
                    raise PredictionError(
                        f"has {len(fields)} fields, the header has {len(header)}",
                        path=path,
                        line=reader.line_num,
                        remedy="restore the line, or write the file again",
                    )
                rows.append(fields)
                lines.append(reader.line_num)
        except (UnicodeDecodeError, csv.Error) as error:
            problem = f"is neither Parquet nor CSV ({error})"
            raise PredictionError(problem, path=path, remedy=_REMEDY) from error
    cells = dict(zip(header, zip(*rows, strict=True) if rows else ((),) * len(header), strict=True))
    columns = {
        name: _values(name, cells[name], lines, path) for name in _READ_COLUMNS if name in cells
    }
    table = PredictionTable.from_columns(columns, {})
    if rows and set(_DECISION_COLUMNS) <= cells.keys():
        _check_decisions(table, [cells[name] for name in _DECISION_COLUMNS], path)
    return table


def _check_decisions(
    table: PredictionTable, written: list[Sequence[str]], path: str | os.PathLike[str]
) -> None:
    """Raises PredictionError if the written decisions are not those that the logits give."""
    decided = [map(str, column.tolist()) for column in table.readable_decisions().values()]
    differ = sum(map(operator.ne, zip(*decided, strict=True), zip(*written, strict=True)))
    if differ:
        raise PredictionError(
            f"holds {differ} rows whose decisions are not those of their logits: "
            "the predictions were calibrated, and CSV does not carry the calibration",
            path=path,
            remedy="use the .parquet file of the same predictions",
        )


def _values(
    name: str, cells: Sequence[str], lines: Sequence[int], path: str | os.PathLike[str]
) -> NDArray[Any]:
    """A column's text as values; PredictionError if a cell is no number."""
    if name in _TEXT_COLUMNS:
        return np.asarray([plain_cell(cell) for cell in cells], np.str_)
    is_frame = name == "frame"
    kind = np.int64 if is_frame else np.float64
    taken = iter(cells)
    try:
        return np.fromiter(map(int if is_frame else float, taken), kind, len(cells))
    except (ValueError, OverflowError) as error:
        row = len(cells) - sum(1 for _ in taken) - 1  # the last that was taken is at fault
        raise PredictionError(
            f"{quoted(cells[row])} is no {'frame number' if is_frame else 'number'}",
            path=path,
            line=lines[row],
            remedy="restore the line, or write the file again",
        ) from error
