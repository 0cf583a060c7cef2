"""Tensors and arrays in pickles: what describes them, and their values.

`pickle_machine` reads a pickle and runs nothing of it. Here are the names that it knows: those of
PyTorch and NumPy by which tensors and arrays are described, and those of containers. Every number
that describes one is checked, and its bounds again where memory is read.
"""

import math
from collections.abc import Callable
from typing import Any, BinaryIO, Literal, NamedTuple

import ml_dtypes
import numpy as np
from numpy.typing import NDArray

from mtl_face.weights import pickle_machine
from mtl_face.weights.pickle_machine import (
    MOST_ARGUMENTS,
    Global,
    MalformedError,
    Pickle,
    Record,
    as_dict,
    words,
)

_LARGEST = 2**33
"""Bytes of one array; ResNet50's largest has 71 MB with a classifier's."""

_MOST_SIDES = 32


class Storage(NamedTuple):
    """Numbers that a PyTorch file keeps apart from the pickle, under the name `key`.

    `length` is the number of elements.
    """

    dtype: np.dtype
    key: str
    length: int

    @property
    def size(self) -> int:
        """Bytes of all elements."""
        return self.length * self.dtype.itemsize


class StoredTensor(NamedTuple):
    """A tensor as a view of a storage; the strides count elements."""

    storage: Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]

    @property
    def last(self) -> int:
        """Index of its last element in the storage."""
        return self.offset + sum(
            (length - 1) * step for length, step in zip(self.shape, self.strides, strict=True)
        )

    def array(self, raw: bytes) -> NDArray[Any]:
        """The tensor, a view of the bytes of its storage."""
        flat = np.frombuffer(raw, self.storage.dtype)
        if 0 in self.shape:
            return np.zeros(self.shape, flat.dtype)
        if self.last >= len(flat):
            raise MalformedError(f"a tensor of shape {self.shape} in {len(flat)} numbers")
        return np.lib.stride_tricks.as_strided(
            flat[self.offset :], self.shape, [step * flat.itemsize for step in self.strides]
        )


class Array(Record):
    """A NumPy array; `shape` is None until it is described, and stays so if it has no numbers."""

    def __init__(self) -> None:
        super().__init__("numpy.ndarray")
        self.shape: tuple[int, ...] | None = None

    def build(self, state: Any) -> None:
        """Takes `(version, shape, dtype, in columns, bytes)`; the version may be absent."""
        if not isinstance(state, tuple) or len(state) not in (4, 5):
            raise MalformedError("unknown description of an array")
        shape, kind, in_columns, raw = state[-4:]
        self.describe(raw, kind, shape, "F" if in_columns is True else "C")

    def describe(self, raw: Any, kind: Any, shape: Any, order: Literal["C", "F"]) -> None:
        """Takes the bytes (of Python 2: a string), the type of numbers, and how they lie."""
        if not isinstance(kind, Record) or not _naturals(shape):
            raise MalformedError("unknown description of an array")
        if not isinstance(kind, _DType):
            return
        if not isinstance(raw, bytes | bytearray | str):
            raise MalformedError("an array without its bytes")
        if math.prod(shape) * kind.value.itemsize != len(raw):
            raise MalformedError(f"an array of shape {shape} in {len(raw)} bytes")
        self.shape, self._content = shape, (raw, kind.value, order)

    def array(self) -> NDArray[Any]:
        """The array, once it is described."""
        raw, dtype, order = self._content
        raw = raw.encode("latin1") if isinstance(raw, str) else raw
        return np.frombuffer(raw, dtype).reshape(self.shape, order=order)


def load(file: BinaryIO, persistent: Callable[[Any], Any] | None = None) -> Pickle:
    """Reads one pickle, as `pickle_machine.load`; tensors are `StoredTensor`, arrays `Array`."""
    return pickle_machine.load(file, _BUILDERS, persistent)


def outside(reference: Any) -> Storage | Global | Record:
    """What PyTorch's reference to something outside of a pickle names.

    `('storage', type, key, device, count, ...)` gives a `Storage`, or a record if its type is not
    known; `('module', class, ...)` of legacy files gives the class.

    Raises:
        MalformedError: it is no such reference.
    """
    if isinstance(reference, tuple) and len(reference) <= MOST_ARGUMENTS:
        match reference:
            case ("storage", Global(name), str(key), _, count, *rest) if _natural(count):
                if rest and rest[0] is not None:
                    raise MalformedError("a storage that is a view of another")
                kind = _STORAGES.get(name)
                return Record(name) if kind is None else Storage(kind, key, count)
            case ("module", Global() as found, *_):
                return found
    raise MalformedError(f"unknown reference, {words(reference)}")


class _DType(Record):
    """A type of numbers."""

    def __init__(self, value: np.dtype) -> None:
        super().__init__("numpy.dtype")
        self.value = value

    def build(self, state: Any) -> None:
        """Takes `(version, order of bytes, ...)`."""
        order = state[1] if isinstance(state, tuple) and len(state) > 1 else None
        if not isinstance(order, str) or order not in ("<", ">", "=", "|"):
            raise MalformedError("unknown description of a type of numbers")
        self.value = np.dtype(("=" if order == "|" else order) + self.value.str[1:])


_NUMBERS = frozenset(
    ["f2", "f4", "f8", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "b1", *"?efdbhilqBHILQ"]
)


def _dtype(code: Any = None, *rest: Any) -> Record:
    del rest
    text = code.decode("ascii", "replace") if isinstance(code, bytes) else code
    if not isinstance(text, str):
        raise MalformedError("unknown type of numbers")
    bare = text.lstrip("<>=|")
    if bare not in _NUMBERS:
        return Record(f"numpy array of type {text[:20]!r}")
    return _DType(np.dtype((text[0] if text[0] in "<>" else "=") + bare))


def _scalar(kind: Any, raw: Any = None) -> Any:
    found = Array()
    found.describe(raw, kind, (), "C")
    return Record(kind.name) if found.shape is None else found.array().item()


def _from_buffer(raw: Any, kind: Any, shape: Any, order: Any, *rest: Any) -> Array:
    del rest
    found = Array()
    found.describe(raw, kind, shape, "F" if order == "F" else "C")
    return found


def _encode(text: Any, encoding: Any = "latin1") -> bytes:
    """How Python 3 writes bytes for Python 2 to read."""
    if not isinstance(text, str) or encoding not in ("latin1", "latin-1"):
        raise MalformedError("unknown encoding of bytes")
    return text.encode("latin1")


def _bytes(content: Any = b"", *rest: Any) -> bytes:
    if isinstance(content, bytes | bytearray) and not rest:
        return bytes(content)
    return _encode(content, *rest)


def _dict(content: Any = (), *rest: Any) -> dict[Any, Any]:
    del rest
    return as_dict(content.items() if isinstance(content, dict) else content)


def _sequence(content: Any = (), *rest: Any) -> Any:
    """The content of a set, list or tuple, which is not copied."""
    del rest
    if not isinstance(content, list | tuple):
        raise MalformedError(f"a container of {words(content)}")
    return content or []


def _instance(kind: Any, *rest: Any) -> Record:
    """An object of a class, as protocols 0 and 1 make it."""
    return Record(words(kind), rest)


def _rebuild_tensor(storage: Any, offset: Any, shape: Any, strides: Any, *rest: Any) -> Any:
    del rest
    if isinstance(storage, Record):
        return Record(storage.name)
    natural = _natural(offset) and _naturals(shape) and _naturals(strides)
    if not natural or not isinstance(storage, Storage):
        raise MalformedError("unknown description of a tensor")
    if len(shape) != len(strides) or math.prod(shape) * storage.dtype.itemsize > _LARGEST:
        raise MalformedError(f"a tensor of shape {shape} and strides {strides}")
    tensor = StoredTensor(storage, offset, shape, strides)
    if 0 not in shape and tensor.last >= storage.length:
        raise MalformedError(f"a tensor of shape {shape} in {storage.length} numbers")
    return tensor


def _rebuild_subclass(function: Any, kind: Any, arguments: Any, *rest: Any) -> Any:
    """A tensor of a subclass, by the function that makes it of a plain one."""
    del rest
    if isinstance(function, Global) and function.name in _TENSORS and isinstance(arguments, tuple):
        return _TENSORS[function.name](*arguments[:MOST_ARGUMENTS])
    return Record(words(kind), arguments)


def _naturals(values: Any) -> bool:
    return isinstance(values, tuple) and len(values) <= _MOST_SIDES and all(map(_natural, values))


def _natural(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**48


_STORAGES = {
    f"{module}.{name}Storage": np.dtype(kind)
    for module in ("torch", "torch.cuda")
    for name, kind in {
        "Float": "<f4",
        "Double": "<f8",
        "Half": "<f2",
        "BFloat16": ml_dtypes.bfloat16,
        "ComplexFloat": "<c8",
        "ComplexDouble": "<c16",
        "Long": "<i8",
        "Int": "<i4",
        "Short": "<i2",
        "Char": "|i1",
        "Byte": "|u1",
        "Bool": "|b1",
    }.items()
}
"""Type of the numbers of each of PyTorch's storages."""

_TENSORS: dict[str, Callable[..., Any]] = {
    "torch._utils._rebuild_tensor": _rebuild_tensor,
    "torch._utils._rebuild_tensor_v2": _rebuild_tensor,
    "torch._utils._rebuild_parameter": lambda tensor, *_: tensor,
    "torch._utils._rebuild_parameter_with_state": lambda tensor, *_: tensor,
}

_BUILDERS: dict[str, Callable[..., Any] | None] = {
    **dict.fromkeys(_STORAGES),
    **_TENSORS,
    "torch._tensor._rebuild_from_type_v2": _rebuild_subclass,
    "torch.Size": _sequence,
    "collections.OrderedDict": _dict,
    "numpy.ndarray": lambda *_: Array(),
    "numpy.dtype": _dtype,
    "_codecs.encode": _encode,
}
for _module in ("numpy.core", "numpy._core"):
    _BUILDERS[f"{_module}.multiarray._reconstruct"] = lambda *_: Array()
    _BUILDERS[f"{_module}.multiarray.scalar"] = _scalar
    _BUILDERS[f"{_module}.numeric._frombuffer"] = _from_buffer
for _module in ("builtins", "__builtin__"):
    _BUILDERS |= {f"{_module}.{_name}": _bytes for _name in ("bytes", "bytearray")}
    _BUILDERS |= {
        f"{_module}.{_name}": _sequence for _name in ("set", "frozenset", "list", "tuple")
    }
    _BUILDERS |= {f"{_module}.dict": _dict, f"{_module}.object": None}
for _module in ("copyreg", "copy_reg"):
    _BUILDERS |= {f"{_module}.{_name}": _instance for _name in ("_reconstructor", "__newobj__")}
