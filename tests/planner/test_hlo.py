"""Texts of compiled programs."""

import numpy as np
import pytest

from mtl_face.planner import hlo


def test_text_that_is_no_program():
    with pytest.raises(ValueError, match="ENTRY"):
        hlo.parse("nothing")


def test_bytes_of_every_type():
    sizes = {"pred": 1, "s8": 1, "u8": 1, "bf16": 2, "f16": 2, "f32": 4, "f64": 8, "c64": 8}
    sizes |= {"s32": 4, "u64": 8, "f8e4m3fn": 1, "token": 0}
    assert {name: hlo.Array(name, (1,)).nbytes for name in sizes} == sizes
    assert np.dtype(np.complex64).itemsize == 8
