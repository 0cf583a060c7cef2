"""Opens HDF5 files and reads nothing but what lies in them.

HDF5 can name other files: by an external link, by a virtual data set, by raw data in an external
file. Bytes of any file of this machine would then stand for weights and travel on in an export. So
only hard links are followed, and only arrays with data of their own are read.

A few kilobytes can also claim any amount of memory: by a shape that nothing fills, by chunks larger
than the array, by compression. `file_content.Budget` bounds all of it.
"""

import contextlib
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mtl_face.errors import WeightsError
from mtl_face.weights.file_content import Budget

_SHUFFLE, _FLETCHER32, _DEFLATE = 2, 3, 1
_FILTERS = {_DEFLATE, _SHUFFLE, _FLETCHER32}
"""Filters of Keras, MATLAB and h5py; HDF5 would look for a plugin that knows another one."""

_MOST_PLACES, _DEEPEST = 100_000, 20


class Hdf5File:
    """An HDF5 file, open until `stack` closes; a damaged one raises whatever h5py meets."""

    def __init__(self, path: Path, stack: contextlib.ExitStack) -> None:
        import h5py

        self.path = path
        self.root = stack.enter_context(h5py.File(path, "r"))
        self._budget = Budget(path.stat().st_size)
        self._places = _MOST_PLACES

    def find(self, name: str, group: Any = None) -> Any:
        """The group or array at a path below `group` (None: the root); None if there is none.

        Raises:
            WeightsError: a link on the way leads elsewhere, or the array's data lie elsewhere.
        """
        import h5py

        found = self.root if group is None else group
        for part in filter(None, name.split("/")):
            # Not `part in found`, which opens the file that a link names.
            code = part.encode()
            if not isinstance(found, h5py.Group) or not found.id.links.exists(code):
                return None
            if found.id.links.get_info(code).type != h5py.h5l.TYPE_HARD:
                raise self._elsewhere(f"{name} is a link to another place")
            found = found[part]
        return self._own(found)

    def walk(self, group: Any, name: str = "") -> Iterator[tuple[str, Any]]:
        """(path, group or array) of all below a group, which is called `name` itself.

        Raises:
            WeightsError: as `find`.
            ValueError: there is no end of them.
        """
        import h5py

        for part in group:
            self._places -= 1
            if self._places < 0 or name.count("/") > _DEEPEST:
                raise ValueError("it has groups within groups without end")
            found = self.find(part, group)
            path = f"{name}/{part}" if name else part
            yield path, found
            if isinstance(found, h5py.Group):
                yield from self.walk(found, path)

    def at(self, reference: Any) -> Any:
        """The group or array that an object reference points to; raises as `find`."""
        return self._own(self.root[reference])

    def read(self, array: Any) -> NDArray[Any]:
        """The numbers, or the object references, of an array that `find` or `at` gave.

        Raises:
            ValueError: it holds something else, or claims more than the file can hold.
        """
        import h5py

        reference = h5py.check_ref_dtype(array.dtype) is h5py.Reference
        if array.shape is None or (array.dtype.kind not in "fiub" and not reference):
            raise ValueError("it holds no numbers")  # HDF5 follows pointers out of its memory
        self._budget.take(array.size * array.dtype.itemsize)
        if array.chunks is not None:
            self._check_chunks(array)
        return np.asarray(array[()])

    def _own(self, found: Any) -> Any:
        import h5py

        if isinstance(found, h5py.Dataset) and (found.is_virtual or found.external):
            kind = "a virtual data set" if found.is_virtual else "data in an external file"
            raise self._elsewhere(f"{found.name} is {kind}")
        return found

    def _elsewhere(self, problem: str) -> WeightsError:
        return WeightsError(
            f"reaches outside of itself: {problem}; nothing of that was read",
            path=self.path,
            remedy="don't trust the file; if it is your own, write all arrays into one file",
        )

    def _check_chunks(self, array: Any) -> None:
        """Raises ValueError for chunks that unfold to more than their shape."""
        plan = array.id.get_create_plist()
        filters = [plan.get_filter(place)[0] for place in range(plan.get_nfilters())]
        if not _FILTERS.issuperset(filters) or len(set(filters)) < len(filters):
            raise ValueError(f"it is packed by filters {filters}, not by one of gzip")
        size = int(np.prod(array.chunks, dtype=object)) * array.dtype.itemsize
        self._budget.take(size)
        if _DEFLATE not in filters:
            return
        unpacked = 1 << filters.index(_DEFLATE)  # where a chunk says that it was left unpacked

        def check(chunk: Any) -> None:
            if chunk.filter_mask & unpacked:
                return
            raw = array.id.read_direct_chunk(chunk.chunk_offset)[1]
            if len(zlib.decompressobj().decompress(raw, size + 1)) > size:
                raise ValueError(f"a chunk unpacks to more than its {size:,} bytes")

        array.id.chunk_iter(check)
