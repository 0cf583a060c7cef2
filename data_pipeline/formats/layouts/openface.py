"""Outputs of OpenFace: what a tool says of faces, which is no label that people gave.

OpenFace 2 writes a table a video (`FeatureExtraction`, `FaceLandmarkVidMulti`) or a photo
(`FaceLandmarkImg`), with blanks before the names. Each action unit is there twice: `AU01_r`, its
intensity from 0 to 5, and `AU01_c`, its occurrence, 0 or 1, which another predictor gave. The
occurrences are the labels; with `data.manifest.au_threshold` the intensities are. `success` is 0
where no face was tracked, with zeros for all else: such a row has no labels.

OpenFace 3 writes one class of eight expressions, and eight numbers for action units in an order
that its authors do not state; these are not read.
"""

import re
from pathlib import Path

from data_pipeline.formats.layouts import frames
from data_pipeline.formats.layouts.layout import Labels, Layout, Place, of_tables, take
from data_pipeline.formats.manifest import known_name
from data_pipeline.formats.user_files import WHITESPACE, Columns, FaultList
from mtl_face import tasks
from mtl_face.errors import AnnotationError

ALIGNED = "{video}_aligned/frame_det_{face:02}_{frame:06}.bmp"
"""Where OpenFace 2 itself puts the aligned face of a frame."""

PHOTO, ALIGNED_PHOTO = "{video}.jpg", "{video}_aligned/face_det_{face:06}.bmp"
"""A photo, and where OpenFace 2 puts the aligned faces in it."""

_UNIT = re.compile(r"au0*([1-9][0-9]?)_([rc])", re.ASCII)
_PLACES = ("image", "video", "frame")
_NOT_PEOPLE = "labels are what OpenFace says, not what people saw"


def _is_openface2(names: set[str]) -> bool:
    found = {match[2] for match in map(_UNIT.fullmatch, names) if match}
    return found == {"r", "c"} or ("confidence" in names and bool(found))


def _wanted(name: str) -> bool:
    own = ("frame", "face", "face_id", "confidence", "success", "video")
    return name in own or known_name(name) is not None


def _convert(columns: Columns, faults: FaultList, place: Place) -> Labels:
    table, lines, path = columns.cells, columns.lines, Path(faults.path)
    kind = "c" if place.settings.au_threshold is None else "r"
    units = {
        f"au{int(match[1])}": [cell.strip(WHITESPACE) for cell in table[name]]
        for name in table
        if (match := _UNIT.fullmatch(name)) and match[2] == kind
    }
    units = {name: units[name] for name in tasks.AU_NAMES if name in units}
    if not units:
        raise AnnotationError(
            "only intensities (AU01_r) are there" if kind == "c" else "no intensities are there",
            path=path,
            line=1,
            remedy="set data.manifest.au_threshold to the intensity from which on a unit is "
            "present, such as 1"
            if kind == "c"
            else "leave data.manifest.au_threshold out",
        )
    failed = [frames.number_or(cell, 1) == 0 for cell in table.get("success", ["1"] * len(lines))]
    for name, cells in units.items():
        units[name] = ["" if no else cell for cell, no in zip(cells, failed, strict=True)]
    counts = {"rows of success 0, without a tracked face, have no labels": sum(failed)}
    image = next((name for name in table if known_name(name) == "image"), None)
    if image is not None:
        own: dict[str, list[str]] = {name: table[name] for name in _PLACES[1:] if name in table}
        placed = frames.Placed(list(range(len(lines))), {"image": table[image], **own}, ())
    else:
        placed = frames.put_in_frames(
            place, _faces(columns, faults, place), _pattern(path, place, photo="frame" not in table)
        )
        counts[frames.OTHER_FACES] = len(lines) - len(placed.rows)
    what = "occurrences (AU01_c)" if kind == "c" else "intensities (AU01_r) over the threshold"
    return Labels(
        faults,
        take(columns, placed.rows, **placed.cells, **{**units, **_added(table)}),
        au_threshold=place.settings.au_threshold,
        remarks=(f"action units are the {what}; {_NOT_PEOPLE}", *placed.remarks),
        counts=counts,
    )


def _added(table: dict[str, list[str]]) -> dict[str, list[str]]:
    """Labels that a user put beside OpenFace's."""
    named = {name: known_name(name) for name in table if not _UNIT.fullmatch(name)}
    return {
        known: table[name]
        for name, known in named.items()
        if known is not None and known not in _PLACES
    }


def _faces(columns: Columns, faults: FaultList, place: Place) -> frames.Faces:
    table, lines = columns.cells, columns.lines
    numbers = {
        name: frames.whole_numbers(name, columns, faults)
        for name in ("frame", "face_id", "face")
        if name in table
    }
    zeros = [0] * len(lines)
    return frames.Faces(
        videos=[place.video_of(Path(faults.path))] * len(lines),
        frames=numbers.get("frame", [1] * len(lines)),  # of a photo
        faces=numbers.get("face_id", numbers.get("face", zeros)),
        scores=[frames.number_or(cell, 0) for cell in table.get("confidence", ["0"] * len(lines))],
    )


def _pattern(path: Path, place: Place, *, photo: bool) -> str:
    """Where the images are: OpenFace's own, if they are there and others are not."""
    own, usual = (ALIGNED_PHOTO, PHOTO) if photo else (ALIGNED, frames.CROPS)
    video = place.video_of(path)
    others = place.image_root / (frames.fill(PHOTO, video, 0) if photo else video)
    return (
        own if (place.image_root / f"{video}_aligned").is_dir() and not others.exists() else usual
    )


def _is_openface3(names: set[str]) -> bool:
    source = {"image_path"} if "image_path" in names else {"video_path", "frame_index", "face_id"}
    return {"face_detection", "emotion", "action_units"} | source <= names


def _convert3(columns: Columns, faults: FaultList, place: Place) -> Labels:
    table, lines = columns.cells, columns.lines
    if "image_path" in table:
        images = frames.below(table["image_path"], place.image_root)
        placed = frames.put_in_photos(images, _scores(table))
    else:
        found = frames.Faces(
            videos=frames.videos_of(table["video_path"], lines, faults),
            frames=[
                number + 1  # OpenFace 3 counts from 0
                for number in frames.whole_numbers("frame_index", columns, faults)
            ],
            faces=frames.whole_numbers("face_id", columns, faults),
            scores=_scores(table),
        )
        placed = frames.put_in_frames(place, found, frames.CROPS)
    return Labels(
        faults,
        take(columns, placed.rows, **placed.cells, expression=table["emotion"]),
        expression_map=place.expression_map("affectnet"),
        remarks=(
            f"its eight action units are not read, because OpenFace 3 does not say which they "
            f"are; {_NOT_PEOPLE}",
            *placed.remarks,
        ),
        counts={
            frames.OTHER_FACES: len(lines) - len(placed.rows),
            "rows without a face have no label": sum(
                not table["emotion"][row] for row in placed.rows
            ),
        },
    )


def _scores(table: dict[str, list[str]]) -> list[float]:
    """The fifth number of a detection `[x1, y1, x2, y2, score, ...]`."""
    boxes = [cell.strip("[] ").split(",") for cell in table["face_detection"]]
    return [frames.number_or(box[4], 0) if len(box) > 4 else 0.0 for box in boxes]


_OWN3 = ("video_path", "image_path", "frame_index", "face_id", "face_detection", "emotion")

OPENFACE2: Layout = of_tables(
    "openface",
    "output of OpenFace 2",
    is_header=_is_openface2,
    wanted=_wanted,
    convert=_convert,
)
OPENFACE3: Layout = of_tables(
    "openface3",
    "output of OpenFace 3",
    is_header=_is_openface3,
    wanted=lambda name: name in _OWN3,
    convert=_convert3,
)
