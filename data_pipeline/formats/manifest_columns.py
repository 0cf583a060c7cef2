"""The cells of a CSV or Parquet file as columns of text."""

import csv
import dataclasses
import io
import os
from collections.abc import Callable

from data_pipeline.formats.text_file import FaultList, read_bytes, to_text
from mtl_face.errors import AnnotationError

_PARQUET_REMEDY = "write the file again, or use CSV"


@dataclasses.dataclass(frozen=True)
class Columns:
    """A table of text.

    Attributes:
        cells: cells of each column that was wanted, from its name; empty text where one is empty.
        others: names of the other columns.
        lines: line of each row in the file; of a Parquet file the row, from 1.
    """

    cells: dict[str, list[str]]
    others: list[str]
    lines: list[int]


def read_columns(path: str | os.PathLike[str], wanted: Callable[[str], bool]) -> Columns:
    """Reads a CSV file (comma, semicolon or tab) or a Parquet file, told apart by its content.

    Args:
        path: the file.
        wanted: whether a column of this name is to be read.

    Returns:
        The columns.

    Raises:
        AnnotationError: the file cannot be read as either, has no rows, repeats a column's name,
            or a row has more or fewer cells than the header; names path, line and remedy.
    """
    content = read_bytes(path)
    read = _parquet if content[:4] == b"PAR1" else _csv
    columns = read(content, path, wanted)
    if not columns.lines:
        raise AnnotationError(
            "no rows below the header", path=path, line=1, remedy="write one row an image"
        )
    return columns


def _csv(content: bytes, path: str | os.PathLike[str], wanted: Callable[[str], bool]) -> Columns:
    text = to_text(content, path)
    header_line = text.lstrip("\n").split("\n", 1)[0]
    separator = next((mark for mark in ",;\t" if mark in header_line), ",")
    reader = csv.reader(io.StringIO(text, newline="\n"), delimiter=separator, strict=True)
    faults = FaultList(path)
    header: list[str] = []
    rows: list[list[str]] = []
    lines: list[int] = []
    try:
        for row in reader:
            if not any(row):
                continue
            if not header:
                header = [name.strip() for name in row]
                _check_names(header, path, reader.line_num)
            elif len(row) != len(header):
                faults.add(
                    reader.line_num,
                    f"{len(row)} cells, the header has {len(header)}",
                    "give each row as many cells as the header; quote text with commas",
                )
            else:
                rows.append(row)
                lines.append(reader.line_num)
    except csv.Error as error:
        raise AnnotationError(
            f"no CSV ({error})",
            path=path,
            line=max(reader.line_num, 1),
            remedy="close every quotation mark, and double those within quoted text",
        ) from error
    faults.raise_if_any()
    cells = {
        name: [row[position] for row in rows]
        for position, name in enumerate(header)
        if wanted(name)
    }
    return Columns(cells, [name for name in header if name not in cells], lines)


def _parquet(
    content: bytes, path: str | os.PathLike[str], wanted: Callable[[str], bool]
) -> Columns:
    import pyarrow
    import pyarrow.parquet

    try:
        with pyarrow.parquet.ParquetFile(io.BytesIO(content)) as file:
            names = file.schema_arrow.names
            _check_names(names, path, None)
            kept = [name for name in names if wanted(name)]
            table = file.read(columns=kept)
        columns = {name: table.column(name).to_pylist() for name in kept}
    # Damaged files raise whatever the damage leads to, besides Arrow's own exceptions.
    except (pyarrow.ArrowException, OSError, ValueError, TypeError, LookupError) as error:
        reason = str(error).splitlines()[0][:200] if str(error) else type(error).__name__
        raise AnnotationError(
            f"no readable Parquet file ({reason})", path=path, remedy=_PARQUET_REMEDY
        ) from error
    cells = {
        name: ["" if value is None else str(value) for value in column]
        for name, column in columns.items()
    }
    others = [name for name in names if name not in cells]
    return Columns(cells, others, list(range(1, table.num_rows + 1)))


def _check_names(names: list[str], path: str | os.PathLike[str], line: int | None) -> None:
    repeated = sorted({name for name in names if names.count(name) > 1})
    if repeated:
        raise AnnotationError(
            f"column {repeated[0]!r} stands there more than once",
            path=path,
            line=line,
            remedy="keep one of them",
        )
