"""Small exports and cards for the tests."""

import json

import jax
import numpy as np
import pytest

from mtl_face import export
from mtl_face.config import BackboneConfig, Config, DataConfig, ModelConfig
from mtl_face.weights import card as cards
from mtl_face.weights import provenance

MODEL = ModelConfig(
    input_size=32,
    input_mean=(1.0, 2.5, 3.0),
    input_std=(64.0, 64.0, 64.0),
    backbone=BackboneConfig(stage_sizes=(1, 1)),
)

CONFIG = Config(
    name="small", data=DataConfig(kind="s_aff_wild2", root="/x", image_size=16), model=MODEL
)


@pytest.fixture(params=export.FORMATS)
def form(request):
    return request.param


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "export"


@pytest.fixture
def exported_folder(folder, form):
    """A small export of each form."""
    export.save(folder, make_variables(), make_card(), form=form)
    return folder


def make_variables(seed=0):
    random = np.random.default_rng(seed)
    return {
        "params": {
            "backbone": {"kernel": random.normal(size=(3, 3, 3, 8)).astype(np.float32)},
            "head_va": {
                "kernel": random.normal(size=(8, 2)).astype(np.float32),
                "bias": np.zeros(2, np.float32),
            },
        },
        "batch_stats": {"backbone": {"mean": random.normal(size=8).astype(np.float32)}},
    }


def make_card():
    return cards.make(
        CONFIG,
        temperatures={"va": 1.0, "au": 1.0, "expr": 5.0},
        crop={"size": 16},
        step=12,
        provenance=provenance.record(training_data=["s-Aff-Wild2"]),
    )


def card_text(**changes):
    """A whole card as it lies on the disk, its hash right.

    `changes` replace its entries, "GONE" takes one away.
    """
    card = make_card() | {"tensors": {}, "weights_sha256": "0" * 64} | changes
    card = {name: value for name, value in card.items() if value != "GONE"}
    return json.dumps(cards.sealed(card))


def schema_1_card(weights_sha256):
    """A card as version 0.1.0 wrote it, key by key."""
    return {
        "schema": 1,
        "tasks": {
            "va": {"outputs": ["valence", "arousal"], "range": [-1.0, 1.0], "kind": "values"},
            "au": {
                "outputs": (
                    [
                        "au1",
                        "au2",
                        "au4",
                        "au6",
                        "au7",
                        "au10",
                        "au12",
                        "au15",
                        "au23",
                        "au24",
                        "au25",
                        "au26",
                    ]
                ),
                "kind": "logits, independent",
            },
            "expr": {
                "outputs": (
                    [
                        "Neutral",
                        "Anger",
                        "Disgust",
                        "Fear",
                        "Happiness",
                        "Sadness",
                        "Surprise",
                        "Other",
                    ]
                ),
                "kind": "logits, exclusive",
            },
        },
        "temperatures": {"va": 1.0, "au": 1.0, "expr": 5.0},
        "input": {
            "stored_size": 112,
            "size": 224,
            "channels": "RGB",
            "range": [0, 255],
            "mean": [131.0912, 103.8827, 91.4953],
            "std": [1.0, 1.0, 1.0],
        },
        "step": 20,
        "metrics": None,
        "config": {
            "name": "paper",
            "data": {"kind": "s_aff_wild2", "image_size": 112},
            "model": {
                "input_size": 224,
                "input_mean": [131.0912, 103.8827, 91.4953],
                "input_std": [1.0, 1.0, 1.0],
                "backbone": {
                    "stage_sizes": [3, 4, 6, 3],
                    "width": 64,
                    "expansion": 4,
                    "variant": "caffe",
                    "batch_norm_momentum": 0.9,
                    "convolution": "auto",
                },
                "embed_dim": 768,
                "num_heads": 12,
                "encoder_layers": 2,
                "decoder_modules": 2,
                "mlp_ratio": 4,
                "decoder_mlp": "each",
                "head_layers": 4,
                "head_width": 768,
                "dropout": 0.1,
                "norm": "post",
                "position": "2d",
                "token_init_std": 0.02,
                "compute_dtype": "float32",
            },
            "uncertainty": {
                "kind": "fixed",
                "temperatures": {"va": 1.0, "au": 1.0, "expr": 5.0},
            },
        },
        "versions": {"mtl_face": "0.1.0", "jax": "0.10.2"},
        "weights_sha256": weights_sha256,
    }


def assert_same(found, expected):
    assert jax.tree.structure(found) == jax.tree.structure(expected)
    for leaf, other in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        assert isinstance(leaf, np.ndarray)
        assert leaf.dtype == other.dtype
        assert leaf.shape == other.shape
        assert leaf.tobytes() == other.tobytes()
