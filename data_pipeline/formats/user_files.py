"""Files that a user supplied, as text or as columns of text, and their faults in one message."""

import csv
import dataclasses
import os
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from mtl_face import files
from mtl_face.errors import AnnotationError, quoted

MAX_FAULTS_SHOWN = 10

PEEKED = 2**20
"""Bytes of a file that `peek` reads: the header and the first rows of any table."""

LONGEST_LINE = 100_000
"""Characters. Messages quote lines; a longer one is of a file of another kind."""

_IMAGE_FIRST = re.compile(
    r'(?P<quote>"?)[^,;|\t"]+\.(?:jpe?g|jpe|jfif|png|bmp|tiff?|webp|gif)(?P=quote) *'
    r"(?P<mark>[,;|\t ])",
    re.IGNORECASE,
)
"""A row that begins with an image; what separates its cells comes next."""

_SEPARATOR_LINE = re.compile(r"sep=(?P<mark>[,;|\t])[,;|\t\s]*", re.IGNORECASE)
"""What spreadsheets write above a table, to say what separates its cells."""

WHITESPACE = " \t\v\f"
"""Stripped around a value. Unicode's other blanks may belong to a file name."""


_UNDECODED = re.compile("[\udc80-\udcff]")
"""What bytes become that are not UTF-8, where lines with such bytes may be left out."""


def read_lines(path: str | os.PathLike[str], faults: "FaultList | None" = None) -> list[str]:
    """Reads a UTF-8 text file as lines without line ends.

    A byte order mark and Windows or old Macintosh line ends are accepted. Line i of an editor is
    element i - 1: unlike `str.splitlines`, rare separators such as U+2028 do not end a line.
    Errors are those of `read_bytes` and `to_text`; where `faults` skips, a line that is not UTF-8
    below the first is a fault of its own.
    """
    skips = faults is not None and faults.skips
    lines = to_text(read_bytes(path), path, keep_undecodable=skips).split("\n")
    for number, line in enumerate(lines, start=1) if skips else ():
        if problem := _not_utf8(line):
            assert faults is not None
            faults.add(number, problem, _UTF8_REMEDY)
    return lines


def _not_utf8(text: str) -> str | None:
    """The first byte that is not UTF-8, in words, of a text that keeps such bytes."""
    if text.isascii() or not (found := _UNDECODED.search(text)):
        return None
    return f"byte 0x{ord(found[0]) - 0xDC00:02x} is not UTF-8 text"


_UTF8_REMEDY = "save it as plain text in UTF-8; an archive or spreadsheet must be exported"


def read_bytes(path: str | os.PathLike[str]) -> bytes:
    """A file's content; AnnotationError if it is missing, a folder or unreadable."""
    try:
        with open(path, "rb") as file:
            return file.read()
    except OSError as error:
        problem, remedy = files.unreadable(error, "file")
        raise AnnotationError(problem, path=path, remedy=remedy) from error


def text_files(folder: str | os.PathLike[str], *, remedy: str) -> list[Path]:
    """The files `*.txt` of a folder, by name; AnnotationError if there are none."""
    found = sorted(Path(folder).glob("*.txt"))
    if not found:
        raise AnnotationError("the folder holds no .txt file", path=folder, remedy=remedy)
    return found


def to_text(content: bytes, path: str | os.PathLike[str], *, keep_undecodable: bool = False) -> str:
    """Decodes UTF-8 without a byte order mark; every line end becomes a line feed.

    AnnotationError if `content` is empty, not UTF-8, or has a line above `LONGEST_LINE`.
    `keep_undecodable` turns bytes that are not UTF-8 into lone surrogates below the first line.
    """
    try:
        if keep_undecodable:
            begin = len(content) - len(content.lstrip())
            content[: content.find(b"\n", begin)].decode("utf-8-sig")
        text = content.decode("utf-8-sig", "surrogateescape" if keep_undecodable else "strict")
    except UnicodeDecodeError as error:
        before = content[: error.start].replace(b"\r\n", b"\n").replace(b"\r", b"\n")
        raise AnnotationError(
            f"byte 0x{content[error.start]:02x} is not UTF-8 text",
            path=path,
            line=before.count(b"\n") + 1,
            remedy=_UTF8_REMEDY,
        ) from error
    if not text.strip():
        raise AnnotationError(
            "the file is empty", path=path, line=1, remedy="download or write it again"
        )
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    if len(text) > LONGEST_LINE:
        for number, line in enumerate(text.split("\n"), start=1):
            if len(line) > LONGEST_LINE:
                raise AnnotationError(
                    f"the line has {len(line):,} characters: this is no table in lines of text",
                    path=path,
                    line=number,
                    remedy="give a file with one row a line",
                )
    return text


class BadRow(NamedTuple):
    """A row that was left out: its file, its line there (from 1), and what is wrong with it."""

    path: str
    line: int
    problem: str


_SKIP_REMEDY = "or leave out and list such rows: --skip_bad_rows (data.skip_bad_rows)"


class FaultList:
    """Faults of one file, gathered so that a user corrects the file once.

    Args:
        path: the file.
        skipped: None where every fault is an error; a list takes the rows with faults, which are
            then left out.
    """

    def __init__(self, path: str | os.PathLike[str], skipped: list[BadRow] | None = None) -> None:
        self.path = path
        self.total = 0
        self._shown: list[tuple[int, str, str]] = []
        self._skipped = skipped
        self._faulty: dict[int, str] = {}

    @property
    def skips(self) -> bool:
        """Whether rows with faults are left out."""
        return self._skipped is not None

    def add(self, line: int, problem: str, remedy: str) -> None:
        """Notes that line `line` (from 1) has `problem`, and what helps."""
        self.total += 1
        if self.skips:
            self._faulty.setdefault(line, problem)
        self._shown.append((line, problem, remedy))
        if len(self._shown) > 2 * MAX_FAULTS_SHOWN:  # a file of 170,000 faults stays cheap
            self._trim()

    def sound_rows(self, lines: Sequence[int]) -> npt.NDArray[np.bool_]:
        """Which of the N rows on these lines have no fault, bool [N]; the others are skipped.

        AnnotationError as `raise_if_any` unless faulty rows are skipped, and then if they are more
        than half of all rows.
        """
        if not self.skips:
            self.raise_if_any(_SKIP_REMEDY if 2 * self.total <= len(lines) else None)
        if not self._faulty:
            return np.ones(len(lines), bool)
        total = len(self._faulty.keys() | set(lines))
        if 2 * len(self._faulty) > total:
            self.raise_if_any(
                beginning=f"{len(self._faulty):,} of {total:,} rows are bad, too many to skip: "
            )
        assert self._skipped is not None
        self._skipped += [BadRow(str(self.path), *row) for row in sorted(self._faulty.items())]
        return np.array([line not in self._faulty for line in lines], bool)

    def raise_if_any(self, otherwise: str | None = None, *, beginning: str = "") -> None:
        """Raises one `AnnotationError` for the faults, first line first; none: returns.

        The error's `line` is that of the first fault; its message has a beginning and lists up to
        ten. `otherwise` is what helps against all of them.
        """
        if not self.total:
            return
        self._trim()
        (line, problem, _), *others = self._shown
        problem = beginning + problem
        listed = [problem, *(f"  line {number}: {text}" for number, text, _ in others)]
        if self.total > len(self._shown):
            listed.append(f"  and {self.total - len(self._shown)} more faults")
        remedies = dict.fromkeys(remedy for _, _, remedy in self._shown)  # in order, each once
        raise AnnotationError(
            "\n".join(listed),
            path=self.path,
            line=line,
            remedy="; ".join([*remedies, *filter(None, [otherwise])]),
        )

    def _trim(self) -> None:
        self._shown.sort(key=lambda fault: fault[0])
        del self._shown[MAX_FAULTS_SHOWN:]


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


def peek(path: str | os.PathLike[str], rows: int = 3) -> list[list[str]]:
    """The first rows of a table as cells without blanks around them, the header among them.

    Of a Parquet file, the names of its columns alone. Nothing is checked: what is no table gives
    cells of whatever it is.

    Raises:
        AnnotationError: the file cannot be opened, or says that it is Parquet and is none.
    """
    try:
        with open(path, "rb") as file:
            start = file.read(PEEKED)
    except OSError as error:
        problem, remedy = files.unreadable(error, "file")
        raise AnnotationError(problem, path=path, remedy=remedy) from error
    if start[:4] == b"PAR1":
        return [[*_parquet(path, lambda name: False).others]]
    lines = start.decode("utf-8-sig", errors="replace").replace("\r\n", "\n").replace("\r", "\n")
    full = [line for line in lines.split("\n") if line.strip(WHITESPACE)][: rows + 1]
    mark, said = _separator(full[0]) if full else (",", False)
    return [
        [cell.strip() for cell in row]
        for line in full[said:][:rows]
        for row in csv.reader([line[:LONGEST_LINE]], delimiter=mark, skipinitialspace=True)
    ]


def read_columns(
    path: str | os.PathLike[str],
    wanted: Callable[[str], bool],
    faults: FaultList | None = None,
    header: Sequence[str] | None = None,
) -> Columns:
    """Reads the wanted columns of a CSV or Parquet file, by its content.

    Cells of CSV are separated by commas, semicolons, tabs or bars, or as a first line `sep=;` says,
    and read as `files.plain_cell` gives them. A row of CSV that has more or fewer cells
    than the header is left out and noted in `faults`, and where these skip, one that cannot be
    read; None raises its faults. `header` names the columns of a CSV file whose first
    line is a row; blanks may separate its cells too.

    Raises:
        AnnotationError: the file cannot be read as either, has no sound rows, or repeats a column's
            name.
    """
    noted = FaultList(path) if faults is None else faults
    if is_parquet(path):
        columns = _parquet(path, wanted)
    else:
        columns = _csv(read_bytes(path), path, wanted, noted, header)
    if faults is None or not columns.lines:
        noted.raise_if_any()
    if not columns.lines:
        raise AnnotationError(
            "no rows below the header", path=path, line=1, remedy="write one row an image"
        )
    return columns


def is_parquet(path: str | os.PathLike[str]) -> bool:
    """Whether a file says that it is Parquet; AnnotationError if it cannot be opened."""
    try:
        with open(path, "rb") as file:
            return file.read(4) == b"PAR1"
    except OSError as error:
        problem, remedy = files.unreadable(error, "file")
        raise AnnotationError(problem, path=path, remedy=remedy) from error


def _separator(line: str) -> tuple[str, bool]:
    """What separates the cells of a table with this first line; whether the line only says that.

    A blank does so behind an image alone: names of columns may have blanks.
    """
    if said := _SEPARATOR_LINE.fullmatch(line):
        return said["mark"], True
    if image := _IMAGE_FIRST.match(line):  # a number behind it may have a decimal comma
        return image["mark"], False
    return next((mark for mark in ",;\t|" if mark in line), ","), False


def _csv(
    content: bytes,
    path: str | os.PathLike[str],
    wanted: Callable[[str], bool],
    faults: FaultList,
    names: Sequence[str] | None,
) -> Columns:
    text = to_text(content, path, keep_undecodable=faults.skips)
    blank = len(text) - len(text.lstrip("\n"))
    separator, said = _separator(text[blank:].split("\n", 1)[0])
    source = _Lines(text)
    if said:
        source.taken = blank + 1
    reader = csv.reader(source, delimiter=separator, skipinitialspace=separator == " ", strict=True)
    header = list(names or ())
    _check_names(header, path, None)
    positions = {name: place for place, name in enumerate(header) if wanted(name)}
    cells: dict[str, list[str]] = {name: [] for name in positions}
    lines: list[int] = []
    while True:
        begin = source.taken
        try:
            row = next(reader)
        except StopIteration:
            break
        except csv.Error as error:
            problem = f"no CSV ({error})"
            remedy = "close every quotation mark, and double those within quoted text"
            if not (header and faults.skips):
                raise AnnotationError(problem, path=path, line=begin + 1, remedy=remedy) from error
            faults.add(begin + 1, problem, remedy)
            source.taken = begin + 1  # an open quotation mark reads on over sound rows
            continue
        if not any(row):
            continue
        if not header:
            header = [name.strip() for name in row]
            _check_names(header, path, source.taken)
            positions = {name: place for place, name in enumerate(header) if wanted(name)}
            cells = {name: [] for name in positions}
        elif len(row) != len(header):
            faults.add(
                begin + 1,
                f"{len(row)} cells, the header has {len(header)}",
                "give each row as many cells as the header; quote text with commas, and write "
                "numbers with a decimal point",
            )
            if faults.skips:
                source.taken = begin + 1
        elif faults.skips and (bad_byte := _not_utf8("".join(row))):
            faults.add(source.taken, bad_byte, _UTF8_REMEDY)
        else:
            for name, place in positions.items():  # other cells may be long
                cells[name].append(files.plain_cell(row[place]))
            lines.append(source.taken)
    return Columns(cells, [name for name in header if name not in cells], lines)


class _Lines:
    """The lines of a text one by one, each with its end; `taken` of them, which may be set back."""

    def __init__(self, text: str) -> None:
        self._lines = text.split("\n")
        self.taken = 0

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        if self.taken == len(self._lines):
            raise StopIteration
        self.taken += 1
        return self._lines[self.taken - 1] + "\n"


def _parquet(path: str | os.PathLike[str], wanted: Callable[[str], bool]) -> Columns:
    import pyarrow
    import pyarrow.parquet

    try:
        with pyarrow.parquet.ParquetFile(path) as file:
            names = file.schema_arrow.names
            _check_names(names, path, None)
            table = file.read(columns=[name for name in names if wanted(name)])
        columns = table.to_pydict()
    # Damaged files raise whatever the damage leads to, besides Arrow's own exceptions.
    except (pyarrow.ArrowException, OSError, ValueError, TypeError, LookupError) as error:
        reason = str(error).splitlines()[0][:200] if str(error) else type(error).__name__
        raise AnnotationError(
            f"no readable Parquet file ({reason})",
            path=path,
            remedy="write the file again, or use CSV",
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
            f"column {quoted(repeated[0])} appears more than once",
            path=path,
            line=line,
            remedy="keep one of them",
        )
