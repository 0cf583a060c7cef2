"""Checking a table's images before a long run: a quick look at names, or decoding every one."""

import dataclasses
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import numpy.typing as npt

from data_pipeline import images
from mtl_face.errors import ImageError
from mtl_face.tables import FrameTable

_CHUNK = 1024  # images handed to the threads at a time, and between two reports of progress


def find_missing(table: FrameTable) -> npt.NDArray[np.int64]:
    """Rows whose image file does not exist; lists each folder once and opens no file.

    Returns:
        int64 indices into the table, ascending.

    Raises:
        ImageError: the image root itself is missing, a folder may not be listed, or a folder or
            file is a symbolic link to a place outside of the image root (the root may be one).
    """
    real_roots = {}
    for root in sorted(set(table.root)):
        if not os.path.isdir(root):
            raise ImageError(
                "the image folder does not exist",
                path=root,
                remedy="set the image root to the folder that holds one folder a video",
            )
        real_roots[root] = os.path.realpath(root)
    folders: dict[tuple[str, str], _Folder] = {}
    missing = []
    for row, path in enumerate(table.paths()):
        folder, name = os.path.split(path)
        root = table.root[row]
        if (root, folder) not in folders:
            folders[root, folder] = _list(folder, real_roots[root])
        found = folders[root, folder]
        if name in found.outside:
            raise _leaves_root(path)
        if name not in found.names:
            missing.append(row)
    return np.array(missing, dtype=np.int64)


def drop_missing(table: FrameTable) -> tuple[FrameTable, list[str]]:
    """Leaves out the rows whose image does not exist. Only for callers that asked for it.

    Returns:
        The other rows, and the paths of the images that do not exist, one for each row left out.

    Raises:
        ImageError: as `find_missing`, or no image exists at all.
    """
    missing = find_missing(table)
    paths = table.paths()
    dropped = [paths[row] for row in missing]
    if len(dropped) == len(table):
        raise ImageError(
            f"none of the {len(table):,} images exists",
            path=dropped[0] if dropped else None,
            remedy="check the image root: it holds one folder a video",
        )
    keep = np.ones(len(table), dtype=bool)
    keep[missing] = False
    return table.select(keep), dropped


def check_images(
    table: FrameTable,
    workers: int = 2,
    progress: Callable[[int, int], None] | None = None,
) -> list[ImageError]:
    """Decodes every image of a table once, as training would, and collects what is wrong.

    Args:
        table: the table.
        workers: threads; decoding runs beside Python, so as many as there are cores is sensible.
        progress: called from time to time with (images done, images in all).

    Returns:
        One error for each unreadable image, in the order of the table.
    """
    paths = list(dict.fromkeys(table.paths()))  # a duplicate row's image is decoded once
    faults: list[ImageError] = []
    with ThreadPoolExecutor(workers) as pool:
        for start in range(0, len(paths), _CHUNK):
            chunk = paths[start : start + _CHUNK]
            faults.extend(error for error in pool.map(images.diagnose, chunk) if error)
            if progress is not None:
                progress(start + len(chunk), len(paths))
    return faults


@dataclasses.dataclass(frozen=True)
class _Folder:
    """Names of the files in a folder, and of those among them that links take from elsewhere."""

    names: frozenset[str]
    outside: frozenset[str]


def _list(folder: str, real_root: str) -> _Folder:
    try:
        with os.scandir(folder) as entries:
            files = [entry for entry in entries if entry.is_file()]
    except (FileNotFoundError, NotADirectoryError):
        return _Folder(frozenset(), frozenset())
    except OSError as error:
        denied = isinstance(error, PermissionError)
        raise ImageError(
            "no permission to list the folder"
            if denied
            else f"the folder cannot be listed ({error.strerror})",
            path=folder,
            remedy="make it readable (chmod u+rx)" if denied else "check the disk and the name",
        ) from error
    if not _is_inside(folder, real_root):
        raise _leaves_root(folder)
    return _Folder(
        frozenset(entry.name for entry in files),
        frozenset(
            entry.name
            for entry in files
            if entry.is_symlink() and not _is_inside(entry.path, real_root)
        ),
    )


def _is_inside(path: str, real_root: str) -> bool:
    real = os.path.realpath(path)
    return real == real_root or real.startswith(real_root.rstrip(os.sep) + os.sep)


def _leaves_root(path: str) -> ImageError:
    return ImageError(
        "a symbolic link leads out of the image folder",
        path=path,
        remedy="put the images themselves there, or let the image folder itself be the link",
    )
