"""A user's own table, and lists of others without a header line."""

from collections.abc import Iterator, Sequence
from pathlib import Path

from data_pipeline.formats.editions import MULTI_TASK
from data_pipeline.formats.layouts import facs
from data_pipeline.formats.layouts.layout import (
    IMAGE_CELL,
    Labels,
    Layout,
    Place,
    Rows,
    table_files,
)
from data_pipeline.formats.manifest import known_name
from data_pipeline.formats.user_files import Columns, FaultList, peek, read_columns
from data_pipeline.formats.values import MISSING_CLASS, MISSING_VA
from mtl_face import tasks
from mtl_face.errors import AnnotationError, shortened

_CHALLENGE = ("image", *(name.lower() for name in MULTI_TASK.columns))


def is_row(cells: Sequence[str]) -> bool:
    """Whether a file's first line is a row, not the header: one of its cells names an image."""
    return any(IMAGE_CELL.fullmatch(cell) for cell in cells)


def _read(place: Place) -> Iterator[Labels]:
    files = table_files(place.path)
    if not files:
        raise AnnotationError(
            "the folder holds no .csv file, nor labels of a known layout",
            path=place.path,
            remedy="name the file or folder of the labels; docs/layouts.md lists the layouts",
        )
    for file in files:
        header = place.settings.columns
        first = (peek(file) or [[]])[0]
        if is_row(first) and header is None:
            raise AnnotationError(
                f"no header line: the first line is a row of {len(first)} cells",
                path=file,
                line=1,
                remedy="name its columns in their order, as in "
                "data.manifest.columns=image,expression, or put a header line above it",
            )
        if header is not None and not is_row(first):
            raise AnnotationError(
                f"the first line names no image, and is no row: {', '.join(shortened(first, 5))}",
                path=file,
                line=1,
                remedy="data.manifest.columns is for a file without a header line: leave it out",
            )
        if header is not None and len(header) != len(first):
            raise AnnotationError(
                f"{len(first)} cells, data.manifest.columns names {len(header)}",
                path=file,
                line=1,
                remedy="name every column, also those that are not read; write numbers with a "
                "decimal point",
            )
        faults = place.faults(file)
        columns = read_columns(file, lambda name: known_name(name) is not None, faults, header)
        yield _without_nines(columns, faults, place)


def _without_nines(columns: Columns, faults: FaultList, place: Place) -> Labels:
    """The table; with 9 in units as missing, if they hold 0, 1 and 9 alone as BP4D's do."""
    units = {name: cells for name, cells in columns.cells.items() if _is_unit(name)}
    values = {cell.strip() for cell in set().union(*units.values())}
    counts: dict[str, int] = {}
    threshold = place.settings.au_threshold
    coded_as_bp4d = "9" in values and values <= {"0", "1", "9", "", "nan"}
    if place.settings.layout == "auto" and threshold is None and coded_as_bp4d:
        units, counts = facs.without_nines(units)
        columns = Columns({**columns.cells, **units}, columns.others, columns.lines)
    return Labels(
        faults,
        columns,
        expression_map=place.settings.expression_map,
        au_threshold=threshold,
        counts=counts,
    )


def _is_unit(name: str) -> bool:
    return known_name(name) in tasks.AU_NAMES


MANIFEST = Layout("manifest", "a table of the user's own", lambda path, rows: True, _read)


def _is_challenge(path: Path, rows: Rows) -> bool:
    return (
        bool(rows)
        and is_row(rows[0][:1])
        and len(rows[0]) >= len(_CHALLENGE)
        and not any(rows[0][len(_CHALLENGE) :])  # behind commas at the end of a line
    )


def _read_challenge(place: Place) -> Iterator[Labels]:
    width = len(peek(place.path)[0])
    behind = [f"behind {number}" for number in range(len(_CHALLENGE), width)]
    faults = place.faults(place.path)
    columns = read_columns(
        place.path, lambda name: name in _CHALLENGE, faults, [*_CHALLENGE, *behind]
    )
    missing = {**dict.fromkeys(tasks.VA_NAMES, MISSING_VA), "expression": MISSING_CLASS}
    cells = {
        name: ["" if _is(cell, missing.get(name, MISSING_CLASS)) else cell for cell in column]
        if name != "image"
        else column
        for name, column in columns.cells.items()
    }
    folders = [image.replace("\\", "/").rsplit("/", 1)[0].strip() for image in cells["image"]]
    yield Labels(faults, Columns({**cells, "video": folders}, [], columns.lines))


def _is(cell: str, number: float) -> bool:
    return cell.strip().removesuffix(".0") == f"{number:g}"


CHALLENGE = Layout(
    "challenge_rows",
    "rows of s-Aff-Wild2 without their header line",
    _is_challenge,
    _read_challenge,
)
