"""From what a user points at to what is written: names of sources, folders of crops, lists.

OUTPUT/cropped_aligned/VIDEO/00001.jpg   crops, by frame number; no file where there is no face
OUTPUT/crop.json                         what a crop is
OUTPUT/manifest.csv                      one row a crop: image, video, frame, seconds, source, ...
OUTPUT/test_list.txt                     the crops as a test list
OUTPUT/gaps.csv                          frames without a crop, and why
OUTPUT/records/VIDEO.json                what was found in a finished source

This is the layout of s-Aff-Wild2. VIDEO is the name of a source, or of a person in it: two people
of a video get `_left` and `_right`, further faces of photos `_face2` and on.
"""

import dataclasses
import json
import os
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from mtl_face import files
from mtl_face.errors import ImageError, UserError, WorkdirError
from mtl_face.faces import align, video
from mtl_face.faces.align import LANDMARK_NAMES

PHOTO_SUFFIXES = frozenset((".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff"))

CROPS = "cropped_aligned"
SPECIFICATION = "crop.json"
MANIFEST = "manifest.csv"
TEST_LIST = "test_list.txt"
GAPS = "gaps.csv"
RECORDS = "records"

RECORD_VERSION = 1

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
        """Name, size and modification time of each file; identifies a finished source."""
        result = []
        for path in self.photos or (self.path,):
            status = path.stat()
            result.append([path.name, status.st_size, status.st_mtime_ns])
        return result

    def person(self, place: int, count: int) -> str:
        """The name of one of `count` people, from left to right, or of faces, largest first."""
        if self.photos:
            return self.name if place == 0 else f"{self.name}_face{place + 1}"
        return self.name if count == 1 else f"{self.name}_{('left', 'right')[place]}"

    def owns(self, folder: str) -> bool:
        """Whether a folder of crops has the name of this source or of a person in it."""
        if self.photos:
            rest = folder.removeprefix(f"{self.name}_face")
            return folder == self.name or (rest != folder and rest.isdigit())
        return folder in (self.name, f"{self.name}_left", f"{self.name}_right")


def find_sources(path: Path) -> list[Source]:
    """The videos and photos at a path.

    Args:
        path: a video, a photo, or a folder, which is searched with the folders in it. Hidden
            files and files of other kinds are skipped.

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
    sources: list[Source] = []
    photos: dict[Path, list[Path]] = {}
    for file in sorted(path.rglob("*")):
        hidden = any(part.startswith(".") for part in file.relative_to(path).parts)
        if hidden or not file.is_file():
            continue
        if file.suffix.lower() in video.SUFFIXES:
            sources.append(Source(_name(file.stem), file))
        elif file.suffix.lower() in PHOTO_SUFFIXES:
            photos.setdefault(file.parent, []).append(file)
    sources += [
        Source(_name(folder.resolve().name), folder, tuple(found))
        for folder, found in photos.items()
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


def open_output(output: Path) -> Path:
    """Makes the folder, or checks that an earlier call made it; returns its absolute path.

    WorkdirError if it holds something else or crops of another kind, or cannot be written.
    """
    output = Path(output).expanduser().absolute()
    path = output / SPECIFICATION
    specification, remedy = align.specification(), "give another folder as --output"
    try:
        if path.exists():
            if files.read_json(path, remedy=remedy) != specification:
                raise WorkdirError("describes crops of another kind", path=path, remedy=remedy)
        elif output.exists() and (not output.is_dir() or any(output.iterdir())):
            raise WorkdirError(
                f"exists, and was not made by this command (it has no {SPECIFICATION})",
                path=output,
                remedy="give a new or empty folder as --output",
            )
    except OSError as error:
        raise WorkdirError(
            f"cannot be read: {files.reason(error)}", path=path, remedy=remedy
        ) from error
    for folder in (CROPS, RECORDS):
        files.make_folder(output / folder)
    files.write_json(path, specification, indent=1)
    return output


def read_record(output: Path, source: Source) -> dict[str, Any] | None:
    """The record of a source that is finished, and whose crops are all there; None otherwise."""
    try:
        record = json.loads((output / RECORDS / f"{source.name}.json").read_text(encoding="utf-8"))
        if record["version"] != RECORD_VERSION or record["fingerprint"] != source.fingerprint():
            return None
        for person in record["people"]:
            if len(person["rows"]) != len(os.listdir(output / CROPS / person["video"])):
                return None
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return record


def write_record(output: Path, source: Source, record: dict[str, Any]) -> None:
    """Marks a source as finished; raises WorkdirError."""
    files.write_text(output / RECORDS / f"{source.name}.json", json.dumps(record) + "\n")


def write_lists(output: Path, records: Iterable[dict[str, Any]]) -> int:
    """Writes the manifest, the test list and the list of gaps of finished sources.

    Returns the number of crops; raises WorkdirError.
    """
    crops: list[list[Any]] = [["image", "video", "frame", "seconds", "source", "score"]]
    crops[0] += [f"{name}_{axis}" for name in LANDMARK_NAMES for axis in "xy"]
    gaps: list[list[Any]] = [["video", "first_frame", "last_frame", "frames", "reason", "source"]]
    for record in records:
        for person in record["people"]:
            for row in person["rows"]:
                image = f"{person['video']}/{row['frame']:05}.jpg"
                seconds = "" if row["seconds"] is None else row["seconds"]
                values = [image, person["video"], row["frame"], seconds, row["source"]]
                places = [place for point in row["landmarks"] for place in point]
                crops.append([*values, row["score"], *places])
            for first, last, reason in person["gaps"]:
                gaps.append(
                    [person["video"], first, last, last - first + 1, reason, record["source"]]
                )
        if not record["people"]:
            last = record["frames"]
            gaps.append([record["name"], 1, last, last, "no face in any frame", record["source"]])
    files.write_csv(output / MANIFEST, crops)
    files.write_csv(output / GAPS, gaps)
    files.write_text(output / TEST_LIST, "".join(f"{row[0]}\n" for row in crops))
    return len(crops) - 1
