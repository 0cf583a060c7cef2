"""Reads the parts of a program of StableHLO: a zip file of the program and its card.

`mtl_face.export.stablehlo` writes it and makes a function of it.
"""

import zipfile
from pathlib import Path
from typing import Any

from mtl_face import files
from mtl_face.weights import card as cards
from mtl_face.weights.card import ExportError
from mtl_face.weights.file_content import first_bytes

PROGRAM = "model.stablehlo"
"""Name in the zip file of the serialised program."""

_BEGINNING = b"PK\x03\x04"

_GIVE = "give a file that `run.py export --format=stablehlo` wrote"


def is_one(path: Path) -> bool:
    """Whether a file claims to be of this format: it begins as a zip file."""
    return path.is_file() and first_bytes(path, ExportError).startswith(_BEGINNING)


def read(path: Path) -> tuple[bytes, dict[str, Any]]:
    """The serialised program and the card.

    Raises:
        ExportError: the file is none of this form, or damaged.
    """
    try:
        with zipfile.ZipFile(path) as file:
            for name in (cards.FILE, PROGRAM):
                if file.getinfo(name).file_size > path.stat().st_size:
                    raise zipfile.BadZipFile(f"{name} is compressed")
            text, data = file.read(cards.FILE), file.read(PROGRAM)
    except OSError as error:
        problem, remedy = files.unreadable(error, "file")
        raise ExportError(problem, path=path, remedy=remedy) from error
    except (zipfile.BadZipFile, KeyError, EOFError, NotImplementedError) as error:
        raise ExportError(f"holds no program ({error})", path=path, remedy=_GIVE) from error
    return data, cards.parse(text, path)
