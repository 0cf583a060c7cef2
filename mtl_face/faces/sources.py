"""What a user points at: videos and photos, each under the name that its crops will have."""

import dataclasses
import re
from pathlib import Path
from typing import Any

from mtl_face.errors import ImageError, UserError
from mtl_face.faces import video

PHOTO_SUFFIXES = frozenset((".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff"))

_UNFIT = re.compile(r"[^\w.-]+")
_PERSON = re.compile(r"(?P<source>.+)_(?:(?P<side>left|right)|face[0-9]+)")


@dataclasses.dataclass(frozen=True)
class Source:
    """A video, or the photos of one folder.

    Attributes:
        name: of its folder of crops; letters, digits, `_`, `-` and `.`.
        path: the video, or the photos' folder.
        photos: the photos, sorted by name; empty for a video.
    """

    name: str
    path: Path
    photos: tuple[Path, ...] = ()

    def fingerprint(self) -> list[list[Any]]:
        """Name, size and time of change of each file: what a finished source is recognised by."""
        result = []
        for path in self.photos or (self.path,):
            status = path.stat()
            result.append([path.name, status.st_size, status.st_mtime_ns])
        return result


def find_sources(path: Path) -> list[Source]:
    """The videos and photos at a path.

    Args:
        path: a video, a photo, or a folder, whose folders are searched as well. Hidden files and
            files of other kinds are left alone.

    Returns:
        One source for each video and for each folder of photos, sorted by name.

    Raises:
        ImageError: there is nothing at the path.
        UserError: two sources would have the same name, or one that of a person in the other.
    """
    path = Path(path).expanduser()
    if not path.exists():
        raise ImageError("does not exist", path=path, remedy="check the path given as --videos")
    if path.is_file():
        photo = path.suffix.lower() in PHOTO_SUFFIXES
        return [Source(_name(path.stem), path, (path,) if photo else ())]
    videos: list[Path] = []
    photos: dict[Path, list[Path]] = {}
    for file in sorted(path.rglob("*")):
        if any(part.startswith(".") for part in file.relative_to(path).parts):
            continue
        if not file.is_file():
            continue
        if file.suffix.lower() in video.SUFFIXES:
            videos.append(file)
        elif file.suffix.lower() in PHOTO_SUFFIXES:
            photos.setdefault(file.parent, []).append(file)
    sources = [Source(_name(file.stem), file) for file in videos]
    sources += [
        Source(_name(folder.resolve().name), folder, tuple(files))
        for folder, files in photos.items()
    ]
    if not sources:
        raise ImageError(
            "holds no video and no photo",
            path=path,
            remedy="files are recognised by their endings, such as .mp4, .avi, .jpg and .png; "
            "name the file itself if its ending is another",
        )
    by_name: dict[str, Source] = {}
    for source in sources:
        other = by_name.setdefault(source.name, source)
        if other is not source:
            raise UserError(
                f"would get the same name, {source.name}, as {other.path}",
                path=source.path,
                remedy="rename one of them: the name of a file is the name of its folder of crops",
            )
    for name, source in by_name.items():
        person = _PERSON.fullmatch(name)
        whole = by_name.get(person["source"]) if person else None
        # Two people of a video get `_left` and `_right`, further faces of photos `_face2` and on.
        if person and whole and bool(person["side"]) != bool(whole.photos):
            raise UserError(
                f"would get the name {name}, which a person in {whole.path} may get as well",
                path=source.path,
                remedy="rename one of them: each person of each source has a folder of crops",
            )
    return [by_name[name] for name in sorted(by_name)]


def _name(stem: str) -> str:
    """A name that is safe in paths and in lists separated by commas."""
    return _UNFIT.sub("_", stem).strip("._") or "video"
