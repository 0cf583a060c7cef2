"""Rematerialisation and bfloat16: the same step, within what each costs in rounding."""

import functools

import flax.linen as nn
import jax
import jax.extend
import jax.numpy as jnp
import numpy as np
import pytest
from model_settings import PAPER, changed

from mtl_face.model import remat
from mtl_face.model.network import MtlFace
from mtl_face.objective import losses
from mtl_face.tasks import OUTPUT_SIZES
from mtl_face.training import wide_gradients

SIZE, BATCH = 32, 8
TEMPERATURES = {"va": 1.0, "au": 1.0, "expr": 5.0}


def network(policy, dtype=jnp.float32, convolution="xla"):
    return MtlFace(
        changed(
            PAPER,
            input_size=SIZE,
            input_mean=(128.0,) * 3,
            input_std=(64.0,) * 3,
            stage_sizes=(1,),
            width=8,
            expansion=2,
            embed_dim=16,
            encoder_layers=1,
            decoder_modules=1,
            num_heads=4,
            head_layers=2,
            head_width=16,
            dropout=0.3,
            remat=policy,
            compute_dtype=jnp.dtype(dtype).name,
            convolution=convolution,
        )
    )


@functools.cache
def variables():
    """Filled by NumPy: compiling the network's own initialisation takes the longest of all."""
    like = jax.eval_shape(
        lambda: network("none").init(jax.random.key(0), jnp.zeros((1, SIZE, SIZE, 3)), train=False)
    )
    random = np.random.default_rng(0)

    def fill(path, leaf):
        name = path[-1].key
        if name in ("var", "scale"):
            return np.ones(leaf.shape, np.float32)
        spread = 0.0 if name in ("mean", "bias") else leaf.size**-0.25
        return (spread * random.standard_normal(leaf.shape)).astype(np.float32)

    return jax.tree_util.tree_map_with_path(fill, like)


def applied(built, params, image):
    """(outputs, what has changed) of a training step."""
    return built.apply(
        {"params": params, "batch_stats": variables()["batch_stats"]},
        image,
        train=True,
        mutable=["batch_stats"],
        rngs={"dropout": jax.random.key(5)},
    )


def loss_and_gradient(policy, dtype=jnp.float32):
    random = np.random.default_rng(1)
    image = random.uniform(0, 255, (BATCH, SIZE, SIZE, 3)).astype(np.float32)
    targets = {
        "va": random.uniform(-1, 1, (BATCH, 2)).astype(np.float32),
        "au": random.integers(0, 2, (BATCH, 12)).astype(np.float32),
        "expr": np.eye(8, dtype=np.float32)[random.integers(0, 8, BATCH)],
    }
    weights = {
        "va": np.ones(BATCH, np.float32),
        "au": np.ones((BATCH, OUTPUT_SIZES["au"]), np.float32),
        "expr": np.ones(BATCH, np.float32),
    }
    built = network(policy, dtype)

    def loss(params):
        outputs, updated = applied(built, params, image)
        total = losses.multi_task_loss(outputs, targets, weights, temperatures=TEMPERATURES).total
        return total, updated["batch_stats"]

    return jax.value_and_grad(loss, has_aux=True), variables()["params"]


@functools.cache
def computed(policy, dtype=jnp.float32):
    function, params = loss_and_gradient(policy, dtype)
    return jax.device_get(jax.jit(function)(params))


def relative(found, expected):
    """Norm of the difference over the norm, of whole pytrees."""
    pairs = list(zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True))
    difference = sum(float(np.sum((a - b) ** 2)) for a, b in pairs)
    return (difference / sum(float(np.sum(b**2)) for _, b in pairs)) ** 0.5


@pytest.mark.parametrize("policy", ["blocks", pytest.param("elementwise", marks=pytest.mark.slow)])
def test_the_same_step(policy):
    """Loss, gradients and running statistics, with dropout: its draws must be the same ones."""
    (loss, statistics), gradient = computed(policy)
    (expected_loss, expected_statistics), expected = computed("none")
    assert loss == pytest.approx(expected_loss, rel=1e-6)
    assert jax.tree.structure(gradient) == jax.tree.structure(expected)
    assert relative(gradient, expected) < 1e-5
    assert relative(statistics, expected_statistics) < 1e-6


def test_parameters_keep_their_names():
    for policy in remat.POLICIES:
        like = jax.eval_shape(
            lambda policy=policy: network(policy).init(
                jax.random.key(0), jnp.zeros((1, SIZE, SIZE, 3)), train=False
            )
        )
        assert jax.tree.structure(like) == jax.tree.structure(variables())


def kept(policy):
    """Shapes of what is kept between the passes, but for parameters."""
    _, params = loss_and_gradient(policy)
    built = network(policy)

    def outputs(params, image):
        found, _ = applied(built, params, image)
        return sum(jnp.sum(value) for value in found.values())

    image = jnp.zeros((BATCH, SIZE, SIZE, 3))
    pull = jax.eval_shape(
        lambda params: jax.vjp(functools.partial(outputs, image=image), params)[1], params
    )
    return sum(leaf.size for leaf in jax.tree.leaves(pull) if leaf.ndim and leaf.shape[0] == BATCH)


def test_less_is_kept():
    sizes = [kept(policy) for policy in ("none", "elementwise", "blocks")]
    assert sizes[1] < 0.8 * sizes[0]
    assert sizes[2] < 0.8 * sizes[1]


def products(jaxpr):
    """Convolutions and matrix products of a program, those of its inner programs included."""
    number = 0
    for equation in jaxpr.eqns:
        number += equation.primitive.name in ("conv_general_dilated", "dot_general")
        number += sum(
            products(inner) for inner in jax.extend.core.jaxprs_in_params(equation.params)
        )
    return number


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
@pytest.mark.parametrize("convolution", ["xla", "matmul"])
def test_elementwise_computes_no_product_twice(dtype, convolution):
    """Nor where gradients are put out in float32, by rules of their own."""

    def count(policy):
        built = network(policy, dtype, convolution)
        image = jnp.zeros((BATCH, SIZE, SIZE, 3))

        def total(params):
            with nn.intercept_methods(wide_gradients.intercept):
                outputs, _ = applied(built, params, image)
            return sum(jnp.sum(jnp.square(value)) for value in outputs.values())

        return products(jax.make_jaxpr(jax.grad(total))(variables()["params"]).jaxpr)

    assert count("elementwise") == count("none")
    assert count("blocks") > count("none")


def test_unknown_policy():
    with pytest.raises(ValueError, match="remat 'all' is not one of none, elementwise, blocks"):
        jax.eval_shape(lambda: network("all").init(jax.random.key(0), jnp.zeros((1, SIZE, SIZE, 3)),
                                                   train=False))  # fmt: skip


@pytest.mark.slow
def test_bfloat16_step():
    """Rounding of 2 ** -9 in each product: gradients within 5 %, all that is kept in float32."""
    (loss, statistics), gradient = computed("none", jnp.bfloat16)
    (expected_loss, expected_statistics), expected = computed("none")
    assert {leaf.dtype for leaf in jax.tree.leaves((loss, statistics, gradient))} == {
        np.dtype(np.float32)
    }
    assert loss == pytest.approx(expected_loss, rel=1e-2)
    assert relative(gradient, expected) < 0.05
    assert relative(gradient, expected) > 1e-4  # it was bfloat16
    assert relative(statistics, expected_statistics) < 1e-2


def test_bfloat16_keeps_softmax_norms_and_loss_in_float32():
    """Read off the traced step: what is in bfloat16 has no root, logarithm or maximum."""
    function, params = loss_and_gradient("none", jnp.bfloat16)
    narrow = set()

    def walk(jaxpr):
        for equation in jaxpr.eqns:
            for parameter in equation.params.values():
                several = isinstance(parameter, list | tuple)
                for inner in parameter if several else [parameter]:
                    inner = getattr(inner, "jaxpr", inner)
                    if hasattr(inner, "eqns"):
                        walk(inner)
            if any(getattr(v.aval, "dtype", None) == jnp.bfloat16 for v in equation.outvars):
                narrow.add(equation.primitive.name)

    walk(jax.make_jaxpr(function)(params).jaxpr)
    assert {"conv_general_dilated", "dot_general"} <= narrow
    assert not narrow & {"log", "log1p", "rsqrt", "sqrt", "logistic", "reduce_max"}
