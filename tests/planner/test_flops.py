"""The closed form of the network's operations, against its program and against print."""

import dataclasses
import itertools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import traverse_util
from model_settings import PAPER, changed

from mtl_face import config as config_lib
from mtl_face.config.schema import ConvNextConfig, VitConfig
from mtl_face.model.network import MtlFace, blank_inputs, network_inputs, network_of
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
        times = equation.params["length"] if equation.primitive.name == "scan" else 1
        for value in equation.params.values():
            for inner in value if isinstance(value, (tuple, list)) else (value,):
                inner = getattr(inner, "jaxpr", inner)
                if hasattr(inner, "eqns"):
                    total += times * counted(inner)
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


def traced(settings, *, train=False, learns=""):
    """Operations of the network's program; of its gradient by the arrays with a name like that."""
    if isinstance(settings, config_lib.Config):  # over time
        network, inputs = network_of(settings, platform="cpu"), blank_inputs(settings)
    else:
        network, inputs = MtlFace(settings), network_inputs(settings)
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
    if not train:
        return counted(jax.make_jaxpr(outputs)(variables["params"], inputs).jaxpr)
    flat = traverse_util.flatten_dict(variables["params"], sep="/")
    learned = {name: leaf for name, leaf in flat.items() if re.search(learns, name)}

    def of_learned(learned, others, inputs):
        return outputs(traverse_util.unflatten_dict(others | learned, sep="/"), inputs)

    others = {name: leaf for name, leaf in flat.items() if name not in learned}
    program = jax.make_jaxpr(jax.grad(of_learned))(learned, others, inputs)
    return counted(program.jaxpr), learned


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
    program, _ = traced(settings, train=True)
    assert flops.total(flops.by_part(settings)).training == pytest.approx(program, rel=0.04)


@pytest.mark.parametrize(
    ("settings", "learns"),
    [
        # What an adapter does not change needs the gradient of its input alone.
        (VIT, "backbone/.*/(query|value)/kernel|^(projection|encoder|decoder|head)"),
        (VIT, "block2/mlp/out/bias"),
        (VIT, "block3/attention_norm/scale"),
        (VIT, "head_"),
        (VIT, "decoder/module1_cross/attention/key/kernel"),
        (changed(VIT, frozen_blocks=1), "block[23]|^(projection|encoder|decoder|head)"),
        (CONVNEXT, "stage2_block2/out/kernel"),
        (CONVNEXT, "stage2_downsample_norm"),
        (changed(MOBILE, end="pw4"), "dw3/kernel|head_va"),
        (SMALL, "stage2_block1/conv2/kernel|encoder"),
        (SMALL, "stage3_block1/proj"),
        (changed(SMALL, inputs=("image", "points")), "points/position"),
    ],
)
def test_training_of_parts(settings, learns):
    program, learned = traced(settings, train=True, learns=learns)
    parts = flops.by_part(settings, learned)
    # Strides have gradients that XLA writes over padded maps.
    assert flops.total(parts).training == pytest.approx(program, rel=0.015)
    everything = flops.total(flops.by_part(settings)).training
    assert flops.total(parts).forward < flops.total(parts).training <= everything


def over_time(**settings):
    temporal = {"frame_model": "m", "window": 16, "width": 8, "layers": 2, "dropout": 0.0}
    model = {"embed_dim": 12, "num_heads": 2}
    augmentation = {"mixup_alpha": 0.0}
    return config_lib.validate(
        {"model": model, "temporal": temporal | settings, "augmentation": augmentation},
        reads_data=False,
    )


@pytest.mark.parametrize(
    "settings",
    [
        over_time(kind="gru", tokens="task+patches"),
        over_time(kind="gru", causal=True, layers=1),
        over_time(kind="convolution"),
        over_time(kind="convolution", causal=True, window=128),
        over_time(kind="attention"),
    ],
)
def test_networks_over_time(settings):
    found = flops.total(flops.over_time(settings))
    assert found.forward == traced(settings)
    program, learned = traced(settings, train=True)
    # Causal convolutions have gradients of their padding too.
    padded = settings.temporal.causal and settings.temporal.kind == "convolution"
    assert found.training == pytest.approx(program, rel=0.05 if padded else 1e-9)
    assert flops.total(flops.over_time(settings, learned)) == found


@pytest.mark.parametrize(
    ("kind", "learns"),
    [
        ("gru", "correction"),
        ("gru", "GRUCell_1/hr/kernel|^join"),
        ("gru", "GRUCell_2/ir/bias"),
        ("gru", "norm2/"),
        ("convolution", "convolution2_1/kernel|correction/kernel"),
        ("attention", "attention_norm2/scale"),
    ],
)
def test_training_of_parts_over_time(kind, learns):
    settings = over_time(kind=kind)
    program, learned = traced(settings, train=True, learns=learns)
    found = flops.total(flops.over_time(settings, learned))
    assert found.training == pytest.approx(program, rel=1e-9)


@pytest.mark.parametrize("frozen_stages", [-1, 2])
def test_training_equals_the_program(frozen_stages):
    settings = changed(SMALL, frozen_stages=frozen_stages)
    parts = flops.by_part(settings)
    program, _ = traced(settings, train=True)
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
