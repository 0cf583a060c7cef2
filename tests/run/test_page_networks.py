"""The models that a page is given, of an export and of files of programs."""

import dataclasses
from pathlib import Path

import numpy as np
import program_files
import pytest

from mtl_face.run import models, page_networks
from mtl_face.weights.card import ExportError

onnxruntime = pytest.importorskip("onnxruntime")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    config = program_files.config_of("points")
    return program_files.write_export(tmp_path_factory.mktemp("models") / "export", config)


def test_an_export_of_points(folder):
    predictor = models.load(folder)
    networks = page_networks.networks_of(predictor)
    assert (networks.crop_size, networks.takes_points) == (program_files.SIDE, True)
    assert list(networks.decisions) == ["au_thresholds", "expression_biases"]
    assert list(networks.files()) == ["detector", "mesh", "network"]
    session = onnxruntime.InferenceSession(networks.network, providers=["CPUExecutionProvider"])
    assert [each.name for each in session.get_inputs()] == ["points", "baseline"]
    points = np.random.default_rng(1).normal(0, 0.05, (2, 468, 3)).astype(np.float32)
    arrays = {"points": points, "baseline": np.zeros_like(points)}
    (va,) = session.run(["valence_arousal"], arrays)
    expected = predictor.predict_arrays(arrays).va.clip(-1, 1)
    np.testing.assert_allclose(va, expected, atol=1e-5)


@pytest.mark.slow
def test_a_file_of_onnx_is_taken_as_it_is(folder):
    path = program_files.write_onnx(folder.with_name("points.onnx"), folder)
    assert page_networks.networks_of(models.load(path)).network == path.read_bytes()


def test_another_program_is_refused(folder):
    predictor = models.load(folder)
    forward = type("Program", (), {"path": Path("faces.zip"), "config": predictor.config})()
    with pytest.raises(ExportError, match=r"faces.zip: .*browsers run ONNX"):
        page_networks.networks_of(dataclasses.replace(predictor, forward=forward))
