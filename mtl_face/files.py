"""Files that this program writes: whole or not at all, and one message where that fails.

No module opens a result for writing by itself: `replacing` gives a temporary path beside it and
renames that when all went well, so that a reader never sees half of a file.
"""

import csv
import errno
import hashlib
import json
import os
import re
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from mtl_face.errors import UserError, WorkdirError

_WAYS_OUT = {
    errno.ENOSPC: "free some space",
    errno.EDQUOT: "free some space",
    errno.EACCES: "correct the permissions",
    errno.EPERM: "correct the permissions",
    errno.EROFS: "make the file system writable",
    errno.EEXIST: "move the file that is in the way",
    errno.ENOTDIR: "move the file that is in the way",
    errno.ENAMETOOLONG: "shorten the name",
}
"""What helps where a file or folder cannot be written, by the system's code."""

_ELSEWHERE = "or choose another folder"


@contextmanager
def replacing(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Gives a temporary path beside `path`, and renames it to `path` when the block succeeds.

    A block that raises leaves `path` as it was and no temporary file behind. Missing parent
    folders are made. An OSError of the block is taken for one of writing: it should do nothing
    else.

    Args:
        path: the file to write or to replace; of a link, what it leads to.

    Yields:
        The path to write to, in the same folder.

    Raises:
        WorkdirError: the folder or the file cannot be written, as on a full disk, or `path` is a
            device or a pipe.
    """
    target = _no_folder(os.path.realpath(path) if os.path.islink(path) else path)
    if target.exists() and not target.is_file():
        raise WorkdirError(
            "is a device or a pipe, not a file", path=path, remedy="name a file to write"
        )
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        descriptor, name = tempfile.mkstemp(prefix=f".{target.name}.", dir=target.parent)
    except OSError as error:
        raise unwritable(target, error) from error
    os.close(descriptor)
    temporary = Path(name)
    try:
        yield temporary
        _to_disk(temporary)
        # mkstemp makes files private; the result gets the permissions of any other new file.
        umask = os.umask(0)
        os.umask(umask)
        temporary.chmod(0o666 & ~umask)
        os.replace(temporary, target)
    except BaseException as error:
        temporary.unlink(missing_ok=True)
        if isinstance(error, OSError):
            raise unwritable(target, error) from error
        raise


def _to_disk(path: Path) -> None:
    """Returns when the disk has a file: else the rename may survive a power cut, and not the bytes.

    Network file systems report a full disk here.
    """
    with path.open("rb") as file:
        try:
            os.fsync(file.fileno())
        except OSError as error:
            if error.errno != errno.EINVAL:  # a file system that cannot say
                raise


@contextmanager
def replacing_folder(
    path: str | os.PathLike[str], *, otherwise: str = _ELSEWHERE
) -> Iterator[Path]:
    """Gives an empty folder beside `path`, and renames it to `path` when the block succeeds.

    A folder at `path` is replaced; a block that raises leaves it as it was. What an interrupted
    program left behind (`NAME.incomplete`) is deleted. The block may let orbax write, see
    `disk_failure`. `otherwise` as for `remedy`.

    Raises:
        WorkdirError: the folder cannot be written.
    """
    target = Path(path)
    temporary = target.with_name(target.name + ".incomplete")
    try:
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir(parents=True)
        yield temporary
        shutil.rmtree(target, ignore_errors=True)
        os.replace(temporary, target)
    except BaseException as error:
        shutil.rmtree(temporary, ignore_errors=True)
        failure = disk_failure(error)
        if failure is None:
            raise
        raise unwritable(target, failure, otherwise=otherwise) from error


def write_text(path: str | os.PathLike[str], text: str) -> None:
    """Writes UTF-8 text; raises WorkdirError as `replacing`."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: str | os.PathLike[str], values: Any, *, indent: int = 2) -> None:
    """Writes values as JSON; raises WorkdirError as `replacing`, ValueError for NaN."""
    write_text(path, json.dumps(values, indent=indent, allow_nan=False) + "\n")


_UNFIT_IN_NAMES = re.compile(r"[^\w.-]+")


def plain_name(text: str) -> str:
    """Text for paths and lists: what is no letter, digit, `_`, `-` or `.` becomes `_`."""
    return _UNFIT_IN_NAMES.sub("_", text)


_STARTS_FORMULA = re.compile(r"'*[=+\-@\t\r\n]")
_QUOTED_FORMULA = re.compile(r"'+[=+\-@\t\r\n]")


def write_csv(path: str | os.PathLike[str], rows: Iterable[Sequence[Any]]) -> None:
    r"""Writes rows as CSV (RFC 4180, UTF-8), each text in them as a `safe_cell`.

    Bytes of a file's name that are not UTF-8 are written as `\udcff`. Raises WorkdirError as
    `replacing`.
    """
    with (
        replacing(path) as part,
        part.open("w", newline="", encoding="utf-8", errors="backslashreplace") as file,
    ):
        csv.writer(file).writerows(
            [safe_cell(cell) if isinstance(cell, str) else cell for cell in row] for row in rows
        )


def safe_cell(text: str) -> str:
    """Text that no spreadsheet takes for a formula: `'` before =, +, -, @, tab or a line's end.

    Further quotation marks at the beginning stay, so that `plain_cell` gives every text back.
    """
    return f"'{text}" if _STARTS_FORMULA.match(text) else text


def plain_cell(text: str) -> str:
    """Inverse of `safe_cell`."""
    return text[1:] if text.startswith("'") and _QUOTED_FORMULA.match(text) else text


def read_json(
    path: str | os.PathLike[str], *, remedy: str, failure: type[UserError] = WorkdirError
) -> dict[str, Any]:
    """Reads a JSON object; raises `failure` where the file cannot be read or holds none."""
    try:
        values = json.loads(Path(path).read_bytes())
        if not isinstance(values, dict):
            raise ValueError("it holds no object")
    except (OSError, ValueError, RecursionError) as error:
        raise failure(f"cannot be read: {reason(error)}", path=path, remedy=remedy) from error
    return values


def make_folder(path: str | os.PathLike[str], *, otherwise: str = _ELSEWHERE) -> Path:
    """Makes a folder and those above it.

    Raises:
        WorkdirError: that fails, or no file can be made in it; `otherwise` as for `remedy`.
    """
    try:
        Path(path).mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=path).close()
    except OSError as error:
        raise unwritable(path, error, otherwise=otherwise) from error
    return Path(path)


def require_writable(
    folder: str | os.PathLike[str], *, file: str | os.PathLike[str] | None = None
) -> Path:
    """Raises WorkdirError unless a folder takes files, or can be made to; makes nothing.

    Called before work whose result goes there. The error names `file`, else the folder. Returns the
    absolute path.
    """
    folder = Path(folder).expanduser().resolve()
    existing = next(path for path in (folder, *folder.parents) if path.exists())
    try:
        with tempfile.TemporaryFile(dir=existing) as probe:
            probe.write(b"x")
    except OSError as error:
        raise unwritable(file or folder, error) from error
    return folder


def require_writable_file(path: str | os.PathLike[str]) -> Path:
    """Raises WorkdirError unless a file can be written at a path; returns that path."""
    require_writable(_no_folder(path).parent, file=path)
    return Path(path)


def _no_folder(path: str | os.PathLike[str]) -> Path:
    if Path(path).is_dir():
        raise WorkdirError("is a folder", path=path, remedy="name a file inside it")
    return Path(path)


def unwritable(
    path: str | os.PathLike[str], error: OSError, *, otherwise: str = _ELSEWHERE
) -> WorkdirError:
    """The error for a file or folder that the system refuses to write."""
    problem = f"cannot be written ({reason(error)})"
    return WorkdirError(problem, path=path, remedy=remedy(error, otherwise))


def remedy(error: OSError, otherwise: str) -> str:
    """What helps against a failed write, then `otherwise`, such as "or choose another folder"."""
    return f"{_WAYS_OUT.get(error.errno or 0, 'check the disk')}, {otherwise}"


def unreadable(error: OSError, what: str) -> tuple[str, str]:
    """Problem and remedy of a failed reading; `what` is a word such as file, image or folder."""
    if isinstance(error, FileNotFoundError | NotADirectoryError):
        return f"the {what} does not exist", "check the path for a typing mistake"
    if isinstance(error, IsADirectoryError):
        return f"this is a folder, not the {what}", f"name the {what} inside it"
    if isinstance(error, PermissionError):
        return f"no permission to read the {what}", "make it readable (chmod u+rX)"
    problem = f"the {what} cannot be read ({reason(error)})"
    if error.errno == errno.ENAMETOOLONG:
        return problem, "check the path for a typing mistake"
    return problem, "check the disk or the network share that holds it"


def reason(error: Exception) -> str:
    """What the system says, in its own words: libraries put sentences into `strerror`.

    Without a path, which the message about the file has already; other errors have their own words.
    """
    if isinstance(error, OSError) and error.errno is not None:
        return os.strerror(error.errno)
    return str(error)


def sha256(path: str | os.PathLike[str]) -> str:
    """SHA-256 of a file's bytes, in hexadecimal."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def cache_folder(environment: Mapping[str, str] = os.environ) -> Path:
    """This program's folder in the user's cache (`XDG_CACHE_HOME`, or `~/.cache`)."""
    root = environment.get("XDG_CACHE_HOME") or str(Path("~/.cache").expanduser())
    return Path(root) / "mtl_face"


def disk_failure(error: BaseException) -> OSError | None:
    """A failed write as the system's error, such as `No space left on device`; else None.

    Orbax's storage driver reports failures of the disk as ValueError, with the system's code in
    the text.
    """
    code = re.search(r"os_error_code='(\d+)'", str(error))
    if code is not None:
        return OSError(int(code[1]), os.strerror(int(code[1])))
    return error if isinstance(error, OSError) else None


def first_words(error: BaseException, longest: int = 400) -> str:
    """The beginning of a message; the storage driver's goes on with its internals."""
    text = (str(error) or type(error).__name__).splitlines()[0].split(" [tensorstore_spec")[0]
    return text if len(text) <= longest else text[:longest] + "..."
