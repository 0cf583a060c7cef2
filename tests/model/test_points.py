"""Tokens of face points, alone and beside patches, in the network."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from model_settings import TINY, changed

from mtl_face.faces import geometry
from mtl_face.model.network import ATTENTION, MtlFace, network_inputs
from mtl_face.model.points import PointTokens
from mtl_face.model.regions import REGIONS

SMALL = changed(
    TINY,
    dropout=0.0,
    input_size=32,
    stage_sizes=(1,),
    width=4,
    embed_dim=8,
    num_heads=2,
    head_width=8,
)
POINTS = dataclasses.replace(SMALL, inputs=("points",))
BOTH = dataclasses.replace(SMALL, inputs=("image", "points"))


@pytest.fixture(scope="module")
def inputs():
    random = np.random.default_rng(0)
    points = random.normal(0, 0.05, (2, 3, 468, 3)).astype(np.float32)
    image = random.integers(0, 256, (3, 32, 32, 3)).astype(np.float32)
    return {"image": image, "points": points[0], "baseline": points[1]}


@pytest.fixture(scope="module")
def tokens(inputs, random_variables):
    module = PointTokens(POINTS)
    variables = random_variables(module, inputs["points"], inputs["baseline"])
    return lambda *arguments: np.asarray(module.apply(variables, *arguments)), variables


def test_regions_are_parts_of_the_mean_face():
    """The face is cut across its longest axis into two parts of 13 regions each, and so on."""
    mean_V3 = geometry.mean_face()

    def cut(part, count):
        if count == 1:
            return [sorted(part)]
        longest = np.ptp(mean_V3[part], axis=0).argmax()
        part = part[np.argsort(mean_V3[part, longest], kind="stable")]
        first = count // 2
        here = len(part) * first // count
        return cut(part[:here], first) + cut(part[here:], count - first)

    assert REGIONS.tolist() == cut(np.arange(468), 26)


@pytest.mark.parametrize("known", [True, False])
def test_a_token_is_its_region(tokens, inputs, known):
    """By hand, in NumPy: a linear map of points and change, a position, a known baseline."""
    apply, variables = tokens
    baseline = inputs["baseline"] * known
    found = apply(inputs["points"], baseline)
    assert found.shape == (3, len(REGIONS), 8)
    params = jax.device_get(variables["params"])
    change = (inputs["points"] - baseline) * known
    for place, region in enumerate(REGIONS):
        both = np.concatenate([inputs["points"][:, region], change[:, region]], axis=-1)
        expected = (both / POINTS.points.unit).reshape(3, -1) @ params["kernel"][place]
        expected += params["position"][place] + known * params["known"][place]
        np.testing.assert_allclose(found[:, place], expected, rtol=1e-4, atol=1e-5)


def test_a_token_sees_its_region_alone(tokens, inputs):
    apply, _ = tokens
    moved = inputs["points"].copy()
    moved[:, 61] += 1  # a corner of the mouth
    change = np.abs(apply(moved, inputs["baseline"]) - apply(inputs["points"], inputs["baseline"]))
    (seen,) = np.nonzero(change.max(axis=(0, 2)))
    np.testing.assert_array_equal(seen, np.nonzero((REGIONS == 61).any(axis=1))[0])


@pytest.mark.parametrize("settings", [POINTS, BOTH])
def test_parts_of_the_network(settings, inputs, random_variables):
    network = MtlFace(settings)
    given = {name: inputs[name] for name in network_inputs(settings)}
    variables = random_variables(network, given, train=False)
    parts = {"encoder", "decoder", "head_va", "head_au", "head_expr", "points"}
    patches = 0
    if settings is BOTH:
        parts |= {"backbone", "projection"}
        patches = 64
    assert variables["params"].keys() == parts
    assert ("batch_stats" in variables) == (settings is BOTH)

    @jax.jit
    def apply(given):
        return network.apply(variables, given, train=False, return_attention=True)

    outputs = apply(given)
    assert outputs[ATTENTION].shape[-1] == patches + len(REGIONS)
    for name, array in given.items():
        other = apply({**given, name: jnp.asarray(array)[::-1]})
        assert np.abs(other["va"] - outputs["va"]).max() > 1e-6, name
    flipped = apply({name: jnp.asarray(array)[::-1] for name, array in given.items()})
    np.testing.assert_allclose(flipped["au"][::-1], outputs["au"], atol=1e-5)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"baseline": None}, "no baseline among the inputs"),
        ({"points": np.zeros((3, 467, 3), np.float32)}, r"points has shape \(3, 467, 3\)"),
    ],
)
def test_other_inputs_are_refused(inputs, change, message):
    given = {name: value for name, value in (inputs | change).items() if value is not None}
    with pytest.raises(ValueError, match=message):
        jax.eval_shape(lambda: MtlFace(POINTS).init(jax.random.key(0), given, train=False))
