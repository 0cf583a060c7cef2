"""Small networks as predictors, faces, and a mesh network that costs nothing."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
from PIL import Image

from benchmarks.heads import head
from mtl_face.config import BackboneConfig, Config, DataConfig, ModelConfig
from mtl_face.config.schema import UncertaintyConfig
from mtl_face.evaluation.calibration import Calibration
from mtl_face.export import arrays
from mtl_face.faces import align, crop_mesh, geometry
from mtl_face.inference.predictor import Forward, Predictor
from mtl_face.run import export as run_export
from mtl_face.tasks import AU_NAMES, EXPRESSION_NAMES

SIDE = 16

MODEL = ModelConfig(
    input_size=32,
    input_mean=(120.0, 110.0, 100.0),
    input_std=(64.0, 60.0, 62.0),
    backbone=BackboneConfig(stage_sizes=(1,), width=8, expansion=2),
    embed_dim=16,
    num_heads=2,
    encoder_layers=1,
    decoder_modules=1,
    head_layers=1,
)


def predictor(*, kind="fixed", training=None, seed=0, **model):
    """A network whose weights are drawn; `model` changes its settings."""
    config = Config(
        name="small",
        data=DataConfig(kind="s_aff_wild2", root="/x", image_size=SIDE),
        model=dataclasses.replace(MODEL, **model),
        uncertainty=UncertaintyConfig(kind=kind),
    )
    forward = Forward(config)
    random = np.random.default_rng(seed)

    def draw(path, leaf):
        low, high = (0.5, 1.5) if "var" in str(path[-1]) else (-0.4, 0.4)
        return random.uniform(low, high, leaf.shape).astype(np.float32)

    variables = jax.tree_util.tree_map_with_path(draw, forward.abstract_variables())
    origin = {} if training is None else {"training": training}
    temperatures = {"va": 0.3, "au": 0.7, "expr": 5.0}
    return Predictor(forward, variables, temperatures, 3, {"provenance": None, **origin})


def card_of(model):
    return arrays.completed(run_export.card_of(model), jax.device_get(model.variables))


def calibration(**changes):
    values = {
        "smoothing": None,
        "temperatures": {"au": 2.0, "expr": 0.5},
        "std_scales": {"valence": 0.25, "arousal": 1.5},
        "std_is_predicted": False,
        "au_thresholds": {name: 0.1 * i - 0.5 for i, name in enumerate(AU_NAMES)},
        "expression_biases": {name: -0.2 * i for i, name in enumerate(EXPRESSION_NAMES)},
        "fitted_on": {"smoothing": None},
    }
    return Calibration(**{**values, **changes})


def run(whole, given):
    """The program's answers, on the host."""
    return jax.device_get(jax.jit(whole.function)(given))


@functools.cache
def faces(count, size):
    """Crops of rendered faces of a size, uint8 [count, size, size, 3]."""
    crops = []
    for seed in range(count):
        random = np.random.default_rng(seed)
        yaw, pitch = random.uniform(-10, 10, 2)
        picture, landmarks = head(seed, size=300, eyes_px=50, yaw=yaw, pitch=pitch)
        template = (align.TEMPLATE_L2 + 0.5) * size / 112 - 0.5
        matrix = align.similarity(landmarks, template)
        crops.append(np.asarray(align.warp(Image.fromarray(picture), matrix, size)))
    return np.stack(crops)


def fake_mesh(monkeypatch, *, wild=False):
    """Puts a function of the cut's mean colours in the place of the mesh network, everywhere.

    The mean face is moved a little by the colours; with `wild`, black cuts have no face.
    """
    random = np.random.default_rng(8)
    change = random.normal(0, 0.05, (3, 468, 3)).astype(np.float32)
    face = (geometry.mean_face() * 40 + [96, 100, 0]).astype(np.float32)
    noise = random.normal(0, 60, (468, 3)).astype(np.float32)

    def found(cut):
        colour = cut.mean(axis=(1, 2)) / 255
        points = face[None] + 40 * jnp.einsum("bc,cvi->bvi", colour, change)
        if wild:
            black = (colour.mean(axis=1) < 0.02)[:, None, None]
            points = points + jnp.where(black, noise[None], 0)
        return points

    monkeypatch.setattr(crop_mesh, "mesh_network", lambda *_: found)
    monkeypatch.setattr(crop_mesh, "_network", functools.cache(crop_mesh._network.__wrapped__))
