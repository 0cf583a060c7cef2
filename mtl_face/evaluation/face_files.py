"""Files of a `FaceTable`: CSV, Parquet or JSON Lines, by the ending of their name.

The columns are those of `FaceTable.columns`. What a row does not have is missing in all formats:
an empty cell, a null. Parquet keeps numbers as they are, and the metadata; CSV and JSON Lines write
six significant digits, and times to a thousandth of a millisecond. Every file is written whole or
not at all, a part of the table at a time.
"""

import contextlib
import csv
import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from mtl_face.errors import UserError, quoted
from mtl_face.face_table import COLUMNS, FaceTable
from mtl_face.files import plain_cell, replacing, safe_cell, unreadable

ENDINGS = (".csv", ".parquet", ".jsonl")

_SCHEMA_KEY = b"mtl_face.faces"
_REMEDY = "use a table that run.py predict wrote (.csv, .parquet or .jsonl)"
_TEXT = ("source", "status", "baseline", "expression")
_INTEGERS = ("frame", "person", *COLUMNS["au_present"])

Writer = Callable[[FaceTable], None]
"""Takes the next rows of a table."""


class FaceFileError(UserError):
    """A file of faces that cannot be read, or a name that is of no format."""


def check_ending(path: str | os.PathLike[str]) -> Path:
    """The path; FaceFileError unless its ending is one of `ENDINGS`."""
    suffix = Path(path).suffix.lower()
    if suffix not in ENDINGS:
        raise FaceFileError(
            f"ends in {suffix!r}, which is no format of tables" if suffix else "has no ending",
            path=path,
            remedy="let the name end in .csv, .parquet or .jsonl",
        )
    return Path(path)


@contextlib.contextmanager
def writing(
    path: str | os.PathLike[str], *, mesh: bool, metadata: dict[str, Any]
) -> Iterator[Writer]:
    """Gives a function that adds rows to a file, which is there when the block succeeds.

    Args:
        path: the file, of one of `ENDINGS`; one that exists is replaced.
        mesh: whether the tables have points.
        metadata: JSON values, kept in Parquet.

    Raises:
        FaceFileError: the ending is none of `ENDINGS`.
        WorkdirError: the place cannot be written, as on a full disk.
    """
    suffix = check_ending(path).suffix.lower()
    names = _names(mesh=mesh)
    with replacing(path) as part:
        if suffix == ".parquet":
            with _parquet(part, names, metadata) as write:
                yield write
            return
        with part.open("w", newline="", encoding="utf-8") as file:
            yield _csv(file, names) if suffix == ".csv" else _json_lines(file)


def write(table: FaceTable, path: str | os.PathLike[str]) -> None:
    """Writes a table; raises as `writing`."""
    with writing(path, mesh=table.mesh is not None, metadata=table.metadata) as write_rows:
        write_rows(table)


def _csv(file: IO[str], names: list[str]) -> Writer:
    writer = csv.writer(file)
    writer.writerow(names)

    def write_rows(table: FaceTable) -> None:
        cells = {
            name: [safe_cell(cell) for cell in column] if name in _TEXT else column
            for name, column in _cells(table).items()
        }
        writer.writerows(zip(*cells.values(), strict=True))

    return write_rows


def _json_lines(file: IO[str]) -> Writer:
    def write_rows(table: FaceTable) -> None:
        cells = _cells(table)
        for row in zip(*cells.values(), strict=True):
            values = dict(zip(cells, row, strict=True))
            file.write(json.dumps(values, ensure_ascii=False, allow_nan=False) + "\n")

    return write_rows


@contextlib.contextmanager
def _parquet(part: Path, names: list[str], metadata: dict[str, Any]) -> Iterator[Writer]:
    import pyarrow
    import pyarrow.parquet

    kinds = {name: pyarrow.string() for name in _TEXT}
    kinds |= {name: pyarrow.int64() for name in ("frame", "person")}
    kinds |= {name: pyarrow.int8() for name in COLUMNS["au_present"]}
    kinds |= {name: pyarrow.float32() for name in COLUMNS["mesh"]}
    schema = pyarrow.schema(
        [(name, kinds.get(name, pyarrow.float64())) for name in names],
        metadata={_SCHEMA_KEY: json.dumps(metadata, sort_keys=True).encode()},
    )
    with pyarrow.parquet.ParquetWriter(part, schema, compression="zstd") as writer:

        def write_rows(table: FaceTable) -> None:
            columns = {
                name: pyarrow.array(column, schema.field(name).type, mask=_missing(name, column))
                for name, column in _texts(table.columns()).items()
            }
            writer.write_table(pyarrow.table(columns, schema=schema))

        yield write_rows


def _texts(columns: dict[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
    r"""The columns, with bytes of a file's name that are not UTF-8 as `\udcff`."""
    for name in _TEXT:
        texts = [str(text).encode("utf-8", "backslashreplace").decode() for text in columns[name]]
        columns[name] = np.asarray(texts, object)
    return columns


def _missing(name: str, column: NDArray[Any]) -> NDArray[np.bool_]:
    """Which values a column does not have."""
    if name in _TEXT:
        return np.asarray(column == "")
    if name in _INTEGERS:
        return np.asarray(column < 0)
    return np.isnan(column)


def _cells(table: FaceTable) -> dict[str, list[Any]]:
    """The columns as Python values, with None, or an empty text, for what is missing."""
    cells: dict[str, list[Any]] = {}
    for name, column in _texts(table.columns()).items():
        values = column.tolist()
        if name in _TEXT:
            cells[name] = values
        elif name in _INTEGERS:
            cells[name] = [value if value >= 0 else None for value in values]
        elif name == "time_ms":
            cells[name] = [None if value != value else round(value, 3) for value in values]
        else:
            cells[name] = [None if value != value else float(f"{value:.6g}") for value in values]
    return cells


def read(path: str | os.PathLike[str]) -> FaceTable:
    """Reads a table that `write` wrote, by its ending.

    Further columns are ignored. The metadata are empty unless the file is Parquet.

    Raises:
        FaceFileError: the file is missing, of another kind, lacks a column, or holds something
            that is no number.
    """
    suffix = check_ending(path).suffix.lower()
    try:
        if suffix == ".parquet":
            columns, metadata = _read_parquet(path)
        else:
            columns, metadata = (_read_csv if suffix == ".csv" else _read_json_lines)(path), {}
    except OSError as error:
        problem, remedy = unreadable(error, "table")
        raise FaceFileError(problem, path=path, remedy=remedy) from error
    absent = next((name for name in _names(mesh=False) if name not in columns), None)
    if absent is not None:
        raise FaceFileError(f"has no column {absent}", path=path, remedy=_REMEDY)
    try:
        return FaceTable.from_columns(_typed(columns, path), metadata)
    except KeyError as error:  # of the classes
        problem = f"{quoted(str(error.args[0]))} is no expression"
        raise FaceFileError(problem, path=path, remedy=_REMEDY) from error


def _read_parquet(path: str | os.PathLike[str]) -> tuple[dict[str, Any], dict[str, Any]]:
    import pyarrow
    import pyarrow.parquet

    try:
        with pyarrow.parquet.ParquetFile(path) as file:
            metadata = json.loads((file.schema_arrow.metadata or {}).get(_SCHEMA_KEY, b"{}"))
            table = file.read()
    except (pyarrow.ArrowException, ValueError) as error:
        problem = f"is no readable Parquet file ({error})"
        raise FaceFileError(problem, path=path, remedy=_REMEDY) from error
    columns: dict[str, Any] = {}
    for name in table.column_names:
        column = table.column(name)
        columns[name] = column.to_pylist() if name in _TEXT else column.to_numpy()
    return columns, metadata


def _read_csv(path: str | os.PathLike[str]) -> dict[str, list[Any]]:
    # utf-8-sig: a spreadsheet that saved the file may have put a byte order mark at its start
    with open(path, newline="", encoding="utf-8-sig") as file:
        reader = csv.reader(file, strict=True)
        try:
            header = next(reader, [])
            rows = []
            for fields in reader:
                if len(fields) != len(header):
                    raise FaceFileError(
                        f"has {len(fields)} fields, the header has {len(header)}",
                        path=path,
                        line=reader.line_num,
                        remedy="restore the line, or write the table again",
                    )
                rows.append(fields)
        except (UnicodeDecodeError, csv.Error) as error:
            problem = f"is no CSV ({error})"
            raise FaceFileError(problem, path=path, remedy=_REMEDY) from error
    cells = zip(*rows, strict=True) if rows else ((),) * len(header)
    return {
        name: [plain_cell(cell) for cell in column] if name in _TEXT else list(column)
        for name, column in zip(header, cells, strict=True)
    }


def _read_json_lines(path: str | os.PathLike[str]) -> dict[str, list[Any]]:
    columns: dict[str, list[Any]] = {}
    with open(path, encoding="utf-8") as file:
        for number, line in enumerate(file, start=1):
            try:
                values = json.loads(line)
                if number > 1 and values.keys() != columns.keys():
                    raise ValueError("other columns than the first line")
                for name, value in values.items():
                    columns.setdefault(name, []).append(value)
            except (ValueError, AttributeError, RecursionError) as error:
                raise FaceFileError(
                    f"is no row of a table ({error})", path=path, line=number, remedy=_REMEDY
                ) from error
    return columns or {name: [] for name in _names(mesh=False)}


def _names(*, mesh: bool) -> list[str]:
    return [name for field, names in COLUMNS.items() if field != "mesh" or mesh for name in names]


def _typed(columns: dict[str, Any], path: str | os.PathLike[str]) -> dict[str, NDArray[Any]]:
    """Values that were read as the columns of a table."""
    typed: dict[str, NDArray[Any]] = {}
    for name in _names(mesh=True):
        if name not in columns:
            continue
        values = columns[name]
        if name in _TEXT:
            typed[name] = np.asarray(["" if value is None else str(value) for value in values], str)
            continue
        if not isinstance(values, np.ndarray):
            values = [np.nan if value in (None, "") else value for value in values]
        try:
            column = np.asarray(values, np.float64)
        except (ValueError, TypeError) as error:
            problem = f"column {name} holds what is no number ({quoted(str(error))})"
            raise FaceFileError(problem, path=path, remedy=_REMEDY) from error
        if name in _INTEGERS:
            missing = -1 if name in COLUMNS["au_present"] else 0
            column = np.where(np.isnan(column), missing, column).astype(np.int64)
        typed[name] = column
    return typed
