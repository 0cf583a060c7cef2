"""Reading a text file that a user supplied, and reporting all its faults in one message."""

import os

from mtl_face.errors import AnnotationError

MAX_FAULTS_SHOWN = 10

WHITESPACE = " \t\v\f"
"""What is stripped around a value. Not all of Unicode's blanks: they may belong to a file name."""


def read_lines(path: str | os.PathLike[str]) -> list[str]:
    """Reads a UTF-8 text file as lines without line ends.

    A byte order mark and Windows or old Macintosh line ends are accepted. Line i of an editor is
    element i - 1: unlike `str.splitlines`, rare separators such as U+2028 do not end a line.

    Raises:
        AnnotationError: the file is missing, a folder, unreadable, empty or not UTF-8.
    """
    text = to_text(read_bytes(path), path)
    return text.split("\n")


def read_bytes(path: str | os.PathLike[str]) -> bytes:
    """Reads a file that a user supplied.

    Raises:
        AnnotationError: the file is missing, a folder or unreadable.
    """
    try:
        with open(path, "rb") as file:
            return file.read()
    except FileNotFoundError as error:
        raise AnnotationError(
            "the file does not exist", path=path, remedy="check the path for a typing mistake"
        ) from error
    except IsADirectoryError as error:
        raise AnnotationError(
            "this is a folder, not a file", path=path, remedy="name the text file inside it"
        ) from error
    except PermissionError as error:
        raise AnnotationError(
            "no permission to read the file",
            path=path,
            remedy="make it readable, for instance with chmod u+r",
        ) from error
    except OSError as error:
        raise AnnotationError(
            f"the file cannot be read ({error.strerror})",
            path=path,
            remedy="check the disk or the network share that holds it",
        ) from error


def to_text(content: bytes, path: str | os.PathLike[str]) -> str:
    """Decodes UTF-8 without a byte order mark; every line end becomes a line feed.

    Raises:
        AnnotationError: `content` is empty or not UTF-8.
    """
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        before = content[: error.start].replace(b"\r\n", b"\n").replace(b"\r", b"\n")
        raise AnnotationError(
            f"byte 0x{content[error.start]:02x} is not UTF-8 text",
            path=path,
            line=before.count(b"\n") + 1,
            remedy="save it as plain text in UTF-8; an archive or spreadsheet must be exported",
        ) from error
    if not text.strip():
        raise AnnotationError(
            "the file is empty", path=path, line=1, remedy="download or write it again"
        )
    return text.replace("\r\n", "\n").replace("\r", "\n")


class FaultList:
    """Faults of one file, gathered so that a user mends the file once.

    Attributes:
        path: the file.
        total: number of faults added.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = path
        self.total = 0
        self._shown: list[tuple[int, str, str]] = []

    def add(self, line: int, problem: str, remedy: str) -> None:
        """Notes that line `line` (from 1) has `problem` and how to mend it."""
        self.total += 1
        self._shown.append((line, problem, remedy))
        if len(self._shown) > 2 * MAX_FAULTS_SHOWN:  # a file of 170,000 faults stays cheap
            self._trim()

    def raise_if_any(self) -> None:
        """Raises one `AnnotationError` for the faults, first line first; none: returns.

        The error's `line` is that of the first fault; its message lists up to ten.
        """
        if not self.total:
            return
        self._trim()
        (line, problem, _), *others = self._shown
        listed = [problem, *(f"  line {number}: {text}" for number, text, _ in others)]
        if self.total > len(self._shown):
            listed.append(f"  and {self.total - len(self._shown)} more faults")
        remedies = dict.fromkeys(remedy for _, _, remedy in self._shown)  # in order, each once
        raise AnnotationError(
            "\n".join(listed), path=self.path, line=line, remedy="; ".join(remedies)
        )

    def _trim(self) -> None:
        self._shown.sort(key=lambda fault: fault[0])
        del self._shown[MAX_FAULTS_SHOWN:]
