"""MATLAB's version 5: the values that SciPy reads, and no more memory than a file can fill."""

import struct
import zlib

import numpy as np
import pytest
import scipy.io
from hypothesis import given, settings
from hypothesis import strategies as st

from mtl_face.weights.mat5_file import Mat5File

TYPES = ("f8", "f4", "i1", "u1", "i2", "u2", "i4", "u4", "i8", "u8")


def values():
    random = np.random.default_rng(0)
    arrays = {kind: random.integers(0, 100, (2, 3, 4)).astype(kind) for kind in TYPES}
    return {
        **arrays,
        "text": "conv1",
        "cells": np.array([1.5, "x"], object),
        "empty": np.zeros((0, 3)),
        "inner": {"a": np.arange(6.0).reshape(2, 3), "deeper": {"b": np.float32(3)}},
    }


def assert_same(ours, scipys):
    if isinstance(ours, str):
        assert ours == str(scipys[0])
    elif isinstance(ours, list) and ours and isinstance(ours[0], dict):
        for one, other in zip(ours, scipys.ravel(), strict=True):
            assert list(one) == list(other.dtype.names)
            for name, value in one.items():
                assert_same(value, other[name])
    elif isinstance(ours, list):
        for one, other in zip(ours, scipys.ravel(order="F"), strict=True):
            assert_same(one, other)
    else:
        np.testing.assert_array_equal(ours, scipys)
        assert ours.dtype == scipys.dtype


@pytest.mark.parametrize("compressed", [False, True])
def test_same_as_scipy(path, compressed):
    written = values()
    with path.open("wb") as file:
        scipy.io.savemat(file, {"net": written, "other": 1.0, "v": 2.0}, do_compression=compressed)
    found = Mat5File(path).variables(("net", "v", "absent"))
    assert sorted(found) == ["net", "v"]
    for name, value in found.items():
        assert_same(value, scipy.io.loadmat(path)[name])


def test_structures_in_order(path):
    struct_array = np.zeros((1, 3), [("name", object), ("value", object)])
    for place in range(3):
        struct_array[0, place] = (f"p{place}", np.full((2, 1), place, np.float32))
    with path.open("wb") as file:
        scipy.io.savemat(file, {"params": struct_array})
    found = Mat5File(path).variables(("params",))["params"]
    assert [item["name"] for item in found] == ["p0", "p1", "p2"]
    assert [item["value"][1, 0] for item in found] == [0, 1, 2]


@pytest.mark.parametrize("name", ["complex", "sparse", "function"])
def test_what_no_weights_are_is_none(path, name):
    value = {"complex": np.ones(2) * 1j, "sparse": scipy.sparse.eye(3)}.get(name)
    if value is None:
        raw = element(14, element(6, struct.pack("<II", 16, 0)) + sides(1, 1) + element(1, b"net"))
        path.write_bytes(HEADER + raw)
    else:
        with path.open("wb") as file:
            scipy.io.savemat(file, {"net": value})
    assert Mat5File(path).variables(("net",)) == {"net": None}


HEADER = b"MATLAB 5.0 MAT-file".ljust(124) + b"\x00\x01IM"


def element(kind, data):
    return struct.pack("<II", kind, len(data)) + data + bytes(-len(data) % 8)


def sides(*lengths):
    return element(5, np.array(lengths, "<i4").tobytes())


def matrix(kind, shape, *parts, name=b"net"):
    head = element(6, struct.pack("<II", kind, 0)) + sides(*shape) + element(1, name)
    return element(14, head + b"".join(parts))


def nested(depth):
    inside = matrix(6, (1, 1), element(9, bytes(8)))
    for _ in range(depth):
        inside = matrix(1, (1, 1), inside)
    return inside


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (matrix(6, (2**30, 2**20), element(9, bytes(8))), "has 1 numbers, not 1125899906842624"),
        (matrix(6, (2,) * 40, element(9, bytes(8))), "without class and sides"),
        (matrix(6, (-1, 1), element(9, b"")), "without class and sides"),
        (matrix(2, (2**30, 1), element(5, struct.pack("<i", 8)), element(1, b"a")), "has 0 values"),
        (matrix(2, (1, 1), element(5, struct.pack("<i", 1)), element(1, b"a" * 1001)), "names of"),
        (nested(30), "without end"),
        (matrix(6, (1, 1)), "cut off"),
        (struct.pack("<II", 14, 2**31), "cut off"),
    ],
)
def test_claims(path, content, words):
    for raw in (content, struct.pack("<II", 15, len(zlib.compress(content)))):
        path.write_bytes(HEADER + raw + (zlib.compress(content) if raw is not content else b""))
        with pytest.raises(ValueError, match=words):
            Mat5File(path).variables(("net",))


def test_bombs(path):
    """A thousand times the file's size: as numbers, and as values of no size."""
    for content in (
        matrix(9, (72_000_000, 1), element(2, bytes(72_000_000))),
        matrix(1, (600_000, 1), element(14, b"") * 600_000),
    ):
        packed = zlib.compress(content)
        path.write_bytes(HEADER + struct.pack("<II", 15, len(packed)) + packed)
        with pytest.raises(ValueError, match="more memory than a file of"):
            Mat5File(path).variables(("net",))


@settings(deadline=None, derandomize=True, max_examples=150)
@given(st.lists(st.tuples(st.integers(128, 1500), st.integers(0, 255)), min_size=1, max_size=4))
def test_damage_is_never_a_crash(tmp_path_factory, changes):
    path = tmp_path_factory.getbasetemp() / "damaged.mat"
    with path.open("wb") as file:
        scipy.io.savemat(file, {"net": values()}, do_compression=False)
    raw = bytearray(path.read_bytes())
    for place, value in changes:
        raw[place % len(raw)] = value
    path.write_bytes(raw)
    try:
        found = Mat5File(path).variables(("net",))
    except (ValueError, OverflowError, struct.error):
        return
    assert set(found) <= {"net"}
