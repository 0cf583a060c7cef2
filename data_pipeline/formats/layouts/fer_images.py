"""Writes the images of FER2013, which its list holds as text, and manifests beside them.

OUTPUT/cropped_aligned/FER2013Train/00000.png   images, in the folder of their `Usage`
OUTPUT/train.csv, validation.csv, test.csv      a manifest for each split

With FERPlus's votes, images have the names that its list gives, and the manifests have the votes.
The two lists have the same rows in the same order; names are no numbers of rows.

Dimension letters: K kinds of votes.
"""

import csv
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from data_pipeline.formats.expression_maps import MAPS
from data_pipeline.formats.layouts.fer import FOLDERS, USAGES, VOTES, count_votes, usages
from data_pipeline.formats.layouts.layout import photos
from data_pipeline.formats.user_files import Columns, FaultList, peek, read_columns
from mtl_face import files
from mtl_face.config.schema import DataSetConfig
from mtl_face.errors import AnnotationError, WorkdirError, quoted
from mtl_face.tables import VOTE_NAMES

PIXEL_LIST, VOTE_LIST = "fer2013.csv", "fer2013new.csv"
"""Names of the two lists as they are handed out."""

_REPORT_EVERY = 512


def write(
    source: Path,
    output: Path,
    *,
    with_votes: bool,
    say: Callable[[str], None],
    progress: Callable[[int, int], None],
) -> Path:
    """Writes images and manifests below a new folder; returns its path.

    `source` is the list of pixels, or a folder that holds it as `fer2013.csv`; `with_votes` needs a
    folder that holds `fer2013new.csv` too. `progress` is called with (rows done, rows in all).

    Raises:
        AnnotationError: a list is absent or has faults; names path, line and remedy.
        WorkdirError: `output` exists and is not empty, or cannot be written.
    """
    pixel_list = source / PIXEL_LIST if source.is_dir() else source
    first = (peek(pixel_list) or [[]])[0]
    header = [cell.lower() for cell in first]
    if not {"emotion", "pixels", "usage"} <= set(header):
        raise AnnotationError(
            "no list of FER2013, which has the columns emotion, pixels and Usage",
            path=pixel_list,
            line=1,
            remedy=f"name {PIXEL_LIST}, or the folder that holds it, as --source",
        )
    output = output.expanduser().absolute()
    if output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise WorkdirError(
            "exists and is not an empty folder", path=output, remedy="name a new one as --output"
        )
    wanted = {name for name, low in zip(first, header, strict=True) if low in ("emotion", "usage")}
    columns = read_columns(pixel_list, lambda name: name in wanted)
    columns = Columns(
        {name.lower(): cells for name, cells in columns.cells.items()}, [], columns.lines
    )
    faults = FaultList(pixel_list)
    usage = usages(columns, faults)
    faults.raise_if_any()
    if with_votes:
        names, labels = _votes(pixel_list.parent, usage, say)
    else:
        names, labels = _classes(columns, pixel_list)
    images = [
        f"{FOLDERS[said]}/{name}" if name else "" for name, said in zip(names, usage, strict=True)
    ]
    with files.replacing_folder(output, otherwise="or name another folder as --output") as folder:
        crops = folder / DataSetConfig.image_folder
        for name in FOLDERS.values():
            (crops / name).mkdir(parents=True)
        for row, pixels in _pictures(pixel_list, header.index("pixels")):
            if images[row]:
                Image.fromarray(pixels).save(crops / images[row])
            if row % _REPORT_EVERY == 0 or row == len(usage) - 1:
                progress(row + 1, len(usage))
        places = {**photos(images), **labels}
        for split, said in USAGES.items():
            rows = [row for row, use in enumerate(usage) if use == said and images[row]]
            table = [[column[row] for column in places.values()] for row in rows]
            if table:
                files.write_csv(folder / f"{split}.csv", [list(places), *table])
                say(f"{split}: {len(rows):,} images of {said}")
            else:
                say(f"{split}: the list has no image of {said}, so there is no {split}.csv")
    return output


def _classes(columns: Columns, path: Path) -> tuple[list[str], dict[str, list[str]]]:
    """Name of each row's image, its number from 0, and the column `expression` in words."""
    faults = FaultList(path)
    words = []
    for line, cell in zip(columns.lines, columns.cells["emotion"], strict=True):
        label = cell.strip()
        word = MAPS["fer2013"].get(label) if label.isdigit() else None
        words.append(word or "")
        if word is None:
            faults.add(line, f"emotion is {quoted(label, 40)}", "it is a class from 0 to 6")
    faults.raise_if_any()
    return [f"{row:05}.png" for row in range(len(words))], {"expression": words}


def _votes(
    folder: Path, usage: Sequence[str], say: Callable[[str], None]
) -> tuple[list[str], dict[str, list[str]]]:
    """FERPlus's name of each row's image, empty without one; the columns of labels and votes."""
    path = folder / VOTE_LIST
    columns = read_columns(path, lambda name: name.lower() in ("usage", "image name", *VOTES))
    columns = Columns(
        {name.lower(): cells for name, cells in columns.cells.items()}, [], columns.lines
    )
    absent = [name for name in ("usage", "image name", *VOTES) if name not in columns.cells]
    if absent:
        raise AnnotationError(
            f"no votes of FERPlus: there is no column {absent[0]}",
            path=path,
            line=1,
            remedy=f"name the folder that holds {PIXEL_LIST} and {VOTE_LIST} as --source",
        )
    together = "the two lists belong together row by row: take both as they were handed out"
    if len(columns.lines) != len(usage):
        raise AnnotationError(
            f"{len(columns.lines):,} rows, {PIXEL_LIST} has {len(usage):,}",
            path=path,
            remedy=together,
        )
    names = [cell.strip() for cell in columns.cells["image name"]]
    faults = FaultList(path)
    for line, own, other in zip(columns.lines, usages(columns, faults), usage, strict=True):
        if own != other:
            faults.add(line, f"Usage is {own} here, and {other} in {PIXEL_LIST}", together)
    for line, name in zip(columns.lines, names, strict=True):
        if name and not (name.isascii() and name.removesuffix(".png").isalnum()):
            faults.add(line, f"{quoted(name, 40)} is no name of an image", "as in fer0000001.png")
    rows = [row for row, name in enumerate(names) if name]
    votes_NE, words, counts = count_votes(columns, faults, "aff_wild2", rows)
    faults.raise_if_any()
    for what, number in {
        **counts,
        "rows without an image name are left out": len(usage) - len(rows),
    }.items():
        if number:
            say(f"{number:,} {what}")
    cells = {
        name: [f"{votes:g}" for votes in votes_NE[:, column]]
        for column, name in enumerate(VOTE_NAMES)
    }
    return names, {"expression": words, **cells}


def _pictures(path: Path, column: int) -> Iterator[tuple[int, npt.NDArray[np.uint8]]]:
    """Number of each row, from 0, and its image, uint8 [S, S]; AnnotationError for no image."""
    with open(path, encoding="utf-8-sig", newline="") as file:
        reader = csv.reader(file)
        next(reader)
        for row, cells in enumerate(cells for cells in reader if any(cells)):
            yield row, _picture(cells[column], path, reader.line_num)


def _picture(text: str, path: Path, line: int) -> npt.NDArray[np.uint8]:
    words = text.split()
    side = int(len(words) ** 0.5)
    wrong = next(
        (word for word in words if not word.isdecimal() or len(word) > 3 or int(word) > 255), None
    )
    if wrong is not None or side < 8 or side * side != len(words):
        problem = f"{len(words)} pixels are no square image"
        if wrong is not None:
            problem = f"the pixel {quoted(wrong)} is no whole number from 0 to 255"
        raise AnnotationError(
            problem,
            path=path,
            line=line,
            remedy="download the list again: 48 x 48 numbers with blanks between them",
        )
    values = np.array([int(word) for word in words])
    return values.reshape(side, side).astype(np.uint8)
