"""What is written where, in the layout of s-Aff-Wild2.

OUTPUT/cropped_aligned/VIDEO/00001.jpg   crops, by frame number; no file where there is no face
OUTPUT/crop.json                         what a crop is
OUTPUT/manifest.csv                      one row a crop: image, video, frame, seconds, source, ...
OUTPUT/test_list.txt                     the crops as a test list
OUTPUT/gaps.csv                          frames without a crop, and why
OUTPUT/records/VIDEO.json                what was found in a finished source
"""

import csv
import io
import json
import os
import uuid
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from mtl_face.errors import WorkdirError
from mtl_face.faces.align import LANDMARK_NAMES, STANDARD
from mtl_face.faces.sources import Source

CROPS = "cropped_aligned"
SPECIFICATION = "crop.json"
MANIFEST = "manifest.csv"
TEST_LIST = "test_list.txt"
GAPS = "gaps.csv"
RECORDS = "records"

RECORD_VERSION = 1


def open_output(output: Path) -> Path:
    """Makes the folder, or checks that it holds crops of ours.

    Returns:
        Its absolute path.

    Raises:
        WorkdirError: it holds something else, or crops of another kind, or cannot be written.
    """
    output = Path(output).expanduser().absolute()
    path = output / SPECIFICATION
    specification = STANDARD.to_json()
    try:
        if path.exists():
            if json.loads(path.read_text(encoding="utf-8")) != specification:
                raise WorkdirError(
                    "describes other crops than are cut here",
                    path=path,
                    remedy="give another folder as --output",
                )
        elif output.exists() and (not output.is_dir() or any(output.iterdir())):
            raise WorkdirError(
                f"exists, and was not made by this command (it has no {SPECIFICATION})",
                path=output,
                remedy="give a new or empty folder as --output",
            )
        for folder in (CROPS, RECORDS):
            (output / folder).mkdir(parents=True, exist_ok=True)
        write_text(path, json.dumps(specification, indent=1) + "\n")
    except ValueError as error:
        raise WorkdirError(
            f"cannot be read: {error}", path=path, remedy="give another folder as --output"
        ) from error
    except OSError as error:
        raise unwritable(output, error) from error
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
    """Marks a source as finished."""
    write_text(output / RECORDS / f"{source.name}.json", json.dumps(record) + "\n")


def write_lists(output: Path, records: Iterable[dict[str, Any]]) -> int:
    """Writes the manifest, the test list and the list of gaps of finished sources.

    Returns:
        Number of crops.

    Raises:
        WorkdirError: they cannot be written.
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
    try:
        write_text(output / MANIFEST, _csv(crops))
        write_text(output / GAPS, _csv(gaps))
        write_text(output / TEST_LIST, "\n".join(["image", *(row[0] for row in crops[1:])]) + "\n")
    except OSError as error:
        raise unwritable(output, error) from error
    return len(crops) - 1


def write_text(path: Path, text: str) -> None:
    """Writes a file whole or not at all."""
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}")
    try:
        temporary.write_text(text, encoding="utf-8", newline="\n")
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def unwritable(path: Path, error: OSError) -> WorkdirError:
    """The user's error for a folder that cannot be written."""
    return WorkdirError(
        f"cannot be written: {error.strerror or error}",
        path=error.filename or path,
        remedy="free some space, mend the permissions, or choose another --output",
    )


def _csv(rows: list[list[Any]]) -> str:
    buffer = io.StringIO()
    csv.writer(buffer, lineterminator="\n").writerows(rows)
    return buffer.getvalue()
