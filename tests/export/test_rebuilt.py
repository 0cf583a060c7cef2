"""A stranger rebuilds this program's predictions from `model.safetensors`, with PyTorch.

The lines of docs/export.md read the arrays and the card, and a network in PyTorch that shares no
code with this one gives the same predictions.
"""

import json
import types

import jax
import numpy as np
import pytest
import scipy.special
import torch
import torch_reference
from docs_lines import run_the_lines_of_the_docs
from drawn_weights import drawn
from torch.nn import functional

import mtl_face
from mtl_face import export
from mtl_face.config.check import validate
from mtl_face.model.network import MtlFace
from mtl_face.weights import card as cards

TEMPERATURES = {"va": 1.0, "au": 2.0, "expr": 5.0}

SETTINGS = {
    "data": {"root": "/x", "image_size": 16},
    "model": {
        "input_size": 33,
        "input_mean": (120.0, 110.0, 100.0),
        "input_std": (60.0, 50.0, 40.0),
        "backbone": {"stage_sizes": (1, 2), "width": 4, "expansion": 2},
        "embed_dim": 16,
        "num_heads": 2,
        "encoder_layers": 1,
        "decoder_modules": 2,
        "mlp_ratio": 2,
        "head_layers": 2,
        "head_width": 12,
    },
    "evaluation": {"batch_size": 8},
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """An export of a small network with drawn weights, whose probabilities are those of eq. 1."""
    config = validate(SETTINGS | {"evaluation": {"batch_size": 8, "probability": "paper"}})
    network = MtlFace(config.model)
    image = jax.ShapeDtypeStruct((1, 33, 33, 3), np.float32)
    shapes = jax.eval_shape(lambda x: network.init(jax.random.key(0), x, train=False), image)
    card = cards.make(config, temperatures=TEMPERATURES, crop={}, step=1)
    folder = tmp_path_factory.mktemp("stranger") / "export"
    export.save(folder, drawn(shapes), card, form="safetensors")
    return folder


def rebuilt(crops_NSSC):
    """Valence and arousal, and probabilities, as the card says, in the export's folder."""
    found = run_the_lines_of_the_docs()
    card = found["card"]
    settings = json.loads(
        json.dumps(card["config"]["model"]), object_hook=lambda x: types.SimpleNamespace(**x)
    )
    network = torch_reference.PaperNetwork(settings).eval()
    arrays = {tuple(name.split("/")[1:]): array for name, array in found["arrays"].items()}
    torch_reference.load(network, arrays)
    image_NCHW = torch.tensor(crops_NSSC, dtype=torch.float32).permute(0, 3, 1, 2)
    image_NCHW = functional.interpolate(
        image_NCHW, (card["input"]["size"],) * 2, mode="bilinear", align_corners=False
    )
    with torch.no_grad():
        outputs = network(image_NCHW.permute(0, 2, 3, 1))  # which subtracts the mean itself
    va, au, expr = (outputs[task].numpy() for task in ("va", "au", "expr"))
    divisors = card["probability"]["divisors"]
    assert card["tasks"]["au"]["reading"].startswith("probability: sigmoid(logit / divisor)")
    return (
        va,
        scipy.special.expit(au / divisors["au"]),
        scipy.special.softmax(expr / divisors["expr"], axis=1),
    )


def test_a_stranger_gets_the_predictions(folder, monkeypatch):
    crops_NSSC = np.random.default_rng(7).integers(0, 256, (8, 16, 16, 3)).astype(np.uint8)
    table = mtl_face.load(folder).predict_crops(crops_NSSC)
    monkeypatch.chdir(folder)
    va, au, expression = rebuilt(crops_NSSC)
    np.testing.assert_allclose(table.valence, va[:, 0], atol=1e-4)
    np.testing.assert_allclose(table.arousal, va[:, 1], atol=1e-4)
    np.testing.assert_allclose(scipy.special.expit(table.au_logits), au, atol=1e-4)
    found = scipy.special.softmax(table.expression_logits, axis=1)
    np.testing.assert_allclose(found, expression, atol=1e-4)
    assert va.std() > 0.05  # the crops matter
    assert au.std(axis=0).max() > 0.01
