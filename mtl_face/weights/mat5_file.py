"""Reads the variables of a MATLAB file of version 5: numbers, text, structures and cells.

Such a file is a header of 128 bytes and elements one after another: a tag (type, number of bytes)
and data, padded to 8 bytes. A matrix is an element of elements: flags with its class, sides, name,
then its numbers, or a matrix for each cell, or for each field of each structure. A compressed
element holds one matrix. (MathWorks, "MAT-File Format", R2024.)

Compression can make a thousand times of a file's size, so that all that is unpacked is counted.
"""

import math
import struct
import zlib
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mtl_face.weights.file_content import Budget

_HEADER = 128

_MATRIX, _COMPRESSED = 14, 15

_NUMBERS = {1: "i1", 2: "u1", 3: "i2", 4: "u2", 5: "i4", 6: "u4", 7: "f4", 9: "f8"} | {
    12: "i8",
    13: "u8",
    16: "u1",  # UTF-8
    17: "u2",  # UTF-16
}
"""NumPy's code of each type of element that holds numbers or text."""

_CELL, _STRUCT, _TEXT = 1, 2, 4

_CLASSES = {6: "f8", 7: "f4", 8: "i1", 9: "u1", 10: "i2", 11: "u2", 12: "i4", 13: "u4"} | {
    14: "i8",
    15: "u8",
}
"""NumPy's code of each class of numbers; they may be stored as a smaller type."""

_COMPLEX = 0x800
"""Flag of a matrix with an imaginary part."""

_DEEPEST = 16

_MOST_FIELDS = 1000

_VALUE = 128
"""Bytes that a value takes here, however few it has in the file."""


class Mat5File:
    """A file of MATLAB's version 5; a damaged one raises ValueError, struct.error or zlib.error."""

    def __init__(self, path: Path) -> None:
        self._raw = memoryview(path.read_bytes())
        self._budget = Budget(len(self._raw))
        if self._raw[126:128] not in (b"IM", b"MI"):
            raise ValueError("its header is cut off")
        self._order = "<" if self._raw[126:128] == b"IM" else ">"

    def variables(self, wanted: Collection[str]) -> dict[str, Any]:
        """The wanted variables that are there.

        An array of numbers is a NumPy array with MATLAB's axes, text is a string, cells are a list
        in MATLAB's order, structures are a list of dicts; anything else is None.
        """
        found = {}
        for kind, raw in self._elements(self._raw[_HEADER:]):
            if kind == _COMPRESSED:
                beginning = memoryview(zlib.decompressobj().decompress(raw, 1024))
                # The name lies in the first bytes: what is not wanted is not unpacked.
                if self._head(beginning[8:])[2] not in wanted:
                    continue
                raw = self._unpacked(raw)[8:]
            elif kind != _MATRIX:
                continue
            name, value = self._matrix(raw, 0)
            if name in wanted:
                found[name] = value
        return found

    def _unpacked(self, raw: memoryview) -> memoryview:
        unpacker = zlib.decompressobj()
        unpacked = unpacker.decompress(raw, self._budget.left + 1)
        self._budget.take(len(unpacked))
        if not unpacker.eof:
            raise ValueError("a compressed variable is cut off")
        return memoryview(unpacked)

    def _elements(self, raw: memoryview) -> Iterator[tuple[int, memoryview]]:
        """(type, data) of each element."""
        place = 0
        while place < len(raw):
            kind, size = struct.unpack_from(self._order + "II", raw, place)
            small = kind >> 16
            if small:  # up to four bytes stand in the tag
                kind, size, begin, place = kind & 0xFFFF, small, place + 4, place + 8
            else:
                begin = place + 8
                place = begin + size + (-size % 8 if kind != _COMPRESSED else 0)
            if begin + size > len(raw):
                raise ValueError("an element is cut off")
            yield kind, raw[begin : begin + size]

    def _head(self, raw: memoryview) -> tuple[int, tuple[int, ...], str, Iterator[Any]]:
        """Flags, sides, name and the other elements of a matrix."""
        elements = self._elements(raw)
        flags, sides, name = (self._numbers(*_next(elements)) for _ in range(3))
        if not len(flags) or len(sides) > 32 or sides.min(initial=0) < 0:
            raise ValueError("a matrix without class and sides")
        return int(flags[0]), tuple(map(int, sides)), _text(name), elements

    def _matrix(self, raw: memoryview, depth: int) -> tuple[str, Any]:
        self._budget.take(_VALUE)
        if not raw:
            return "", np.empty((0, 0))
        if depth > _DEEPEST:
            raise ValueError("structures within structures without end")
        flags, shape, name, elements = self._head(raw)
        kind, count = flags & 0xFF, math.prod(shape)
        if flags & _COMPLEX:
            return name, None
        if kind in _CLASSES:
            found = self._numbers(*_next(elements))
            if len(found) != count:
                raise ValueError(f"{name or 'an array'} has {len(found)} numbers, not {count}")
            if found.dtype.str[1:] != _CLASSES[kind]:  # stored smaller than it is
                self._budget.take(count * 8)
            return name, found.astype(_CLASSES[kind], copy=False).reshape(shape, order="F")
        if kind == _TEXT:
            return name, _text(self._numbers(*_next(elements)))
        if kind == _CELL:
            return name, [self._matrix(inside, depth + 1)[1] for _, inside in elements]
        if kind != _STRUCT:
            return name, None
        length = int(self._numbers(*_next(elements))[0])
        names = bytes(_next(elements)[1])
        if length < 1 or len(names) > length * _MOST_FIELDS:
            raise ValueError(f"{name or 'a structure'} has names of {length} bytes")
        fields = [
            names[begin : begin + length].split(b"\0")[0].decode("ascii", "replace")
            for begin in range(0, len(names), length)
        ]
        values = [self._matrix(inside, depth + 1)[1] for _, inside in elements]
        if len(values) != count * len(fields):
            raise ValueError(f"{name or 'a structure'} has {len(values)} values")
        return name, [
            dict(zip(fields, values[begin : begin + len(fields)], strict=True))
            for begin in range(0, len(values), max(len(fields), 1))
        ]

    def _numbers(self, kind: int, raw: memoryview) -> NDArray[Any]:
        if kind not in _NUMBERS:
            raise ValueError(f"an element of type {kind}, where numbers are due")
        return np.frombuffer(raw, self._order + _NUMBERS[kind])


def _next(elements: Iterator[tuple[int, memoryview]]) -> tuple[int, memoryview]:
    found = next(elements, None)
    if found is None:
        raise ValueError("a variable is cut off")
    return found


def _text(codes: NDArray[Any]) -> str:
    return codes.astype("<u4").tobytes().decode("utf-32-le", "replace")
