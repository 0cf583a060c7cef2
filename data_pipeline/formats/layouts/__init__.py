"""Layouts of labels that others made, read as they are: recognised by content, named aloud.

A layout turns the rows of its files into the columns of a manifest, and the manifest's reader turns
these into the frame table, with its checks, places of faults and counts. docs/layouts.md has each.
"""

import collections
import fnmatch
import os
from collections.abc import Callable
from pathlib import Path

from data_pipeline.formats import manifest
from data_pipeline.formats.layouts import (
    affectnet,
    class_folders,
    facs,
    fer,
    openface,
    own,
    py_feat,
)
from data_pipeline.formats.layouts.layout import Layout, Place, Rows, table_files
from data_pipeline.formats.user_files import BadRow, peek
from mtl_face.config.schema import ManifestConfig
from mtl_face.errors import AnnotationError, quoted, shortened
from mtl_face.tables import FrameTable

LAYOUTS: tuple[Layout, ...] = (
    openface.OPENFACE2,
    openface.OPENFACE3,
    py_feat.LAYOUT,
    affectnet.LIST,
    affectnet.WORDS,
    affectnet.FOLDERS,
    fer.PIXELS,
    fer.FERPLUS,
    fer.RAF_DB,
    class_folders.LAYOUT,
    facs.DISFA,
    facs.BP4D,
    own.CHALLENGE,
    own.MANIFEST,
)
"""Every layout; the first that recognises a file or folder reads it. The last takes anything."""


_MOST_LINES = 8  # on the tables of a folder


def read(
    path: str | os.PathLike[str],
    settings: ManifestConfig,
    *,
    split: str,
    image_root: str | os.PathLike[str],
    dataset: str,
    say: Callable[[str], None] = lambda line: None,
    skipped: list[BadRow] | None = None,
) -> FrameTable:
    """Reads labels of any layout: a file, or a folder of files.

    `split` is `train` or `validation`: where the labels or `settings.validation_videos` say which
    rows are of which, the others are left out. `say` is given the layout, and one line on each
    thing that was left out or translated. `skipped` is as for `FaultList`.

    Returns:
        The sorted table; `row` is the line in the row's own file.

    Raises:
        ConfigError: a setting does not fit the labels.
        AnnotationError: the labels cannot be read or have faults; names path, line and remedy.
    """
    place = Place(Path(path), split, settings, Path(image_root), skipped)
    layout = find(place.path, settings)
    if layout is not own.MANIFEST:
        say(f"{place.path.name} is read as {layout.title} (data.manifest.layout={layout.name})")
    counts: collections.Counter[str] = collections.Counter()
    remarks: dict[str, None] = {}
    of_tables: dict[str, None] = {}
    parts: list[FrameTable] = []
    files: list[str] = []
    for labels in layout.read(place):
        counts.update(labels.counts)
        remarks |= dict.fromkeys(labels.remarks)
        if not labels.columns.lines:
            labels.faults.raise_if_any()
            continue
        files.append(str(labels.faults.path))
        lines: list[str] = []
        parts.append(
            manifest.to_table(
                labels.columns,
                labels.settings(settings),
                faults=labels.faults,
                image_root=image_root,
                dataset=dataset,
                say=lines.append,
            )
        )
        if layout is own.MANIFEST:
            manifest.say_unused_votes(parts[-1], lines.append)
        of_tables |= dict.fromkeys(lines)
    left_out = [f"{count:,} {what}" for what, count in counts.items() if count]
    for line in (*remarks, *shortened(list(of_tables), _MOST_LINES), *left_out):
        say(line)
    if not parts:
        raise AnnotationError(
            "; ".join([f"no row is left for the {split} set", *left_out]),
            path=path,
            remedy="name another file or folder as the annotations of this set",
        )
    table = parts[0] if len(parts) == 1 else FrameTable.joined(parts)
    if layout is not own.MANIFEST and table.duplicate.sum() > sum(p.duplicate.sum() for p in parts):
        _refuse_one_frame_of_two(files, parts)
    return _of_split(table, place)


def _refuse_one_frame_of_two(files: list[str], parts: list[FrameTable]) -> None:
    """AnnotationError that names two files about one frame."""
    first: dict[tuple[str, int], str] = {}
    for file, part in zip(files, parts, strict=True):
        for video, frame in zip(part.video, part.frame.tolist(), strict=True):
            other = first.setdefault((video, frame), file)
            if other != file:
                raise AnnotationError(
                    f"has labels of frame {frame} of the video {quoted(video)}, as {other} has",
                    path=file,
                    remedy="keep one of the two, or give the videos names of their own",
                )


def find(path: Path, settings: ManifestConfig) -> Layout:
    """The layout that the settings name or, with `auto`, that recognises the file or folder.

    AnnotationError if there is nothing at the path, or not what the settings name.
    """
    rows = _first_rows(path)
    if settings.columns is not None and settings.layout == "auto":
        return own.MANIFEST
    recognised = next(layout for layout in LAYOUTS if layout.recognise(path, rows))
    if settings.layout in ("auto", recognised.name):
        return recognised
    named = next(layout for layout in LAYOUTS if layout.name == settings.layout)
    if not named.recognise(path, rows):
        raise AnnotationError(
            f"this is not {named.title}, but {recognised.title}",
            path=path,
            remedy=f"set data.manifest.layout={recognised.name}, or leave it out",
        )
    return named


def _first_rows(path: Path) -> Rows:
    """The first rows of a file, or of the first table of a folder."""
    files = table_files(path)
    return peek(files[0]) if files else []


def _of_split(table: FrameTable, place: Place) -> FrameTable:
    """The rows of the split, if the settings name the videos of the validation set."""
    patterns = place.settings.validation_videos
    if patterns is None:
        return table
    videos = dict.fromkeys(table.video)
    matches = {
        pattern: {video for video in videos if fnmatch.fnmatchcase(video, pattern)}
        for pattern in patterns
    }
    for pattern, found in matches.items():
        if not found:
            raise AnnotationError(
                f"no video is called {pattern}, as data.manifest.validation_videos says",
                path=place.path,
                remedy=f"videos are {', '.join(shortened(list(videos), 4))}",
            )
    held_out = set().union(*matches.values())
    rows = [(video in held_out) == (place.split == "validation") for video in table.video]
    if not any(rows):
        raise AnnotationError(
            "every video is one of data.manifest.validation_videos: none is left to train on",
            path=place.path,
            remedy="name fewer videos",
        )
    return table.take(rows)
