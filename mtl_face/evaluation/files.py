"""Writing a result file so that a reader never sees half of it."""

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from mtl_face.errors import WorkdirError


@contextmanager
def replacing(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Gives a temporary path beside `path`, and renames it to `path` when the block succeeds.

    A block that raises leaves `path` as it was and no temporary file behind. Missing parent
    folders are made. An OSError of the block is taken for one of writing: it should do nothing
    else.

    Args:
        path: the file to write or to replace.

    Yields:
        The path to write to, in the same folder.

    Raises:
        WorkdirError: the folder or the file cannot be written, say since the disk is full.
    """
    target = Path(path)
    if target.is_dir():
        raise WorkdirError("is a folder", path=target, remedy="name a file inside it")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        descriptor, name = tempfile.mkstemp(prefix=f".{target.name}.", dir=target.parent)
    except OSError as error:
        raise _unwritable(target, error) from error
    os.close(descriptor)
    temporary = Path(name)
    try:
        yield temporary
        # mkstemp makes files private; the result gets the permissions of any other new file.
        umask = os.umask(0)
        os.umask(umask)
        temporary.chmod(0o666 & ~umask)
        os.replace(temporary, target)
    except BaseException as error:
        temporary.unlink(missing_ok=True)
        if isinstance(error, OSError):
            raise _unwritable(target, error) from error
        raise


def _unwritable(target: Path, error: OSError) -> WorkdirError:
    # by the number: libraries put sentences of their own into `strerror`
    words = str(error) if error.errno is None else os.strerror(error.errno)
    return WorkdirError(
        f"cannot be written ({words})",
        path=target,
        remedy="choose a folder that you may write to, on a disk with space left",
    )
