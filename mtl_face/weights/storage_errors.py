"""What orbax and its storage driver say when a disk or a file fails, in the user's words."""

import logging
import os
import re
import warnings


def disk_failure(error: BaseException) -> str | None:
    """The system's words on a failed write: `No space left on device`.

    Args:
        error: what a write raised. The storage driver reports failures of the disk as ValueError,
            with the system's code in the text.

    Returns:
        The words; None if it was no failure of the disk.
    """
    code = re.search(r"os_error_code='(\d+)'", str(error))
    if code is not None:
        return os.strerror(int(code[1]))
    if isinstance(error, OSError):
        return error.strerror or first_words(error)
    return None


def first_words(error: BaseException, longest: int = 400) -> str:
    """The beginning of a message; what follows is the internals of the storage driver."""
    text = (str(error) or type(error).__name__).splitlines()[0].split(" [tensorstore_spec")[0]
    return text if len(text) <= longest else text[:longest] + "..."


def quiet() -> None:
    """Keeps orbax's logs away: a page a save, and the traceback of each error that it raises."""
    logging.getLogger("absl").addFilter(_not_from_orbax)


def quiet_leftovers() -> None:
    """After a failure, the other tasks of orbax complain one by one of what was said already."""
    warnings.filterwarnings("ignore", "coroutine .* was never awaited", RuntimeWarning)
    logging.getLogger("asyncio").setLevel(logging.CRITICAL)


def _not_from_orbax(record: logging.LogRecord) -> bool:
    return "orbax" not in record.pathname
