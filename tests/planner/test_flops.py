"""The closed form of the network's operations, against its program and against print."""

import dataclasses
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from model_settings import PAPER, changed

from mtl_face.config.schema import ConvNextConfig, VitConfig
from mtl_face.model.network import MtlFace, network_inputs
from mtl_face.planner import flops

SMALL = changed(
    PAPER,
    input_size=64,
    stage_sizes=(2, 1, 2),
    width=8,
    expansion=2,
    embed_dim=16,
    num_heads=4,
    mlp_ratio=3,
    head_layers=2,
    head_width=24,
    dropout=0.0,
)


def counted(jaxpr):
    """Operations of all convolutions and matrix products of a program before any compiler."""
    total = 0
    for equation in jaxpr.eqns:
        if equation.primitive.name == "dot_general":
            contracted = equation.params["dimension_numbers"][0][0]
            left = equation.invars[0].aval.shape
            total += 2 * equation.outvars[0].aval.size * int(np.prod([left[i] for i in contracted]))
        elif equation.primitive.name == "conv_general_dilated":
            total += products_of_convolution(equation)
        for value in equation.params.values():
            for inner in value if isinstance(value, (tuple, list)) else (value,):
                inner = getattr(inner, "jaxpr", inner)
                if hasattr(inner, "eqns"):
                    total += counted(inner)
    return total


def products_of_convolution(equation):
    """Twice the products of a convolution, dilated zeros left out, padded ones counted."""
    numbers = equation.params["dimension_numbers"]
    left, right = (variable.aval.shape for variable in equation.invars[:2])
    out = equation.outvars[0].aval.shape
    window = [right[i] for i in numbers.rhs_spec[2:]]
    positions = [out[i] for i in numbers.out_spec[2:]]
    for axis, (dilation, spread) in enumerate(
        zip(equation.params["lhs_dilation"], equation.params["rhs_dilation"], strict=True)
    ):
        if dilation > 1:  # every second place of the input is a zero that strides put there
            positions[axis] = left[numbers.lhs_spec[2 + axis]]
        assert spread >= 1
    features = right[numbers.rhs_spec[1]] * out[numbers.out_spec[1]]
    return 2 * out[numbers.out_spec[0]] * int(np.prod(window) * np.prod(positions)) * features


def traced(settings, *, train=False):
    network = MtlFace(settings)
    inputs = network_inputs(settings)
    variables = jax.eval_shape(lambda: network.init(jax.random.key(0), inputs, train=False))

    def outputs(params, inputs):
        result, _ = network.apply(
            {"params": params, "batch_stats": variables_stats},
            inputs,
            train=train,
            mutable=["batch_stats"],
        )
        return sum(jnp.sum(value) for value in result.values())

    variables_stats = jax.tree.map(
        lambda leaf: jnp.ones(leaf.shape, leaf.dtype), variables.get("batch_stats", {})
    )
    function = jax.grad(outputs) if train else outputs
    return counted(jax.make_jaxpr(function)(variables["params"], inputs).jaxpr)


@pytest.mark.parametrize(
    ("variant", "decoder_mlp", "input_size"),
    [
        *itertools.product(["caffe", "keras", "torchvision"], ["each"], [64, 112]),
        ("caffe", "last", 50),
    ],
)
def test_forward_pass_equals_the_program(variant, decoder_mlp, input_size):
    settings = changed(SMALL, variant=variant, decoder_mlp=decoder_mlp, input_size=input_size)
    assert flops.total(flops.by_part(settings)).forward == traced(settings)


MOBILE = changed(SMALL, kind="mobilenet", width=4)
VIT = changed(
    SMALL, kind="vit", vit=VitConfig(patch=16, width=24, depth=3, num_heads=2, mlp_width=40)
)
CONVNEXT = changed(
    SMALL, kind="convnext", convnext=ConvNextConfig(depths=(1, 2, 1), widths=(8, 12, 16))
)


@pytest.mark.parametrize(
    "settings",
    [
        changed(SMALL, inputs=("points",)),
        changed(SMALL, inputs=("image", "points")),
        MOBILE,
        changed(MOBILE, end="dw9", input_size=50),
        changed(MOBILE, end="conv1"),
        VIT,
        changed(VIT, vit=dataclasses.replace(VIT.backbone.vit, gated_mlp=True, registers=2)),
        CONVNEXT,
    ],
)
def test_other_inputs_and_backbones(settings):
    assert flops.total(flops.by_part(settings)).forward == traced(settings)


@pytest.mark.parametrize(
    "settings",
    [
        changed(SMALL, inputs=("points",)),
        changed(MOBILE, end="pw4"),
        changed(VIT, frozen_blocks=1),
        CONVNEXT,
    ],
)
def test_training_with_other_inputs_and_backbones(settings):
    program = traced(settings, train=True)
    assert flops.total(flops.by_part(settings)).training == pytest.approx(program, rel=0.04)


@pytest.mark.parametrize("frozen_stages", [-1, 2])
def test_training_equals_the_program(frozen_stages):
    settings = changed(SMALL, frozen_stages=frozen_stages)
    parts = flops.by_part(settings)
    program = traced(settings, train=True)
    # Kernels of 3 x 3 with stride 2 have gradients that XLA writes over padded maps.
    assert flops.total(parts).training == pytest.approx(program, rel=0.04)


def test_the_backbone_is_the_published_resnet50():
    """He et al. (2016), table 1: 3.8e9 multiply-adds, with the classifier's 2 million."""
    parts = flops.by_part(PAPER)
    backbone = sum(count.forward for name, count in parts.items() if name.startswith("st"))
    assert (backbone / 2 + 2048 * 1000) / 1e9 == pytest.approx(3.8, abs=0.1)
    assert flops.feature_side(224, variant="caffe", stages=4) == 7


def test_frozen_stages_cost_a_forward_pass():
    parts = flops.by_part(changed(SMALL, frozen_stages=1))
    assert parts["stem"].training == parts["stem"].forward
    assert parts["stage1"].training == parts["stage1"].forward
    assert 2 * parts["stage2"].forward < parts["stage2"].training < 3 * parts["stage2"].forward
    assert parts["stage3"].training == 3 * parts["stage3"].forward
