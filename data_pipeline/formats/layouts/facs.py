"""Action units that certified coders gave: DISFA's file a unit, BP4D's table a task.

- `disfa`: `ActionUnit_Labels/SN001/SN001_au1.txt`, lines of `frame,intensity` (0 to 5). A unit is
  present from intensity 2 on, as is usual, or from `data.manifest.au_threshold`.
- `bp4d`: `AUCoding/AU_OCC/F001_T1.csv`: a first line with a `0` and the numbers of the units, and
  rows of a frame's number and 0, 1 or 9 a unit. 9 is a unit that was not coded.
"""

import re
from collections.abc import Iterator
from pathlib import Path

from data_pipeline.formats.layouts import frames
from data_pipeline.formats.layouts.layout import Labels, Layout, Place, Rows, of_tables, take
from data_pipeline.formats.user_files import WHITESPACE, Columns, FaultList, read_lines
from mtl_face import tasks
from mtl_face.errors import quoted

DISFA_IMAGES = "LeftVideo{video}_comp/{frame:05}.jpg"
"""Crops that `run.py prepare --videos` cuts out of DISFA's left videos."""

BP4D_IMAGES = "{video}/{frame:04}.jpg"

DISFA_THRESHOLD = 2.0

_UNIT_FILE = re.compile(r"(?P<subject>.+)_au(?P<unit>[0-9]{1,2})\.txt", re.IGNORECASE)
_INTENSITY = re.compile(r"\s*([0-9]{1,9})\s*,\s*([0-5])(?:\.0+)?\s*")
_TASK = re.compile(r"([FM][0-9]{3})_(T[0-9]+)", re.IGNORECASE)


def _unit_files(folder: Path) -> dict[str, dict[int, Path]]:
    """The file of each unit, by subject."""
    found: dict[str, dict[int, Path]] = {}
    for path in sorted(folder.rglob("*.txt")):
        if match := _UNIT_FILE.fullmatch(path.name):
            found.setdefault(match["subject"], {})[int(match["unit"])] = path
    return found


def _is_disfa(path: Path, rows: Rows) -> bool:
    return path.is_dir() and bool(_unit_files(path))


def _read_disfa(place: Place) -> Iterator[Labels]:
    for subject, files in _unit_files(place.path).items():
        units = {
            f"au{unit}": _read_unit(path, place)
            for unit, path in files.items()
            if unit in tasks.AU_NUMBERS
        }
        numbers = sorted({frame for unit in units.values() for frame in unit})
        shorter = sum(len(unit) < len(numbers) for unit in units.values())
        columns = Columns({}, [], numbers)
        found = frames.Faces(
            [subject] * len(numbers), numbers, [0] * len(numbers), [0] * len(numbers)
        )
        placed = frames.put_in_frames(place, found, DISFA_IMAGES)
        labels = {name: [unit.get(frame, "") for frame in numbers] for name, unit in units.items()}
        threshold = place.settings.au_threshold or DISFA_THRESHOLD
        yield Labels(
            place.faults(place.path / subject),
            take(columns, placed.rows, **placed.cells, **labels),
            au_threshold=threshold,
            remarks=(
                f"action units are present from intensity {threshold:g} on",
                *placed.remarks,
            ),
            counts={"files end before others of their subject, and are missing there": shorter},
        )


def _read_unit(path: Path, place: Place) -> dict[int, str]:
    """The intensity of each frame, as text."""
    faults = place.faults(path)
    found: dict[int, str] = {}
    lines = []
    for line, text in enumerate(read_lines(path, faults), start=1):
        if not text.strip(WHITESPACE):
            continue
        lines.append(line)
        match = _INTENSITY.fullmatch(text)
        if match is None:
            remedy = "a line is a frame's number and an intensity from 0 to 5, as 17,3"
            faults.add(line, f"{quoted(text, 40)} is no frame and intensity", remedy)
        elif int(match[1]) in found:
            faults.add(line, f"frame {int(match[1])} is there twice", "keep one of the lines")
        else:
            found[int(match[1])] = match[2]
    faults.sound_rows(lines)
    return found


DISFA = Layout("disfa", "DISFA's files of action units", _is_disfa, _read_disfa)


def _is_bp4d(names: set[str]) -> bool:
    numbers = names - {"0", "frame", ""}
    first = names & {"0", "frame"}
    return bool(first) and len(numbers) > 5 and all(name.isdecimal() for name in numbers)


def _convert_bp4d(columns: Columns, faults: FaultList, place: Place) -> Labels:
    table, lines, path = columns.cells, columns.lines, Path(faults.path)
    first = "0" if "0" in table else "frame"
    match = _TASK.fullmatch(path.stem)
    video = f"{match[1]}/{match[2]}" if match else place.video_of(path)
    found = frames.Faces(
        videos=[video] * len(lines),
        frames=frames.whole_numbers(first, columns, faults),
        faces=[0] * len(lines),
        scores=[0.0] * len(lines),
    )
    placed = frames.put_in_frames(place, found, BP4D_IMAGES)
    units = {f"au{int(name)}": cells for name, cells in table.items() if name != first}
    units, uncoded = without_nines(units)
    return Labels(
        faults,
        take(columns, placed.rows, **placed.cells, **units),
        remarks=placed.remarks,
        counts=uncoded,
    )


def without_nines(units: dict[str, list[str]]) -> tuple[dict[str, list[str]], dict[str, int]]:
    """Cells of action units with BP4D's 9 as a missing label; and how many there were, in words."""
    plain = {name: [cell.strip(WHITESPACE) for cell in cells] for name, cells in units.items()}
    nines = sum(cells.count("9") for cells in plain.values())
    emptied = {name: ["" if cell == "9" else cell for cell in plain[name]] for name in plain}
    return emptied, {"action units are 9 (not coded) and count as missing": nines}


BP4D = of_tables(
    "bp4d",
    "BP4D's action units",
    is_header=_is_bp4d,
    wanted=lambda name: (
        name in ("0", "frame") or (name.isdecimal() and int(name) in tasks.AU_NUMBERS)
    ),
    convert=_convert_bp4d,
)
