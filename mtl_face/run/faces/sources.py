"""What a user points at: photos, folders, patterns of names, videos and cameras."""

import dataclasses
import glob
import os
from collections.abc import Iterable, Sequence
from pathlib import Path

from mtl_face import pictures
from mtl_face.errors import ImageError, UserError
from mtl_face.faces import layout
from mtl_face.faces.camera import number_of

PHOTO, VIDEO, CAMERA = "photo", "video", "camera"


@dataclasses.dataclass(frozen=True)
class Source:
    """A photo, a video or a camera.

    Attributes:
        name: as the user named it; of a file in a folder, with the folder's name before it.
        kind: `PHOTO`, `VIDEO` or `CAMERA`.
        path: the file; of a camera its number.
    """

    name: str
    kind: str
    path: Path


@dataclasses.dataclass(frozen=True)
class Sources:
    """What inputs lead to.

    Attributes:
        all: each source once, in the order of the inputs; those of a folder sorted.
        failed: inputs that lead to nothing, and folders that cannot be looked into.
        notes: what was left aside, a line each.
    """

    all: tuple[Source, ...]
    failed: tuple[UserError, ...]
    notes: tuple[str, ...]


def find(inputs: Iterable[str | Path]) -> Sources:
    """The sources of inputs.

    An input is a file, a folder, which is searched with the folders in it, a pattern of names such
    as `photos/*.jpg` or `photos/**/*.png`, or `camera:0`.
    """
    found: dict[str, Source] = {}
    failed: list[UserError] = []
    notes: list[str] = []
    for given in map(str, inputs):
        camera = number_of(given)
        if camera is not None:
            found.setdefault(given, Source(given, CAMERA, Path(str(camera))))
            continue
        try:
            paths = _matching(given)
        except ImageError as error:
            failed.append(error)
            continue
        for path in paths:
            try:
                at_path = layout.find_sources(path)
            except ImageError as error:
                failed.append(error)
                continue
            for source in _each(at_path.sources):
                found.setdefault(os.path.realpath(source.path), source)
            failed.extend(at_path.closed)
            notes.extend(f"{path}: {line}" for line in at_path.left_aside_in_words())
    return Sources(tuple(found.values()), tuple(failed), tuple(notes))


def _each(sources: Sequence[layout.Source]) -> Iterable[Source]:
    """Each photo and each video, sorted by path."""
    each = []
    for source in sources:
        kind = PHOTO if source.photos else VIDEO
        each += [Source(str(path), kind, path) for path in source.photos or (source.path,)]
    return sorted(each, key=lambda source: source.path)


def _matching(given: str) -> list[Path]:
    """The path that was given, or those that match it as a pattern; ImageError if none does.

    Of a pattern's matches the files that are no pictures and no videos are left out.
    """
    path = Path(os.path.expanduser(given))  # "~$a.jpg" is no user's home, and stays
    if path.exists() or not glob.has_magic(given):
        return [path]
    matches = [Path(match) for match in sorted(glob.glob(str(path), recursive=True))]
    readable = pictures.endings() | pictures.VIDEO_ENDINGS
    kept = [match for match in matches if match.is_dir() or match.suffix.lower() in readable]
    if not kept:
        raise ImageError(
            "matches nothing" if not matches else "matches no photo and no video that is read",
            path=given,
            remedy="check the pattern; ** stands for any folders",
        )
    return kept
