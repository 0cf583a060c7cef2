"""The whole way from a uint8 crop to named answers, as one program of arrays.

What surrounds a network in `inference.predictor` is part of it: resizing, the mesh network and the
alignment of its points, temperatures, calibration, ranges, decisions. Whoever runs the program
gives pixels and reads answers. It has no loop and no decomposition, any number of crops, and its
weights inside: `stablehlo` and `onnx_graph` write it as a file.

It differs from `Predictor.predict_crops` in rounding: network, probabilities and the alignment of
points are float32. Dropout is not sampled. What `predict_crops`
refuses, a crop whose points are not found, has NaN as its answers here.

Dimension letters: B crops, S side of a crop as given, T as stored, U as the network takes it; V
mesh points (468).
"""

import dataclasses
import json
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from numpy.typing import NDArray

from mtl_face.errors import ConfigError
from mtl_face.evaluation import calibration as calibrations
from mtl_face.evaluation.calibration import Calibration
from mtl_face.export import crop_points
from mtl_face.face_table import MESH_POINTS
from mtl_face.faces import crop_mesh, models
from mtl_face.inference.predictor import Predictor
from mtl_face.inputs import BASELINE, IMAGE, POINTS, specification
from mtl_face.model.network import MtlFace
from mtl_face.tables import TRAINING, PredictionTable, untrained
from mtl_face.tasks import AU, AU_NAMES, EXPR, EXPRESSION_NAMES, VA, VA_LOG_VARIANCE, VA_NAMES
from mtl_face.weights import card as cards
from mtl_face.weights.programs import interface

BATCH = "batch"
"""The first dimension of every input and output: any number of crops from 1."""

CROP = interface.CROP
"""Name of the input of pixels."""

BASELINE_INPUT = BASELINE
"""Name of the input of points at rest."""

KEY = interface.WHOLE_WAY
"""Key of the card under which stands what the program does besides the network."""

LARGEST_SHRINK = 16
"""How many times larger than the stored crops the crops may be."""

_BITS = 22  # of the fraction, in Pillow's weights
_LOW_BITS = 11  # of them, in the less significant half


class Array(NamedTuple):
    """An input or an output.

    Attributes:
        dtype: its name.
        shape: `BATCH` first.
        meaning: what it is, in words.
        names: of the places along the last axis, or of the numbers of a choice.
    """

    dtype: str
    shape: tuple[str | int, ...]
    meaning: str
    names: tuple[str, ...] = ()

    @property
    def shape_of_one(self) -> tuple[int, ...]:
        """Shape for one crop, without `BATCH`."""
        return tuple(int(side) for side in self.shape[1:])


@dataclasses.dataclass(frozen=True, eq=False)
class WholeWay:
    """A program from crops to answers.

    Attributes:
        function: from the arrays that `inputs` names to those that `outputs` names, of one number
            of crops; pure, to be traced by `jax.jit`, `jax.export` or `onnx_graph`.
        inputs, outputs: what they are, by name, in their order.
        card: the card, and under `KEY` what is done besides the network, as JSON values.
    """

    function: Callable[[Mapping[str, jax.Array]], dict[str, jax.Array]]
    inputs: dict[str, Array]
    outputs: dict[str, Array]
    card: dict[str, Any]


def whole_way(
    predictor: Predictor,
    card: Mapping[str, Any],
    *,
    crop_size: int | None = None,
    calibration: Calibration | None = None,
    convolution: str = "xla",
    points_given: bool = False,
) -> WholeWay:
    """Makes the program of a network.

    Args:
        predictor: the network.
        card: its card.
        crop_size: side S of the crops that will be given, in pixels; None for those of its
            training. Others are resized to these first, to the same bytes as by `predict_crops`.
        calibration: applied to the answers, without its smoothing, which needs a video.
        convolution: a key of `model.convolution.CONVOLUTIONS`: `xla` is plain convolutions, for
            another format; `matmul` the form that XLA compiles well for every platform.
        points_given: of a network of points: they are an input, made by `faces.geometry.normalise`
            of a mesh that was found in the whole picture, and not found in the crops.

    Raises:
        ConfigError: `crop_size` is out of range.
        CalibrationError: the calibration is of other predictions than this network's.
    """
    stored, config = predictor.crop_size, predictor.config
    size = stored if crop_size is None else crop_size
    if not 2 <= size <= LARGEST_SHRINK * stored:
        raise ConfigError(
            f"crops of {size} pixels cannot be taken (crop_size)",
            remedy=f"give a side of 2 to {LARGEST_SHRINK * stored} pixels; the network was "
            f"trained on {stored}",
        )
    empty = _calibrated(predictor, calibration)
    silent = untrained(predictor.origin.get(TRAINING))
    model = dataclasses.replace(
        config.model,
        compute_dtype="float32",
        backbone=dataclasses.replace(config.model.backbone, convolution=convolution),
    )
    network = MtlFace(model)
    variables = jax.tree.map(jnp.asarray, jax.device_get(dict(predictor.variables)))
    takes_points = POINTS in model.inputs
    finds_points = takes_points and not points_given
    takes_crops = finds_points or IMAGE in model.inputs
    if finds_points:
        weights = jax.tree.map(jnp.asarray, models.variables("face_mesh"))
        mesh = crop_mesh.mesh_network(weights, convolution)
    answer = _Answer(
        temperature_of_va=float(predictor.temperatures[VA]),
        has_variance=model.predicts_variance,
        has_std=empty.va_std is not None,
        divisors={task: float(value) for task, value in predictor.probability["divisors"].items()},
        calibration=calibration,
        au_thresholds=empty.au_thresholds,
        expression_biases=empty.expression_biases,
        silent=silent,
    )

    def function(inputs: Mapping[str, jax.Array]) -> dict[str, jax.Array]:
        if takes_crops:
            crop_BTT3 = inputs[CROP]
            if size != stored:
                crop_BTT3 = resized_as_pillow(crop_BTT3, stored)
        arrays, found_B1 = {}, None
        if takes_points:
            arrays[BASELINE] = inputs[BASELINE]
        if finds_points:
            arrays[POINTS], found_B = crop_points.points_of_crops(crop_BTT3, mesh)
            found_B1 = found_B[:, None]
        elif takes_points:
            arrays[POINTS] = inputs[POINTS]
        if IMAGE in model.inputs:
            arrays[IMAGE] = resized(crop_BTT3.astype(jnp.float32), model.input_size)
        outputs: Any = network.apply(variables, arrays, train=False)
        return answer(outputs, found_B1)

    inputs = {}
    if takes_crops:
        inputs[CROP] = Array(
            "uint8",
            (BATCH, size, size, 3),
            "crops of one face each, cut as `crop` of the card; RGB",
        )
    if takes_points and points_given:
        inputs[POINTS] = Array(
            "float32", (BATCH, MESH_POINTS, 3), "points of each face, as `points` of the card"
        )
    if takes_points:
        inputs[BASELINE] = Array(
            "float32",
            (BATCH, MESH_POINTS, 3),
            "points of the person's face at rest, as `points` of the card; 0: unknown",
        )
    outputs = _outputs(has_std=answer.has_std, finds_points=finds_points)
    added = {
        "inputs": {name: each._asdict() for name, each in inputs.items()},
        "outputs": {name: each._asdict() for name, each in outputs.items()},
        "crop_size": size,
        "resized_to": stored,
        "compute_dtype": model.compute_dtype,
        "untrained": list(silent),
        "calibration": None if calibration is None else calibration.to_dict(),
        "decisions": {
            "au_thresholds": dict(zip(AU_NAMES, empty.au_thresholds.tolist(), strict=True)),
            "expression_biases": dict(
                zip(EXPRESSION_NAMES, empty.expression_biases.tolist(), strict=True)
            ),
        },
        "smoothing": "none: each crop is answered by itself",
        "dropout_samples": 0,
    }
    added = json.loads(json.dumps(added))  # as it will be read: tuples are lists
    return WholeWay(function, inputs, outputs, cards.sealed({**card, KEY: added}))


@dataclasses.dataclass(frozen=True, eq=False)
class _Answer:
    """From a network's outputs to answers, as `table_columns` and `calibration.apply`."""

    temperature_of_va: float
    has_variance: bool
    has_std: bool
    divisors: Mapping[str, float]
    calibration: Calibration | None
    au_thresholds: NDArray[np.float64]
    expression_biases: NDArray[np.float64]
    silent: tuple[str, ...]

    def __call__(
        self, outputs: Mapping[str, jax.Array], found_B1: jax.Array | None
    ) -> dict[str, jax.Array]:
        def known(task: str, value_BC: jax.Array) -> jax.Array:
            """NaN for what means nothing."""
            if task in self.silent:
                return jnp.full_like(value_BC, jnp.nan)
            return value_BC if found_B1 is None else jnp.where(found_B1, value_BC, jnp.nan)

        au_BA = known(AU, outputs[AU] / self.divisors[AU])
        expression_BE = known(EXPR, outputs[EXPR] / self.divisors[EXPR])
        answers = {"valence_arousal": known(VA, jnp.clip(outputs[VA], -1, 1))}
        if self.has_std:
            answers["valence_arousal_std"] = known(VA, self._std(outputs))
        divided_BA, divided_BE = au_BA, expression_BE
        if self.calibration is not None:
            divided_BA = au_BA / self.calibration.temperatures[AU]
            divided_BE = expression_BE / self.calibration.temperatures[EXPR]
        biased_BE = divided_BE + jnp.asarray(self.expression_biases[None], jnp.float32)
        chosen_B = jnp.argmax(biased_BE, axis=1).astype(jnp.int32)
        if found_B1 is not None:
            chosen_B = jnp.where(found_B1.reshape(-1), chosen_B, -1)
        if EXPR in self.silent:
            chosen_B = jnp.full_like(chosen_B, -1)
        answers |= {
            "au_probability": jax.nn.sigmoid(divided_BA),
            "au_present": divided_BA > jnp.asarray(self.au_thresholds[None], jnp.float32),
            "expression_probability": jax.nn.softmax(divided_BE, axis=1),
            "expression": chosen_B,
            "au_logit": au_BA,
            "expression_logit": expression_BE,
        }
        if found_B1 is not None:
            answers["found"] = found_B1.reshape(-1)
        return answers

    def _std(self, outputs: Mapping[str, jax.Array]) -> jax.Array:
        scales = () if self.calibration is None else self.calibration.std_scales
        scale_12 = np.asarray([[scales[name] for name in VA_NAMES] if scales else [1.0, 1.0]])
        if self.has_variance:
            std_B2 = jnp.exp(outputs[VA_LOG_VARIANCE] / 2) * np.sqrt(self.temperature_of_va)
            return std_B2 * jnp.asarray(scale_12, jnp.float32)
        if self.calibration is None or self.calibration.std_is_predicted:
            scale_12 = scale_12 * np.sqrt(self.temperature_of_va)
        return jnp.broadcast_to(jnp.asarray(scale_12, jnp.float32), outputs[VA].shape)


def _calibrated(predictor: Predictor, calibration: Calibration | None) -> PredictionTable:
    """A table of no crops: which columns there are, thresholds and biases.

    Raises:
        CalibrationError: as `calibration.apply`, but for smoothing.
    """
    arrays = {
        name: np.zeros((0, *shape), dtype)
        for name, (dtype, shape) in specification(predictor.inputs, predictor.crop_size).items()
    }
    return _unsmoothed(predictor.predict_arrays(arrays), calibration)


def _unsmoothed(table: PredictionTable, calibration: Calibration | None) -> PredictionTable:
    """The calibration, without its smoothing, applied to a table without smoothing."""
    if calibration is None:
        return table
    return calibrations.apply(table, calibration.without_smoothing())


def answers_of_table(
    table: PredictionTable, calibration: Calibration | None = None
) -> dict[str, NDArray[Any]]:
    """What the program gives for the rows of a table of `predict_crops`, but for `found`.

    Raises:
        CalibrationError: as `whole_way`.
    """
    after = _unsmoothed(table, calibration)
    answers = {
        "valence_arousal": table.va.clip(-1, 1),
        "valence_arousal_std": after.va_std,
        "au_probability": after.au_probabilities,
        "au_present": after.au == 1,
        "expression_probability": after.expression_probabilities,
        "expression": after.expression,
        "au_logit": table.au_logits,
        "expression_logit": table.expression_logits,
    }
    return {name: each for name, each in answers.items() if each is not None}


def deciding(
    answers: Mapping[str, NDArray[Any]], calibration: Calibration | None
) -> tuple[NDArray[Any], NDArray[Any]]:
    """What decides: present where above 0, [N, 12], and the expression of the largest, [N, 8]."""
    au_NA, expression_NE = answers["au_logit"], answers["expression_logit"]
    if calibration is None:
        return au_NA, expression_NE
    threshold_A = [calibration.au_thresholds[name] for name in AU_NAMES]
    bias_E = [calibration.expression_biases[name] for name in EXPRESSION_NAMES]
    return (
        au_NA / calibration.temperatures[AU] - np.asarray(threshold_A)[None],
        expression_NE / calibration.temperatures[EXPR] + np.asarray(bias_E)[None],
    )


def _outputs(*, has_std: bool, finds_points: bool) -> dict[str, Array]:
    """What the program gives, in its order."""

    def numbers(names: tuple[str, ...], meaning: str) -> Array:
        meaning += "; NaN: no answer, of a task never trained or where no face is found"
        return Array("float32", (BATCH, len(names)), meaning, names)

    found = {
        "valence_arousal": numbers(VA_NAMES, "in [-1, 1]"),
        "valence_arousal_std": numbers(VA_NAMES, "standard deviations"),
        "au_probability": numbers(AU_NAMES, "probability that each action unit is present"),
        "au_present": Array(
            "bool", (BATCH, len(AU_NAMES)), "whether it is above its threshold", AU_NAMES
        ),
        "expression_probability": numbers(EXPRESSION_NAMES, "of each; their sum is 1"),
        "expression": Array(
            "int32", (BATCH,), "number of the expression, from 0; -1: no answer", EXPRESSION_NAMES
        ),
        "au_logit": numbers(AU_NAMES, "before a calibration"),
        "expression_logit": numbers(EXPRESSION_NAMES, "before a calibration"),
        "found": Array("bool", (BATCH,), "whether the points found can be those of a face"),
    }
    if not has_std:
        del found["valence_arousal_std"]
    if not finds_points:
        del found["found"]
    return found


def resized(image_BSS3: jax.Array, size: int) -> jax.Array:
    """Resized for the network as `objective.resample` resizes, float32 [B, U, U, 3]."""
    if image_BSS3.shape[1] == size:
        return image_BSS3
    weight_US = jnp.asarray(_linear_weights(image_BSS3.shape[1], size), jnp.float32)
    for letters in ("us,bsrc->burc", "us,brsc->bruc"):
        image_BSS3 = jnp.einsum(letters, weight_US, image_BSS3, precision=lax.Precision.HIGHEST)
    return image_BSS3


def resized_as_pillow(crop_BSS3: jax.Array, size: int) -> jax.Array:
    """Crops resized to the bytes of `Image.resize(BILINEAR)`, uint8 [B, T, T, 3].

    Pillow multiplies by weights of 22 bits, one axis after the other, and rounds after each. The
    two halves of the weights are multiplied apart here: every number is whole and below 2^24, so
    that float32 has it exactly, whatever the order of a sum.
    """
    whole_TS = _pillow_weights(crop_BSS3.shape[1], size)
    high_TS, low_TS = (
        jnp.asarray(half_TS, jnp.float32) for half_TS in np.divmod(whole_TS, 1 << _LOW_BITS)
    )
    value_BSS3 = crop_BSS3.astype(jnp.float32)
    for letters in ("ts,brsc->brtc", "ts,bsrc->btrc"):
        high, low = (
            jnp.einsum(letters, half_TS, value_BSS3, precision=lax.Precision.HIGHEST)
            for half_TS in (high_TS, low_TS)
        )
        unit = float(1 << _LOW_BITS)
        value_BSS3 = jnp.floor((high + jnp.floor(low / unit) + unit / 2) / unit)
    return value_BSS3.astype(jnp.uint8)


def _linear_weights(stored: int, size: int) -> NDArray[np.float64]:
    """Of each stored pixel in each one to make, [U, S]: pixel centres at halves, edges repeated."""
    place_U = np.clip((np.arange(size) + 0.5) * stored / size - 0.5, 0, stored - 1)
    return np.maximum(0, 1 - np.abs(place_U[:, None] - np.arange(stored)))


def _pillow_weights(given: int, size: int) -> NDArray[np.int64]:
    """Pillow's weights of a bilinear resize, [T, S], sums about 2^22: wider where it shrinks."""
    scale = given / size
    support = max(scale, 1.0)
    centre_T1 = ((np.arange(size) + 0.5) * scale)[:, None]
    pixel_S = np.arange(given)
    first_T1 = np.maximum((centre_T1 - support + 0.5).astype(int), 0)
    end_T1 = np.minimum((centre_T1 + support + 0.5).astype(int), given)
    weight_TS = np.maximum(0, 1 - np.abs((pixel_S - centre_T1 + 0.5) / support))
    weight_TS *= (pixel_S >= first_T1) & (pixel_S < end_T1)
    weight_TS /= weight_TS.sum(axis=1, keepdims=True)
    return np.floor(0.5 + weight_TS * (1 << _BITS)).astype(np.int64)
