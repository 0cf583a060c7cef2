"""Reads pickles of tensors and arrays, and nothing else that a pickle can do.

A pickle is a program: it names functions and calls them. Here every name is looked up in a short
table of stand-ins of our own (`pickle_stand_ins`), which describe arrays and run nothing; any other
name ends the reading before it is called.
"""

import pickle
import pickletools
from collections.abc import Callable
from typing import Any, BinaryIO

from mtl_face.weights.pickle_stand_ins import (
    STAND_INS,
    Array,
    MalformedError,
    RefusedNameError,
    StoredTensor,
)


def load(file: BinaryIO, persistent: Callable[[Any], Any] | None = None) -> Any:
    """Reads one pickle.

    Args:
        file: positioned at its beginning; left behind its end.
        persistent: what stands for a reference to something outside of the pickle.

    Returns:
        Numbers, text, lists, tuples, dicts, `StoredTensor` and NumPy arrays.

    Raises:
        RefusedNameError: it names anything but arrays and tensors.
        MalformedError: it is damaged.
    """
    unpickler = _Unpickler(file, persistent)
    try:
        _check_places(file)
        return _finished(unpickler.load(), {})
    except (RefusedNameError, MalformedError):
        raise
    except Exception as error:  # a damaged pickle fails in whatever its bytes happen to mean
        raise MalformedError(str(error) or type(error).__name__) from error


def _check_places(file: BinaryIO) -> None:
    """Raises MalformedError if the pickle remembers something at a place beyond its own length.

    The unpickler makes room for all places up to the highest: ten bytes could take all memory.
    """
    begin = file.tell()
    for opcode, argument, position in pickletools.genops(file):
        if opcode.name not in ("PUT", "BINPUT", "LONG_BINPUT"):
            continue
        place: Any = argument
        if place > (position or 0) - begin:
            raise MalformedError(f"it remembers something at place {place:,}")
    file.seek(begin)


class _Unpickler(pickle.Unpickler):
    def __init__(self, file: BinaryIO, persistent: Callable[[Any], Any] | None) -> None:
        super().__init__(file, fix_imports=False, encoding="latin1")
        self._persistent = persistent

    def find_class(self, module: str, name: str) -> Any:
        try:
            return STAND_INS[module, name]
        except KeyError:
            raise RefusedNameError(f"{module}.{name}") from None

    def persistent_load(self, reference: Any) -> Any:
        if self._persistent is None:
            raise MalformedError("it refers to something outside of it")
        return self._persistent(reference)


def _finished(value: Any, done: dict[int, Any]) -> Any:
    """The value with NumPy arrays in place of their descriptions; shared parts stay shared."""
    if isinstance(value, Array):
        if value.value is None:
            raise MalformedError("an array without content")
        return value.value
    if isinstance(value, StoredTensor) or not isinstance(value, dict | list | tuple):
        return value
    if id(value) not in done:
        done[id(value)] = _IN_PROGRESS
        done[id(value)] = (
            {key: _finished(item, done) for key, item in value.items()}
            if isinstance(value, dict)
            else [_finished(item, done) for item in value]
        )
    if done[id(value)] is _IN_PROGRESS:
        raise MalformedError("it holds itself")
    return done[id(value)]


_IN_PROGRESS = object()
