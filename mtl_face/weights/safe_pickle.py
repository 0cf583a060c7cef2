"""Reads pickles of tensors and arrays, and nothing else that a pickle can do.

A pickle is a program: it names functions, calls them, and sets attributes on what they return. Here
every name is looked up in a short table of stand-ins (`_STAND_INS`), which describe arrays and run
nothing; any other name ends the reading before it is called. What a pickle gets hold of is
immutable, takes nothing but numbers, text and bytes, and has its bounds checked again where memory
is read.
"""

import math
import pickle
import pickletools
from collections.abc import Callable
from typing import Any, BinaryIO, NamedTuple

import ml_dtypes
import numpy as np
from numpy.typing import NDArray

_LARGEST = 2**33
"""Bytes of one array; ResNet50's largest has 71 MB with a classifier's."""


class RefusedNameError(Exception):
    """A pickle asked for something that is neither an array nor a tensor; it was not run."""

    def __init__(self, name: str) -> None:
        self.name = name
        super().__init__(name)


class MalformedError(Exception):
    """A pickle describes an array that cannot be."""


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
        """The tensor, from the bytes of its storage."""
        flat = np.frombuffer(raw, self.storage.dtype)
        if 0 in self.shape:
            return np.zeros(self.shape, flat.dtype)
        if self.last >= len(flat):
            raise MalformedError(f"a tensor of shape {self.shape} in {len(flat)} numbers")
        return np.lib.stride_tricks.as_strided(
            flat[self.offset :], self.shape, [step * flat.itemsize for step in self.strides]
        ).copy()


def load(file: BinaryIO, persistent: Callable[[Any], Any] | None = None) -> Any:
    """Reads one pickle from where the file stands, and leaves the file behind its end.

    `persistent` resolves a reference to something outside of the pickle.

    Returns:
        Numbers, text, lists, dicts, `StoredTensor` and NumPy arrays.

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
            return _STAND_INS[module, name]
        except KeyError:
            raise RefusedNameError(f"{module}.{name}") from None

    def persistent_load(self, reference: Any) -> Any:
        if self._persistent is None:
            raise MalformedError("it refers to something outside of it")
        return self._persistent(reference)


_IN_PROGRESS = object()


def _finished(value: Any, done: dict[int, Any]) -> Any:
    """The value with NumPy arrays in place of their descriptions; shared parts stay shared."""
    if isinstance(value, _Array):
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


def storage_of(reference: Any) -> Storage:
    """The storage that PyTorch's reference ('storage', type, key, device, count, ...) names.

    Raises:
        MalformedError: it is no such reference.
    """
    match reference:
        case ("storage", _StorageType(dtype), str(key), _, count, *rest) if _natural(count):
            if rest[:1] in ([], [None]):
                return Storage(dtype, key, count)
            raise MalformedError("a storage that is a view of another")
    raise MalformedError(f"unknown reference {str(reference)[:60]}")


class _StorageType(NamedTuple):
    dtype: np.dtype


class _StandIn:
    """What a pickle gets in place of a function or a class: it can be called, not changed."""

    __slots__ = ("_function",)
    _function: Callable[..., Any]

    def __init__(self, function: Callable[..., Any]) -> None:
        object.__setattr__(self, "_function", function)

    def __call__(self, *arguments: Any) -> Any:
        return self._function(*arguments)

    def __setattr__(self, name: str, value: Any) -> None:
        raise MalformedError(f"it changes {name} of a function")


class _Dict(dict):
    """Stands for OrderedDict; what PyTorch hangs on it (versions of modules) is let go."""

    def __setstate__(self, state: Any) -> None:
        del state


class _Array:
    """Stands for numpy.ndarray while its description arrives."""

    def __init__(self, value: NDArray[Any] | None = None) -> None:
        self.value = value

    def __setstate__(self, state: Any) -> None:
        if not isinstance(state, tuple) or len(state) not in (4, 5):
            raise MalformedError("unknown description of an array")
        shape, kind, in_columns, raw = state[-4:]
        self.value = _from_bytes(raw, kind, shape, "F" if in_columns else "C")


class _DType:
    """Stands for numpy.dtype while its description arrives."""

    def __init__(self, code: Any, *rest: Any) -> None:
        del rest
        text = code.decode("ascii") if isinstance(code, bytes) else code
        if not isinstance(text, str):
            raise MalformedError(f"unknown type of number {text!r}")
        self.text = text.lstrip("<>=|")
        self.order = text[0] if text[:1] in "<>" else "="
        if self.text not in _NUMBERS:
            raise RefusedNameError(f"numpy array of type {text[:20]!r}")

    def __setstate__(self, state: Any) -> None:
        if isinstance(state, tuple) and len(state) > 1 and state[1] in ("<", ">", "=", "|"):
            self.order = "=" if state[1] == "|" else state[1]
            return
        raise MalformedError("unknown description of a type of number")

    def dtype(self) -> np.dtype:
        return np.dtype(self.order + self.text)


_NUMBERS = frozenset(
    ["f2", "f4", "f8", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "b1", *"?efdbhilqBHILQ"]
)


def _scalar(kind: Any, raw: Any = None) -> Any:
    return _from_bytes(raw, kind, (), "C").item()


def _from_buffer(raw: Any, kind: Any, shape: Any, order: Any, *rest: Any) -> _Array:
    del rest
    return _Array(_from_bytes(raw, kind, shape, "F" if order == "F" else "C"))


def _from_bytes(raw: Any, kind: Any, shape: Any, order: Any) -> NDArray[Any]:
    if isinstance(raw, str):  # what Python 2 called a string
        raw = raw.encode("latin1")
    if not isinstance(raw, bytes | bytearray) or not isinstance(kind, _DType):
        raise MalformedError("unknown description of an array")
    if not _naturals(shape):
        raise MalformedError(f"an array of shape {str(shape)[:60]}")
    dtype = kind.dtype()
    if math.prod(shape) * dtype.itemsize != len(raw):
        raise MalformedError(f"an array of shape {shape} in {len(raw)} bytes")
    return np.frombuffer(bytes(raw), dtype).reshape(shape, order=order)


def _encode(text: Any, encoding: Any = "latin1") -> bytes:
    """How Python 3 writes bytes for Python 2 to read."""
    if not isinstance(text, str) or encoding not in ("latin1", "latin-1"):
        raise MalformedError("unknown encoding of bytes")
    return text.encode("latin1")


def _bytes(content: Any = b"", *rest: Any) -> bytes:
    if isinstance(content, bytes | bytearray) and not rest:
        return bytes(content)
    if isinstance(content, str):
        return _encode(content, *rest)
    raise MalformedError("unknown description of bytes")


def _rebuild_tensor(storage: Any, offset: Any, shape: Any, strides: Any, *rest: Any) -> Any:
    del rest
    natural = _natural(offset) and _naturals(shape) and _naturals(strides)
    if not natural or not isinstance(storage, Storage):
        raise MalformedError("unknown description of a tensor")
    if len(shape) != len(strides) or math.prod(shape) * storage.dtype.itemsize > _LARGEST:
        raise MalformedError(f"a tensor of shape {str(shape)[:60]}")
    tensor = StoredTensor(storage, offset, shape, strides)
    if 0 not in shape and tensor.last >= storage.length:
        raise MalformedError(f"a tensor of shape {shape} in {storage.length} numbers")
    return tensor


def _naturals(values: Any) -> bool:
    return isinstance(values, tuple) and all(map(_natural, values))


def _natural(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**48


_STORAGE_TYPES = {
    "FloatStorage": "<f4",
    "DoubleStorage": "<f8",
    "HalfStorage": "<f2",
    "BFloat16Storage": ml_dtypes.bfloat16,
    "LongStorage": "<i8",
    "IntStorage": "<i4",
    "ShortStorage": "<i2",
    "CharStorage": "|i1",
    "ByteStorage": "|u1",
    "BoolStorage": "|b1",
}

_STAND_INS: dict[tuple[str, str], Any] = {
    ("collections", "OrderedDict"): _StandIn(_Dict),
    ("numpy", "ndarray"): _StandIn(lambda *_: _Array()),
    ("numpy", "dtype"): _StandIn(_DType),
    ("_codecs", "encode"): _StandIn(_encode),
    ("torch", "Size"): _StandIn(tuple),
    ("torch._utils", "_rebuild_tensor"): _StandIn(_rebuild_tensor),
    ("torch._utils", "_rebuild_tensor_v2"): _StandIn(_rebuild_tensor),
    ("torch._utils", "_rebuild_parameter"): _StandIn(lambda tensor, *_: tensor),
}
for _module in ("numpy.core", "numpy._core"):
    _STAND_INS[_module + ".multiarray", "_reconstruct"] = _StandIn(lambda *_: _Array())
    _STAND_INS[_module + ".multiarray", "scalar"] = _StandIn(_scalar)
    _STAND_INS[_module + ".numeric", "_frombuffer"] = _StandIn(_from_buffer)
for _module in ("builtins", "__builtin__"):
    _STAND_INS[_module, "bytes"] = _StandIn(_bytes)
    _STAND_INS[_module, "bytearray"] = _StandIn(_bytes)
for _module in ("torch", "torch.cuda"):
    for _name, _kind in _STORAGE_TYPES.items():
        _STAND_INS[_module, _name] = _StorageType(np.dtype(_kind))
