"""The networks that find faces, in ONNX Runtime, against those of this program."""

import json

import camera_frames
import numpy as np
import pytest
from PIL import Image

from mtl_face.export import face_finding
from mtl_face.faces import align, geometry, models, points
from mtl_face.faces.search import TILE

onnxruntime = pytest.importorskip("onnxruntime")


def session(content):
    return onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])


def answers(found, **arrays):
    names = [output.name for output in found.get_outputs()]
    return dict(zip(names, found.run(names, arrays), strict=True))


def assert_described(found):
    """The metadata name inputs and outputs with the shapes that they have."""
    metadata = found.get_modelmeta().custom_metadata_map
    for kind, arrays in (("inputs", found.get_inputs()), ("outputs", found.get_outputs())):
        described = json.loads(metadata[kind])
        assert {name: each["shape"] for name, each in described.items()} == {
            array.name: array.shape for array in arrays
        }
    assert json.loads(metadata["points"]) == points.specification()


def test_the_detector():
    head, landmarks = camera_frames.head(3, size=TILE, eyes_px=40)
    tiles = np.stack([head, np.random.default_rng(0).integers(0, 256, head.shape, np.uint8)])
    found = session(face_finding.detector())
    assert_described(found)
    one = answers(found, tile=tiles)
    score_BA, box_BA4, point_BAK2 = models.blaze_face_network()(tiles)
    for name, expected in (("score", score_BA), ("box", box_BA4), ("points", point_BAK2)):
        np.testing.assert_allclose(one[name], expected, atol=2e-5, err_msg=name)
    best = one["score"][0].argmax()
    assert one["score"][0, best] > 0.5
    eyes = one["points"][0, best, :2] * TILE
    assert np.abs(eyes - landmarks[:2]).max() < 12


def test_the_mesh():
    """What does not depend on the cut is that of the mesh in the picture."""
    head, landmarks = camera_frames.head(5, size=300, eyes_px=60, yaw=12.0)
    target = (align.TEMPLATE_L2 - 56) * 1.1 + 96
    matrix_23 = align.similarity(landmarks, target)
    cut = align.cut(Image.fromarray(head), matrix_23, models.MESH_SIZE)[None]
    found = session(face_finding.mesh())
    assert_described(found)
    one = answers(found, cut=cut)
    score_B, mesh_BV3 = models.face_mesh_network()(cut)
    assert score_B[0] > 0.9
    np.testing.assert_allclose(one["score"], score_B, atol=1e-5)
    np.testing.assert_allclose(one["mesh"], mesh_BV3, atol=2e-3)
    inverse_23 = align.invert(matrix_23)
    mesh_BV3[0, :, :2] = align.transform(inverse_23, mesh_BV3[0, :, :2])
    mesh_BV3[0, :, 2] *= np.linalg.norm(inverse_23[:, 0])
    np.testing.assert_allclose(one["points"], geometry.normalise(mesh_BV3), atol=1e-4)
    _, turn_B33 = geometry.aligned(one["mesh"], geometry.mean_face())
    np.testing.assert_allclose(one["turn"], turn_B33, atol=1e-5)
