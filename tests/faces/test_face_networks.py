"""The networks beside LiteRT, which runs the files that their weights come from."""

import hashlib
import json
from pathlib import Path

import camera_frames
import jax
import numpy as np
import pytest
from PIL import Image

from benchmarks import derive_face_networks
from mtl_face.faces import models
from mtl_face.model.convolution import compiler_options

DATA = Path(__file__).parent / "data"
FILES = {name: DATA / Path(member).name for name, member in derive_face_networks.FILES.items()}

TOLERANCE = 1e-4
"""Largest difference from LiteRT as a share of an output's range over a picture; 1e-6 was seen."""


def litert(name):
    """A function from a float picture to LiteRT's outputs, flat, by their size."""
    module = pytest.importorskip("ai_edge_litert.interpreter")
    network = module.Interpreter(model_path=str(FILES[name]), num_threads=1)
    network.allocate_tensors()

    def run(pixel_SS3):
        network.set_tensor(network.get_input_details()[0]["index"], pixel_SS3[None])
        network.invoke()
        outputs = [network.get_tensor(about["index"]) for about in network.get_output_details()]
        return {output.size: output.ravel() for output in outputs}

    return run


def pictures(size):
    """Real and rendered faces, and noise, uint8 [N, size, size, 3]."""
    data = pytest.importorskip("skimage.data")
    found = [Image.fromarray(data.astronaut()).crop((130, 0, 330, 200))]
    for seed in range(4):
        head, _ = camera_frames.head(seed, size=160, eyes_px=30, yaw=10 * seed - 15, roll=5 * seed)
        found.append(Image.fromarray(head))
    noise = np.random.default_rng(0).integers(0, 256, (size, size, 3), dtype=np.uint8)
    resized = [np.asarray(picture.resize((size, size))) for picture in found]
    return np.stack([*resized, noise])


@pytest.mark.parametrize("convolution", ["matmul", "xla"])
@pytest.mark.parametrize(
    ("name", "module", "size", "scale"),
    [
        ("blaze_face", models.BlazeFace, models.BLAZE_FACE_SIZE, lambda x: x / 127.5 - 1),
        ("face_mesh", models.FaceMesh, models.MESH_SIZE, lambda x: x / 255),
    ],
)
def test_outputs_are_those_of_litert(name, module, size, scale, convolution):
    pixel_NSS3 = scale(pictures(size).astype(np.float32)).astype(np.float32)
    apply = module(convolution).apply
    if convolution == "matmul":  # XLA, with YNNPACK, gets the other form wrong when compiled whole
        apply = jax.jit(apply, compiler_options=compiler_options("cpu"))
    outputs = apply(models.variables(name), pixel_NSS3)
    reference = litert(name)
    for index, pixel_SS3 in enumerate(pixel_NSS3):
        expected = reference(pixel_SS3)
        for output in outputs:
            one = np.asarray(output[index]).ravel()
            other = expected[one.size]
            unit = max(np.ptp(other), np.abs(other).max())
            assert np.abs(one - other).max() <= TOLERANCE * unit


def test_compiled_candidates_are_those_of_litert():
    """Scores, boxes and key points from LiteRT's outputs as MediaPipe defines them."""
    pixel_NSS3 = pictures(models.BLAZE_FACE_SIZE)
    reference = litert("blaze_face")
    score_NA, box_NA4, point_NAK2 = models.blaze_face_network()(pixel_NSS3)
    anchor_A2 = models.anchors()
    for index, pixel_SS3 in enumerate(pixel_NSS3):
        expected = reference(pixel_SS3.astype(np.float32) / np.float32(127.5) - 1)
        logit_A = expected[896].astype(np.float64)
        place_A82 = expected[896 * 16].reshape(896, 8, 2) / 128
        np.testing.assert_allclose(
            score_NA[index], 1 / (1 + np.exp(-logit_A.clip(-80, 80))), atol=1e-4
        )
        box_A4 = box_NA4[index]
        np.testing.assert_allclose(
            (box_A4[:, :2] + box_A4[:, 2:]) / 2, place_A82[:, 0] + anchor_A2, atol=1e-4
        )
        np.testing.assert_allclose(box_A4[:, 2:] - box_A4[:, :2], place_A82[:, 1], atol=1e-4)
        for point in range(6):
            np.testing.assert_allclose(
                point_NAK2[index][:, point], place_A82[:, 2 + point] + anchor_A2, atol=1e-4
            )


def test_compiled_points_are_those_of_litert():
    pixel_NSS3 = pictures(models.MESH_SIZE)
    reference = litert("face_mesh")
    score_N, mesh_NV3 = models.face_mesh_network()(pixel_NSS3)
    for index, pixel_SS3 in enumerate(pixel_NSS3):
        expected = reference(pixel_SS3.astype(np.float32) / 255)
        point_V3 = expected[1404].reshape(468, 3) - [0.5, 0.5, 0]
        np.testing.assert_allclose(mesh_NV3[index], point_V3, atol=1e-4 * models.MESH_SIZE)
        logit = float(expected[1][0])
        assert score_N[index] == pytest.approx(1 / (1 + np.exp(-logit)), abs=1e-4)


@pytest.mark.parametrize("count", [0, 1, 2, 5, 9])
def test_any_number_of_pictures(count):
    pixel_NSS3 = pictures(models.MESH_SIZE)[np.arange(count) % 6]
    network = models.face_mesh_network()
    score_N, mesh_NV3 = network(pixel_NSS3)
    assert score_N.shape == (count,)
    assert mesh_NV3.shape == (count, 468, 3)
    for index in range(count):
        _, (alone_V3,) = network(pixel_NSS3[index : index + 1])
        np.testing.assert_allclose(mesh_NV3[index], alone_V3, atol=0.01)


def test_networks_are_pure_functions_to_export():
    pixel_BSS3 = jax.ShapeDtypeStruct((3, 128, 128, 3), np.uint8)
    exported = jax.export.export(jax.jit(models.blaze_face))(
        models.variables("blaze_face"), pixel_BSS3
    )
    assert [output.shape for output in exported.out_avals] == [
        (3, 896),
        (3, 896, 4),
        (3, 896, 6, 2),
    ]


def test_anchors_are_the_two_grids():
    anchor = models.anchors()
    assert anchor.shape == (896, 2)
    np.testing.assert_allclose(anchor[:3], np.array([[0.5, 0.5], [0.5, 0.5], [1.5, 0.5]]) / 16)
    np.testing.assert_allclose(anchor[-6:], np.full((6, 2), 7.5 / 8))


def test_weights_are_the_files_of_the_provenance():
    described = json.loads((models.ASSETS / "PROVENANCE.json").read_text())["files"]
    assert set(described) == {f"{name}.safetensors" for name in FILES}
    for name, about in described.items():
        content = (models.ASSETS / name).read_bytes()
        assert hashlib.sha256(content).hexdigest() == about["sha256"]
        source = FILES[name.removesuffix(".safetensors")].read_bytes()
        assert hashlib.sha256(source).hexdigest() == about["in_wheel_sha256"]
