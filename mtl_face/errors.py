"""The user's mistakes.

Whatever a user can get wrong (a file, a flag, a folder) ends in a `UserError`: one message that
says where it is wrong and what to do about it. The command line prints the message without a
traceback. A defect of this program is any other exception.
"""

import unicodedata
from collections.abc import Callable, Sequence
from os import PathLike
from typing import Any


class UserError(Exception):
    """A mistake in what the user supplied; its message is `escaped`.

    Attributes:
        problem: what is wrong, one sentence.
        remedy: what to do about it, one sentence, or None.
        path: the file or folder concerned, or None.
        line: line number in `path`, from 1, or None.
    """

    def __init__(
        self,
        problem: str,
        *,
        remedy: str | None = None,
        path: str | PathLike[str] | None = None,
        line: int | None = None,
    ) -> None:
        self.problem = problem
        self.remedy = remedy
        self.path = None if path is None else str(path)
        self.line = line
        place = "" if self.path is None else self.path.replace("\n", "\\n")
        if line is not None:
            place += f", line {line}" if place else f"line {line}"
        message = f"{place}: {problem}" if place else problem
        super().__init__(escaped(message if remedy is None else f"{message}\n  -> {remedy}"))


def escaped(text: str) -> str:
    r"""Text to show: control and invisible characters, and lone surrogates, as `\x1b` or `\u202e`.

    Line feeds and blanks stay as they are.
    """
    if text.isprintable():
        return text
    return "".join(
        character
        if character.isprintable() or character == "\n" or unicodedata.category(character) == "Zs"
        else repr(character)[1:-1]
        for character in text
    )


def quoted(text: str, most: int = 80) -> str:
    """A text of the user's in quotation marks, control characters escaped; a long one is cut."""
    return repr(text) if len(text) <= most else f"{text[:most]!r}..."


def exact(value: float) -> str:
    """A number with all the digits that tell it from others, as 1.0000001; whole ones as 9."""
    return repr(float(value)).removesuffix(".0")


def shortened(items: Sequence[Any], most: int, words: Callable[[Any], str] = str) -> list[str]:
    """The first items in words, with `and N more` as the last entry where there are others."""
    others = len(items) - most
    return [*map(words, items[:most]), *([f"and {others:,} more"] if others > 0 else [])]


class ConfigError(UserError):
    """A configuration field that is unknown, of the wrong type or out of range."""


class AnnotationError(UserError):
    """An annotation file or list that cannot be read as what it should be."""


class ImageError(UserError):
    """An image file that is missing, unreadable or not an image."""


class WorkdirError(UserError):
    """A run directory that cannot be written, or that belongs to another run."""


class WeightsError(UserError):
    """A weights file that is damaged, unsafe, of another network, or paired with other settings."""
