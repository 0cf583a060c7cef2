"""From what a user points at to what is written: names of sources, folders of crops, lists.

OUTPUT/cropped_aligned/VIDEO/00001.jpg   crops, by frame number; no file where there is no face
OUTPUT/crop.json                         what a crop is
OUTPUT/manifest.csv                      one row a crop: image, video, frame, seconds, source, ...
OUTPUT/test_list.txt                     the crops as a test list
OUTPUT/gaps.csv                          frames without a crop, and why
OUTPUT/records/SOURCE.json               what was found in a finished source

This is the layout of s-Aff-Wild2. VIDEO is the name of a source; two people of a video get `_left`
and `_right`. Each face of a photo is a video of one frame: SOURCE/PHOTO for the largest, and
SOURCE/PHOTO_face2 and on for the others, where SOURCE names the photo's folder.
"""

import collections
import dataclasses
import hashlib
import json
import os
import re
import stat
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from mtl_face import files, pictures
from mtl_face.errors import ImageError, WorkdirError, escaped
from mtl_face.faces import align
from mtl_face.faces.align import LANDMARK_NAMES

CROPS = "cropped_aligned"
SPECIFICATION = "crop.json"
MANIFEST = "manifest.csv"
TEST_LIST = "test_list.txt"
GAPS = "gaps.csv"
RECORDS = "records"

RECORD_VERSION = 3

HIDDEN, LINKED, SPECIAL = "hidden", "links to folders", "pipes and devices"
OUTPUTS = "folders of crops that this command made"
"""What is left aside for another reason than its ending."""

_UNFIT_IN_PHOTO = re.compile(r"[%,\\\x00-\x1f\x7f\ud800-\udfff]|^[.\s]|\s$")
_PERSON = re.compile(r"(?P<source>.+)_(?:left|right)", re.IGNORECASE)
_LONGEST_NAME = 150  # bytes; file systems take 255, and names grow by what they are given


@dataclasses.dataclass(frozen=True)
class Source:
    """A video, or the photos of one folder.

    Attributes:
        name: of its folder of crops; letters, digits, `_`, `-` and `.`.
        path: the video, or the photos' folder.
        photos: the photos, sorted by name; empty for a video.
        root: the folder that the user named; lists name files by their paths below it.
    """

    name: str
    path: Path
    photos: tuple[Path, ...] = ()
    root: Path | None = None

    def text(self, file: Path | None = None) -> str:
        """The source, or one of its photos, as text for lists and people."""
        path = self.path if file is None else file
        shown = _own_name(path)
        if self.root is not None and path != self.root:
            shown = str(path.relative_to(self.root))
        return escaped(shown).replace("\n", "\\n")

    def fingerprint(self) -> list[list[Any]]:
        """Name, size and modification time of each file; identifies a finished source.

        ImageError if a file cannot be looked at.
        """
        result = []
        for path in self.photos or (self.path,):
            try:
                status = path.stat()
            except OSError as error:
                problem, remedy = files.unreadable(error, "file")
                raise ImageError(problem, path=path, remedy=remedy) from error
            result.append([path.name, status.st_size, status.st_mtime_ns])
        return result

    def person(self, place: int, count: int) -> str:
        """Name of the video of one of `count` people, from left to right."""
        return self.name if count == 1 else f"{self.name}_{('left', 'right')[place]}"

    def face(self, photo: Path, place: int) -> str:
        """Name of the video of a face in a photo, which depends on nothing else; largest first.

        What lists and paths cannot hold stands as %XX, so that no two photos have the same.
        """
        name = _UNFIT_IN_PHOTO.sub(
            lambda found: "".join(f"%{byte:02X}" for byte in os.fsencode(found[0])), photo.name
        )
        if _cut(name) != name:
            digest = hashlib.blake2b(os.fsencode(photo.name), digest_size=8).hexdigest()
            name = f"{_cut(name)}_{digest}"
        return f"{self.name}/{name}" + (f"_face{place + 1}" if place else "")

    def partial(self, output: Path) -> Path:
        """The folder of its crops while they are cut."""
        return output / f".partial-{self.name}"

    def owns(self, folder: str) -> bool:
        """Whether a folder of crops has the name of this source or of a person in it."""
        people = () if self.photos else (f"{self.name}_left", f"{self.name}_right")
        return folder in (self.name, *people)


@dataclasses.dataclass(frozen=True)
class Found:
    """What lies at a path.

    Attributes:
        sources: a source for each video and for each folder of photos, sorted by name.
        left_aside: how many files are neither, by their ending, or by `HIDDEN` and the like.
        closed: folders that may not be listed, with the reason.
    """

    sources: list[Source]
    left_aside: collections.Counter[str]
    closed: list[ImageError]

    def left_aside_in_words(self) -> list[str]:
        """Lines that count the files left aside and say what helps to read them; none if none."""
        counts = sorted(self.left_aside.items(), key=lambda item: (-item[1], item[0]))
        listed = ", ".join(f"{escaped(ending)} {count:,}" for ending, count in counts)
        remedies = ((ending, pictures.remedy(ending)) for ending, _ in counts)
        helps = [f"  {ending}: {remedy}" for ending, remedy in remedies if remedy]
        return [f"left aside: {listed}", *helps] if counts else []


def find_sources(path: Path) -> Found:
    """The videos and photos at a path.

    A source has the name of its file or folder. Where several have the same, or one that a person
    in another may get, the folders above are put before it.

    Args:
        path: a video, a photo, or a folder, which is searched with the folders in it, but for
            hidden ones and links.

    Raises:
        ImageError: there is nothing at the path, or nothing that is read.
    """
    path = Path(os.path.expanduser(path))
    try:
        mode = path.stat().st_mode
    except OSError as error:
        problem, remedy = files.unreadable(error, "video, photo or folder")
        raise ImageError(problem, path=path, remedy=remedy) from error
    found = Found([], collections.Counter(), [])
    if not stat.S_ISDIR(mode):
        found.sources.append(_only(path, mode))
        return found
    photos: dict[Path, list[Path]] = {}
    readable = pictures.endings()
    for file in _walk(path, found):
        ending = file.suffix.lower()
        if ending in pictures.VIDEO_ENDINGS:
            found.sources.append(Source("", file, root=path))
        elif ending in readable:
            photos.setdefault(file.parent, []).append(file)
        else:
            found.left_aside[ending or "without ending"] += 1
    found.sources.extend(Source("", folder, tuple(all_), path) for folder, all_ in photos.items())
    if not found.sources:
        raise _nothing(path, found)
    named = _with_names(sorted(found.sources, key=lambda source: str(source.path)))
    return dataclasses.replace(found, sources=sorted(named, key=lambda source: source.name))


def _only(path: Path, mode: int) -> Source:
    """The source that is one file."""
    if not stat.S_ISREG(mode):
        raise ImageError("this is a pipe or a device", path=path, remedy="name a file or a folder")
    ending = path.suffix.lower()
    if ending in pictures.endings():
        return Source(_name(path.stem), path, (path,), path.parent)
    helps = pictures.remedy(ending)
    if helps is not None:
        raise ImageError(f"{ending} files are not read", path=path, remedy=helps)
    return Source(_name(path.stem), path, (), path.parent)


def _nothing(path: Path, found: Found) -> ImageError:
    if found.closed and not found.left_aside:
        return found.closed[0]
    return ImageError(
        "\n  ".join(["holds no video and no photo that is read", *found.left_aside_in_words()]),
        path=path,
        remedy="files are recognised by their endings, such as .mp4, .avi, .jpg and .png; "
        "name the file itself if its ending is another",
    )


def _walk(folder: Path, found: Found) -> Iterator[Path]:
    """The files in a folder and those in it, sorted; notes what is left aside or closed.

    What cannot be looked at is among the files: it fails as a source, with its reason.
    """

    def note(error: OSError) -> None:
        problem, remedy = files.unreadable(error, "folder")
        found.closed.append(ImageError(problem, path=error.filename, remedy=remedy))

    for place, folders, names in os.walk(folder, onerror=note):
        if SPECIFICATION in names and CROPS in folders:
            found.left_aside[OUTPUTS] += 1
            folders.clear()
            continue
        hidden = {name for name in (*folders, *names) if name.startswith(".")}
        links = {name for name in folders if os.path.islink(os.path.join(place, name))} - hidden
        found.left_aside.update([HIDDEN] * len(hidden) + [LINKED] * len(links))
        folders[:] = sorted(set(folders) - hidden - links)
        for name in sorted(set(names) - hidden):
            file = Path(place, name)
            if os.path.isfile(file) or not os.path.exists(file):
                yield file
            else:
                found.left_aside[SPECIAL] += 1


def _with_names(sources: Sequence[Source]) -> list[Source]:
    """The sources with names of their own, which differ by more than upper and lower case."""
    tries = [0] * len(sources)
    while True:
        names = [_candidate(*pair) for pair in zip(sources, tries, strict=True)]
        having: dict[str, list[int]] = {}
        for index, name in enumerate(names):
            having.setdefault(name.casefold(), []).append(index)
        again = set()
        for name, several in having.items():
            if len(several) > 1:
                # All are named by their folders; what then still is alike is numbered.
                again.update(several if tries[several[-1]] < 2 else several[1:])
            person = _PERSON.fullmatch(name)
            whole = having.get(person["source"], []) if person else []
            if any(not sources[index].photos for index in whole):
                again.update(several)
        if not again:
            break
        for index in again:
            tries[index] += 1
    return [
        dataclasses.replace(source, name=name) for source, name in zip(sources, names, strict=True)
    ]


def _candidate(source: Source, tries: int) -> str:
    """A name of a source in a folder: of the file, then with the folders, the ending, a number."""
    assert source.root is not None
    path = source.path
    own = _own_name(path) if source.photos else path.stem
    if tries == 0:
        return _name(own)
    name = _name("_".join([*path.relative_to(source.root).parts[:-1], own]))
    ending = "photos" if source.photos else path.suffix[1:].lower()
    return "_".join([name, *[ending][: tries - 1], *([str(tries - 1)] if tries > 2 else [])])


def _own_name(path: Path) -> str:
    return os.path.basename(os.path.abspath(path))


def _name(stem: str) -> str:
    """A name that is safe in paths and in lists separated by commas."""
    return _cut(files.plain_name(stem)).strip("._") or "video"


def _cut(name: str) -> str:
    return name.encode()[:_LONGEST_NAME].decode(errors="ignore")


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
            folder = output / CROPS / person["video"]
            if person["rows"] and len(person["rows"]) != len(os.listdir(folder)):
                return None
    except (OSError, ValueError, KeyError, TypeError, ImageError):
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
                    [person["video"], first, last, last - first + 1, reason, person["source"]]
                )
        if not record["people"]:
            last = record["frames"]
            reason = "no face in any frame" if record["decoded"] else "not decoded"
            gaps.append([record["name"], 1, last, last, reason, record["source"]])
    files.write_csv(output / MANIFEST, crops)
    files.write_csv(output / GAPS, gaps)
    files.write_text(output / TEST_LIST, "".join(f"{row[0]}\n" for row in crops))
    return len(crops) - 1
