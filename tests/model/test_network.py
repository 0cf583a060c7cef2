"""Sizes, dtypes and modes of the whole network."""

import dataclasses
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from model_settings import PAPER, TINY, changed

from mtl_face.config import BackboneConfig, ModelConfig
from mtl_face.config.schema import ConvNextConfig, PointsConfig, VitConfig
from mtl_face.inputs import IMAGE, POINTS
from mtl_face.model.heads import TaskHead
from mtl_face.model.network import MtlFace, network_inputs
from mtl_face.tasks import OUTPUT_SIZES

MICRO = changed(
    TINY,
    dropout=0.1,
    input_size=32,
    stage_sizes=(1, 1),
    width=4,
    embed_dim=8,
    num_heads=2,
    mlp_ratio=2,
    head_width=8,
)


def count(tree) -> int:
    return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(tree))


def apply(network: MtlFace, *arguments: Any, **options: Any) -> Any:
    return network.apply(*arguments, **options)


def blank(network: MtlFace) -> jax.Array:
    return jnp.zeros((2, network.settings.input_size, network.settings.input_size, 3))


@pytest.fixture(scope="module")
def micro():
    return MtlFace(MICRO)


@pytest.fixture(scope="module")
def micro_variables(micro, random_variables):
    return random_variables(micro, blank(micro), train=False)


@pytest.fixture(scope="module")
def image():
    rng = np.random.default_rng(1)
    return jnp.asarray(rng.integers(0, 256, (2, 32, 32, 3)), jnp.float32)


def jitted(network: MtlFace) -> Any:
    """Forward pass with dropout and the batch's statistics: outputs, updated statistics."""
    return jax.jit(
        lambda variables, image, key: apply(
            network,
            variables,
            image,
            train=True,
            rngs={"dropout": key},
            mutable=["batch_stats"],
            return_attention=True,
        )
    )


@pytest.fixture(scope="module")
def train_forward(micro):
    return jitted(micro)


@pytest.fixture(scope="module")
def forward(micro):
    return jax.jit(lambda v, x: apply(micro, v, x, train=False))


def test_paper_preset_has_the_size_of_its_layers(abstract_variables):
    network = MtlFace(PAPER)
    variables = abstract_variables(network, blank(network), train=False)
    parts = {name: count(part) for name, part in variables["params"].items()}
    width, hidden = 768, 3072
    norm = 2 * width
    attention = 4 * (width * width + width) + norm
    perceptron = width * hidden + hidden + hidden * width + width + norm
    assert parts["backbone"] == 23_508_032
    assert parts["projection"] == 2048 * width + width
    assert parts["encoder"] == 2 * (attention + perceptron)
    assert parts["decoder"] == 3 * width + 2 * (2 * attention + 2 * perceptron)
    assert parts["head_au"] == 3 * (width * width + width) + width * 12 + 12
    assert count(variables["params"]) == 72_943_446
    assert count(variables["batch_stats"]) == 2 * 26_560

    outputs = jax.eval_shape(
        lambda v, x: apply(network, v, x, train=False, return_attention=True),
        variables,
        blank(network),
    )
    assert {task: outputs[task].shape for task in OUTPUT_SIZES} == {
        task: (2, size) for task, size in OUTPUT_SIZES.items()
    }
    assert outputs["attention"].shape == (2, 2, 12, 3, 49)


def test_one_perceptron_a_decoder_module(abstract_variables):
    network = MtlFace(changed(PAPER, decoder_mlp="last"))
    variables = abstract_variables(network, blank(network), train=False)
    assert count(variables["params"]) == 63_495_510


def test_tiny_preset_is_tiny(abstract_variables):
    network = MtlFace(TINY)
    variables = abstract_variables(network, blank(network), train=False)
    assert count(variables["params"]) == 855_982
    outputs = jax.eval_shape(
        lambda v, x: apply(network, v, x, train=False, return_attention=True),
        variables,
        blank(network),
    )
    assert outputs["attention"].shape == (2, 1, 8, 3, 16)
    forward = jax.jit(lambda v, x: apply(network, v, x, train=False))
    cost: Any = forward.lower(variables, blank(network)).cost_analysis()
    # Two images, two operations a multiply-accumulate.
    assert cost["flops"] / 2 / 2 < 60e6


def test_every_parameter_is_float32_and_reaches_an_output(micro, micro_variables, image):
    # Without the key bias: a constant added to a row of scores, which the softmax takes away.
    def loss(params):
        outputs, _ = apply(
            micro,
            micro_variables | {"params": params},
            image,
            train=True,
            rngs={"dropout": jax.random.key(0)},
            mutable=["batch_stats"],
        )
        return sum(jnp.sum(value**3) for value in outputs.values())

    gradient = jax.jit(jax.grad(loss))(micro_variables["params"])
    for path, leaf in jax.tree_util.tree_leaves_with_path(gradient):
        name = jax.tree_util.keystr(path)
        assert leaf.dtype == jnp.float32
        assert np.isfinite(leaf).all(), name
        if "['key']['bias']" not in name:
            assert np.abs(leaf).max() > 0, name


def test_evaluation_is_deterministic_and_training_is_not(
    forward, train_forward, micro_variables, image
):
    first = forward(micro_variables, image)
    second = forward(micro_variables, image)
    for task in OUTPUT_SIZES:
        np.testing.assert_array_equal(first[task], second[task])

    one, _ = train_forward(micro_variables, image, jax.random.key(1))
    same, _ = train_forward(micro_variables, image, jax.random.key(1))
    other, updated = train_forward(micro_variables, image, jax.random.key(2))
    np.testing.assert_array_equal(one["au"], same["au"])
    assert np.abs(one["au"] - other["au"]).max() > 1e-4
    before = micro_variables["batch_stats"]["backbone"]["bn1"]["mean"]
    after = updated["batch_stats"]["backbone"]["bn1"]["mean"]
    assert np.abs(after - before).max() > 1e-4


def test_the_network_normalises_its_input(forward, micro_variables, image):
    mean, std = (10.0, 20.0, 30.0), (2.0, 4.0, 8.0)
    scaled = MtlFace(changed(MICRO, input_mean=mean, input_std=std))
    # What the micro network's own mean and deviation turn into (image - mean) / std.
    same_BHWC = (image - np.reshape(mean, (1, 1, 1, 3))) / np.reshape(std, (1, 1, 1, 3))
    same_BHWC = same_BHWC * MICRO.input_std[0] + MICRO.input_mean[0]
    np.testing.assert_allclose(
        jax.jit(lambda v, x: apply(scaled, v, x, train=False))(micro_variables, image)["au"],
        forward(micro_variables, jnp.asarray(same_BHWC))["au"],
        rtol=1e-4,
        atol=1e-4,
    )


def test_each_head_reads_the_token_of_its_task(micro, micro_variables, image):
    def forward(variables, image):
        return apply(
            micro,
            variables,
            image,
            train=False,
            capture_intermediates=lambda module, _: module.name == "decoder",
            mutable=["intermediates"],
        )

    outputs, captured = jax.jit(forward)(micro_variables, image)
    ((token_BTD, _),) = captured["intermediates"]["decoder"]["__call__"]
    for task, token in zip(("va", "au", "expr"), (0, 1, 2), strict=True):
        head = TaskHead(MICRO.head_layers, MICRO.head_width, OUTPUT_SIZES[task])
        params = {"params": micro_variables["params"][f"head_{task}"]}
        expected: Any = head.apply(params, token_BTD[:, token])
        np.testing.assert_allclose(outputs[task], expected, rtol=1e-5, atol=1e-5)


def test_attention_is_returned_when_asked(forward, train_forward, micro_variables, image):
    assert set(forward(micro_variables, image)) == set(OUTPUT_SIZES)
    outputs, _ = train_forward(micro_variables, image, jax.random.key(0))
    assert set(outputs) == {*OUTPUT_SIZES, "attention"}
    assert outputs["attention"].shape == (2, 1, 2, 3, 16)
    np.testing.assert_allclose(outputs["attention"].sum(-1), 1, atol=1e-6)


def test_bfloat16_computes_near_float32_and_returns_float32(train_forward, micro_variables, image):
    half = jitted(MtlFace(changed(MICRO, compute_dtype="bfloat16")))
    outputs, updated = half(micro_variables, image, jax.random.key(0))
    exact, _ = train_forward(micro_variables, image, jax.random.key(0))
    for leaf in jax.tree.leaves((outputs, updated)):
        assert leaf.dtype == jnp.float32
    for task in OUTPUT_SIZES:
        assert 0 < np.abs(outputs[task] - exact[task]).max() < 0.1


@pytest.mark.parametrize("shape", [(2, 16, 16, 3), (2, 32, 32, 1), (32, 32, 3)])
def test_a_wrong_image_is_named(micro, micro_variables, shape):
    with pytest.raises(ValueError, match=r"expected \(batch, \*\(32, 32, 3\)\)"):
        apply(micro, micro_variables, jnp.zeros(shape), train=False)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("variant", "resnext"),
        ("convolution", "fast"),
        ("norm", "middle"),
        ("batch_norm", "global"),
        ("va_variance", "each"),
        ("position", "3d"),
        ("decoder_mlp", "none"),
        ("num_heads", 3),
    ],
)
def test_an_unknown_setting_is_named(abstract_variables, field, value):
    network = MtlFace(changed(MICRO, **{field: value}))
    with pytest.raises(ValueError, match=str(value)):
        abstract_variables(network, blank(network), train=False)


def program(settings) -> str:
    """Text and constants of the initialisation and of a step's gradient, before any compiler."""
    network: Any = MtlFace(settings, devices=2)
    key = jax.random.key(0)
    inputs = {name: jnp.repeat(value, 2, 0) for name, value in network_inputs(settings).items()}

    def init(key):
        return network.init(key, inputs, train=False)

    def total(params, statistics, key):
        outputs, updated = network.apply(
            {"params": params, "batch_stats": statistics},
            inputs,
            train=True,
            rngs={"dropout": key},
            mutable=["batch_stats"],
        )
        return sum(jnp.sum(value) for value in outputs.values()), updated

    initial, variables = jax.make_jaxpr(init, return_shape=True)(key)
    step = jax.make_jaxpr(jax.grad(total, has_aux=True))(
        variables["params"], variables.get("batch_stats", {}), key
    )
    constants = [np.asarray(value).tobytes() for value in (*initial.consts, *step.consts)]
    return f"{initial}\n{step}\n{constants}"


@pytest.mark.slow
def test_every_setting_changes_the_program():
    base = changed(MICRO, stage_sizes=(1,), decoder_mlp="each", head_layers=1)
    changes = {
        "input_size": 24,
        "input_mean": (1.0, 2.0, 3.0),
        "input_std": (4.0, 5.0, 6.0),
        "embed_dim": 16,
        "num_heads": 4,
        "encoder_layers": 2,
        "decoder_modules": 2,
        "mlp_ratio": 3,
        "decoder_mlp": "last",
        "head_layers": 2,
        "va_variance": "per_example",
        "dropout": 0.5,
        "norm": "post",
        "position": "1d",
        "token_init_std": 0.5,
        "compute_dtype": "bfloat16",
        "remat": "blocks",
        "stage_sizes": (2,),
        "width": 6,
        "expansion": 3,
        "variant": "keras",
        "batch_norm_momentum": 0.5,
        "convolution": "matmul",
        "batch_norm": "frozen",
        "frozen_stages": 0,
        "frozen_blocks": 1,
        "drop_path": 0.5,
    }
    programs = {program(base)}
    for name, value in changes.items():
        programs.add(program(changed(base, **{name: value})))
    deep = changed(base, head_layers=2)
    programs.add(program(changed(deep, head_width=12)))
    mobile = changed(base, kind="mobilenet", end="pw1")
    programs |= {program(mobile), program(changed(mobile, end="dw2"))}
    points = changed(base, inputs=(POINTS,))
    programs |= {program(points), program(changed(points, points=PointsConfig(unit=0.5)))}
    programs.add(program(changed(base, inputs=(IMAGE, POINTS))))
    vit = VitConfig(patch=8, width=8, depth=1, num_heads=2, mlp_width=16)
    convnext = ConvNextConfig(depths=(1,), widths=(4,))
    for kind, section, change in (
        ("vit", vit, {"registers": 1}),
        ("convnext", convnext, {"layer_scale": False}),
    ):
        for each in (section, dataclasses.replace(section, **change)):
            programs.add(program(changed(base, kind=kind, **{kind: each})))
    programs.add(program(dataclasses.replace(base, drop_path=0.5)))
    programs.add(program(changed(base, va_variance="from_features")))
    assert len(programs) == 2 + len(changes) + 5 + 6
    known = {field.name for field in dataclasses.fields(ModelConfig)}
    known |= {field.name for field in dataclasses.fields(BackboneConfig)}
    # What the first state holds, not what the network is.
    initial = {"init_from", "init_channels", "init_prefix"}
    assert known - {"backbone"} - initial == {
        *changes,
        "head_width",
        "kind",
        "vit",
        "convnext",
        "end",
        "inputs",
        "points",
    }
