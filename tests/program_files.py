"""Small networks and the ONNX files of their whole way from crops to answers."""

import json
from pathlib import Path

import jax
import numpy as np

from mtl_face import export
from mtl_face.config import BackboneConfig, Config, DataConfig, ModelConfig
from mtl_face.config.schema import EvaluationConfig
from mtl_face.evaluation.calibration import Calibration
from mtl_face.export.onnx_graph import to_onnx
from mtl_face.export.whole_way import whole_way
from mtl_face.faces import align, points
from mtl_face.inference.predictor import Forward
from mtl_face.run import models
from mtl_face.tasks import AU_NAMES, EXPRESSION_NAMES
from mtl_face.weights import card as cards
from mtl_face.weights import exported

SIDE = 32
"""Of the crops, in pixels."""

_SMALL = {"embed_dim": 16, "num_heads": 4, "encoder_layers": 1, "decoder_modules": 1}
_SMALL |= {"head_layers": 2, "head_width": 16}


def config_of(*inputs: str, side: int = SIDE, **changes: object) -> Config:
    """Settings of a small network on crops of a side; `changes` are of its model."""
    backbone = BackboneConfig(stage_sizes=(1,), width=8, expansion=2)
    colours = {"input_mean": (128.0,) * 3, "input_std": (64.0,) * 3}
    sizes = {"input_size": 32, **colours, **_SMALL, **changes}
    model = ModelConfig(inputs=inputs, backbone=backbone, **sizes)
    data = DataConfig(kind="s_aff_wild2", root="/x", image_size=side)
    return Config(name="small", data=data, model=model, evaluation=EvaluationConfig(batch_size=8))


def write_export(folder: Path, config: Config) -> Path:
    """An export of the safetensors form, of a network with drawn weights."""
    random = np.random.default_rng(0)

    def drawn(keys: object, leaf: jax.ShapeDtypeStruct) -> np.ndarray:
        array = random.normal(size=leaf.shape).astype(np.float32)
        array /= np.sqrt(max(1, np.prod(leaf.shape[:-1])))
        is_scale = jax.tree_util.keystr(keys[-1:]) in ("['scale']", "['var']")
        return 1 + np.abs(array) if is_scale else array

    variables = jax.tree_util.tree_map_with_path(drawn, Forward(config).abstract_variables())
    card = cards.make(
        config,
        temperatures={"va": 0.5, "au": 1.5, "expr": 2.0},
        crop=align.specification(config.data.image_size),
        step=12,
    )
    if "points" in config.model.inputs:
        card["points"] = json.loads(json.dumps({**points.specification(), "baseline": "none"}))
    export.save(folder, variables, card, form="safetensors")
    return folder


def write_onnx(path: Path, folder: Path, **options: object) -> Path:
    """The ONNX file of an export; `options` as of `whole_way`."""
    import onnx

    way = whole_way(models.load(folder), exported.read_card(folder), **options)
    inputs = {name: (each.dtype, each.shape[1:]) for name, each in way.inputs.items()}
    metadata = {cards.KEY: json.dumps(way.card)}
    onnx.save(to_onnx(way.function, inputs, list(way.outputs), metadata=metadata), path)
    return path


def calibration(*, std_is_predicted: bool = True) -> Calibration:
    """One that changes every answer."""
    return Calibration(
        smoothing=None,
        temperatures={"au": 0.7, "expr": 1.3},
        std_scales={"valence": 1.5, "arousal": 0.5},
        std_is_predicted=std_is_predicted,
        au_thresholds={name: 0.1 * number for number, name in enumerate(AU_NAMES)},
        expression_biases={name: 0.2 * number for number, name in enumerate(EXPRESSION_NAMES)},
        fitted_on={"probability": {"definition": "fitted", "divisors": None}, "smoothing": None},
    )


def with_card(path: Path, **changes: object) -> Path:
    """Replaces entries of the card in an ONNX file, whose hash is made again."""
    import onnx

    model = onnx.load(path)
    (entry,) = (entry for entry in model.metadata_props if entry.key == cards.KEY)
    entry.value = json.dumps(cards.sealed({**json.loads(entry.value), **changes}))
    onnx.save(model, path)
    return path
