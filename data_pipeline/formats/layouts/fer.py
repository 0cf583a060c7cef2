"""FER2013, its votes (FERPlus), and RAF-DB's list.

- `fer2013`: `fer2013.csv` of `emotion`, `pixels` and `Usage`. Its images are in its text:
  `run.py prepare --from=fer2013` writes them.
- `ferplus`: `fer2013new.csv` of `Usage`, `Image name` and ten columns of votes, which lies beside
  images in `FER2013Train`, `FER2013Valid` and `FER2013Test`.
- `raf_db`: `list_patition_label.txt`, lines of `train_00001.jpg 5` without a header.

`Usage` says which rows train: `Training`, and `PublicTest` for the validation set; `PrivateTest` is
neither.
"""

import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt

from data_pipeline.formats.expression_maps import find_map
from data_pipeline.formats.layouts.layout import (
    Labels,
    Layout,
    Place,
    Rows,
    of_tables,
    photos,
    take,
)
from data_pipeline.formats.user_files import WHITESPACE, Columns, FaultList, read_columns
from data_pipeline.formats.values import to_number
from mtl_face.errors import AnnotationError, quoted
from mtl_face.tables import VOTE_NAMES
from mtl_face.tasks import EXPRESSION_NAMES

USAGES = {"train": "training", "validation": "publictest", "test": "privatetest"}
"""What `Usage` says of the rows of each split, in lower case."""

FOLDERS = {"training": "FER2013Train", "publictest": "FER2013Valid", "privatetest": "FER2013Test"}
"""Where FERPlus has the images of each `Usage`."""

VOTES = (
    *("neutral", "happiness", "surprise", "sadness", "anger", "disgust", "fear", "contempt"),
    *("unknown", "nf"),
)
"""FERPlus's columns of votes, in lower case; `nf` is for no face."""

_RAF_IMAGE = re.compile(r"(train|test)_[0-9]+(?:_aligned)?\.jpg", re.IGNORECASE)


def usages(columns: Columns, faults: FaultList) -> list[str]:
    """`Usage` of each row, in lower case; others than the three are faults."""
    found = [cell.strip(WHITESPACE).lower() for cell in columns.cells["usage"]]
    for line, usage in zip(columns.lines, found, strict=True):
        if usage not in FOLDERS:
            known = "Training, PublicTest or PrivateTest"
            faults.add(line, f"Usage is {quoted(usage, 40)}, not {known}", f"write {known}")
    return found


def _refuse(columns: Columns, faults: FaultList, place: Place) -> Labels:
    raise AnnotationError(
        "FER2013's list has its images as text",
        path=faults.path,
        remedy="write them as files first: python run.py prepare --from=fer2013 "
        f"--source={faults.path} --output=DIR; then data.root is DIR",
    )


def _convert_votes(columns: Columns, faults: FaultList, place: Place) -> Labels:
    table = columns.cells
    names = [cell.strip(WHITESPACE) for cell in table["image name"]]
    usage = usages(columns, faults)
    mine = [row for row, said in enumerate(usage) if said == USAGES[place.split]]
    rows = [row for row in mine if names[row]]
    votes_NK, words, counts = count_votes(columns, faults, place.settings.expression_map, rows)
    cells = {
        name: [f"{votes:g}" for votes in votes_NK[:, index]]
        for index, name in enumerate(VOTE_NAMES)
    }
    return Labels(
        faults,
        take(
            columns,
            rows,
            **photos(
                [f"{FOLDERS.get(said)}/{name}" for said, name in zip(usage, names, strict=True)]
            ),
            expression=words,
            **cells,
        ),
        remarks=("the expression with most votes is the label; the table keeps the votes",),
        counts={
            "rows without an image name (no face) are left out": len(mine) - len(rows),
            **counts,
        },
    )


def count_votes(
    columns: Columns, faults: FaultList, expression_map: str, rows: list[int]
) -> tuple[npt.NDArray[np.float64], list[str], dict[str, int]]:
    """Votes for the eight expressions, the winner of each row, and why rows have none.

    Float64 [N, E] and N words, of all rows; counts of `rows` alone. A cell that is no number of
    votes is a fault.
    """
    votes_NK = _votes(columns, faults)
    classes = find_map(expression_map)
    votes_NE = np.zeros((len(votes_NK), len(EXPRESSION_NAMES)))
    targets = [classes.get(name) for name in VOTES]
    for column, target in enumerate(targets):
        if target is not None:
            votes_NE[:, EXPRESSION_NAMES.index(target)] += votes_NK[:, column]
    most_N = votes_NK.max(axis=1)
    tied_N = (votes_NK == most_N[:, None]).sum(axis=1) > 1
    winners = [targets[column] for column in votes_NK.argmax(axis=1).tolist()]
    words = [
        "" if tied or winner is None else winner
        for tied, winner in zip(tied_N.tolist(), winners, strict=True)
    ]
    tied = int(tied_N[rows].sum())
    counts = {
        "rows with two first places have no label": tied,
        "rows whose most votes are for contempt, unknown or no face have no label": sum(
            not words[row] for row in rows
        )
        - tied,
    }
    return votes_NE, words, counts


def _votes(columns: Columns, faults: FaultList) -> npt.NDArray[np.float64]:
    """The ten columns of votes, float64 [N, 10], 0 where they have a fault."""
    votes_NK = np.zeros((len(columns.lines), len(VOTES)))
    for column, name in enumerate(VOTES):
        for row, cell in enumerate(columns.cells[name]):
            try:
                votes_NK[row, column] = to_number(cell.strip(WHITESPACE) or "0")
            except ValueError:
                votes_NK[row, column] = -1
            if not 0 <= votes_NK[row, column] < 1e6:
                problem = f"{name} is {quoted(cell, 40)}, no number of votes"
                faults.add(columns.lines[row], problem, "a vote is a whole number from 0")
                votes_NK[row, column] = 0
    return votes_NK


PIXELS = of_tables(
    "fer2013",
    "FER2013's list of pixels",
    is_header=lambda names: {"emotion", "pixels"} <= names,
    wanted=lambda name: name == "emotion",
    convert=_refuse,
)
FERPLUS = of_tables(
    "ferplus",
    "FERPlus's votes",
    is_header=lambda names: {"usage", "image name", *VOTES} <= names,
    wanted=lambda name: name in ("usage", "image name", *VOTES),
    convert=_convert_votes,
)


def _is_raf_db(path: Path, rows: Rows) -> bool:
    return bool(rows) and len(rows[0]) == 2 and bool(_RAF_IMAGE.fullmatch(rows[0][0]))


def _read_raf_db(place: Place) -> Iterator[Labels]:
    header = ("image", "expression")
    faults = place.faults(place.path)
    columns = read_columns(place.path, lambda name: True, faults, header)
    images = [cell.strip(WHITESPACE) for cell in columns.cells["image"]]
    wanted = "train" if place.split == "train" else "test"
    rows = []
    for row, (image, line) in enumerate(zip(images, columns.lines, strict=True)):
        match = _RAF_IMAGE.fullmatch(image)
        if match is None:
            remedy = "its images are called train_00001.jpg or test_0001.jpg"
            faults.add(line, f"{quoted(image, 40)} is no image of RAF-DB", remedy)
        elif match[1].lower() == wanted:
            rows.append(row)
    aligned = place.image_root / f"{Path(images[0]).stem}_aligned.jpg"
    if aligned.is_file():  # the folder of aligned faces, whose files are named so
        images = [f"{Path(image).stem}_aligned.jpg" for image in images]
    yield Labels(
        faults,
        take(columns, rows, **photos(images), expression=columns.cells["expression"]),
        expression_map=place.expression_map("raf_db"),
    )


RAF_DB = Layout("raf_db", "RAF-DB's list", _is_raf_db, _read_raf_db)
