"""Outputs of Py-Feat: what a tool says of faces, which is no label that people gave.

A table has a row a face: `input` (a photo or video) and `frame` (from 0), the face's box and score,
action units as probabilities, seven or eight expressions as probabilities, and from version 2 on
valence and arousal. A unit is present from a probability of 0.5 on, or from
`data.manifest.au_threshold`; the most probable expression is the label.
"""

from pathlib import Path

from data_pipeline.formats.expression_maps import MAPS
from data_pipeline.formats.layouts import frames
from data_pipeline.formats.layouts.layout import Labels, Layout, Place, of_tables, take
from data_pipeline.formats.manifest import known_name
from data_pipeline.formats.user_files import Columns, FaultList
from mtl_face import tasks

_EMOTIONS = frozenset(word for word in MAPS["aff_wild2"] if word.isalpha())
_OWN = ("input", "frame", "facescore")


def _convert(columns: Columns, faults: FaultList, place: Place) -> Labels:
    table, lines = columns.cells, columns.lines
    scores = [frames.number_or(cell, 0) for cell in table.get("facescore", ["0"] * len(lines))]
    numbers = frames.whole_numbers("frame", columns, faults)
    sources = table.get("input", [f"{place.video_of(Path(faults.path))}.mp4"] * len(lines))
    if any(map(frames.is_video, sources)):
        found = frames.Faces(
            videos=frames.videos_of(sources, columns.lines, faults),
            frames=[number + 1 for number in numbers],  # Py-Feat counts from 0
            faces=[0] * len(lines),
            scores=scores,
        )
        placed = frames.put_in_frames(place, found, frames.CROPS)
    else:
        images = frames.below(sources, place.image_root)
        placed = frames.put_in_photos(images, scores)
    labels = {name: table[name] for name in tasks.VA_NAMES if name in table}
    for name, cells in table.items():
        unit = known_name(name)
        if unit in tasks.AU_NAMES:
            labels[str(unit)] = cells
    emotions = {name: cells for name, cells in table.items() if name in _EMOTIONS}
    if emotions:
        labels["expression"] = [_likeliest(emotions, row) for row in range(len(lines))]
    empty = [
        all(cells[row].lower() in ("", "nan") for cells in labels.values()) for row in placed.rows
    ]
    return Labels(
        faults,
        take(columns, placed.rows, **placed.cells, **labels),
        au_threshold=place.settings.au_threshold or 0.5,
        remarks=(
            "action units are present from a probability of "
            f"{place.settings.au_threshold or 0.5:g} on, expressions the most probable ones; "
            "labels are what Py-Feat says, not what people saw",
            *placed.remarks,
        ),
        counts={
            frames.OTHER_FACES: len(lines) - len(placed.rows),
            "rows without a face have no labels": sum(empty),
        },
    )


def _likeliest(emotions: dict[str, list[str]], row: int) -> str:
    """The expression with the highest probability; empty where none has one."""
    values = {name: frames.number_or(cells[row], -1.0) for name, cells in emotions.items()}
    best = max(values, key=lambda name: values[name])
    return best if values[best] >= 0 else ""


LAYOUT: Layout = of_tables(
    "py_feat",
    "output of Py-Feat",
    is_header=lambda names: {"facerectx", "frame", "au01"} <= names,
    wanted=lambda name: name in _OWN or name in _EMOTIONS or known_name(name) is not None,
    convert=_convert,
)
