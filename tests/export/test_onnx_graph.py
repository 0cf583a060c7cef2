"""The translation to ONNX: each family of primitives, and networks, in ONNX Runtime beside JAX."""

import collections
import dataclasses
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from model_settings import PAPER, TINY, changed
from PIL import Image

from mtl_face import config
from mtl_face.config.schema import ConvNextConfig, VitConfig
from mtl_face.faces import models
from mtl_face.inputs import IMAGE, specification
from mtl_face.model.network import ATTENTION, MtlFace, network_inputs
from mtl_face.objective import augment, resample
from mtl_face.weights.card import ExportError

onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")

from mtl_face.export.onnx_graph import to_onnx  # noqa: E402

BATCHES = (1, 3, 8)

LARGEST_DIFFERENCE = 1e-4


def outputs_of(model, arrays):
    """What ONNX Runtime computes, by name."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(names, arrays), strict=True))


def check(function, arrays, *, tolerance=LARGEST_DIFFERENCE):
    """Translates a function of each example and compares it with JAX; the model."""
    arrays = {name: np.asarray(array) for name, array in arrays.items()}
    expected = jax.device_get(jax.jit(function)(arrays))
    inputs = {name: (array.dtype, array.shape[1:]) for name, array in arrays.items()}
    model = to_onnx(function, inputs, list(expected))
    onnx.checker.check_model(model, full_check=True)
    for batch in BATCHES:
        found = outputs_of(model, {name: array[:batch] for name, array in arrays.items()})
        for name, values in expected.items():
            assert found[name].dtype == values.dtype, name
            np.testing.assert_allclose(
                found[name], values[:batch], rtol=tolerance, atol=tolerance, err_msg=name
            )
    return model


def draw(*shape, low=-2.0, high=2.0, seed=0, dtype=np.float32):
    if np.dtype(dtype).kind == "f":
        values = np.random.default_rng(seed).uniform(low, high, (BATCHES[-1], *shape))
    else:
        values = np.random.default_rng(seed).integers(int(low), int(high), (BATCHES[-1], *shape))
    return values.astype(dtype)


def by_name(functions, *names):
    """One function of these inputs with a result for each of the functions."""
    return lambda inputs: {
        name: function(*(inputs[one] for one in names)) for name, function in functions.items()
    }


def test_functions_of_a_real_number():
    functions = {
        **{name: getattr(jnp, name) for name in ("sin", "cos", "tan", "arctan", "exp", "tanh")},
        **{
            name: getattr(jnp, name) for name in ("sinh", "cosh", "arcsinh", "sign", "abs", "floor")
        },
        **{name: getattr(jnp, name) for name in ("ceil", "exp2", "expm1", "cbrt", "negative")},
        **{name: getattr(jnp, name) for name in ("round", "floor", "square", "reciprocal")},
        "arcsin": lambda x: jnp.arcsin(x / 2),
        "arccos": lambda x: jnp.arccos(x / 2),
        "arctanh": lambda x: jnp.arctanh(x / 3),
        "arccosh": lambda x: jnp.arccosh(x + 3),
        "log": lambda x: jnp.log(x + 2.5),
        "log1p": lambda x: jnp.log1p(x + 2),
        "sqrt": lambda x: jnp.sqrt(x + 2),
        "rsqrt": lambda x: lax.rsqrt(x + 3),
        "away": lambda x: lax.round(x * 2, lax.RoundingMethod.AWAY_FROM_ZERO),
        "erf": lax.erf,
        "erfc": lax.erfc,
        "sigmoid": jax.nn.sigmoid,
        "softplus": jax.nn.softplus,
        "relu6": jax.nn.relu6,
        "cube": lambda x: x**3,
        "inverse_square": lambda x: (x + 3) ** -2,
        "clipped": lambda x: jnp.clip(x, -0.5, 0.75),
        "clamped": lambda x: lax.clamp(-0.5, x, 0.75),
        "gelu": lambda x: jax.nn.gelu(x, approximate=False),
        "gelu_tanh": jax.nn.gelu,
        "one": jnp.ones_like,
        "bits": lambda x: lax.reduce_precision(x, 8, 23),
    }
    x = draw(5)
    check(by_name(functions, "x"), {"x": x})


def test_what_is_not_finite_passes_as_in_jax():
    functions = {
        "relu": jax.nn.relu,
        "bounded": lambda x: jnp.maximum(jnp.minimum(x, 0.5), -0.5),
        "clipped": lambda x: jnp.clip(x, 0, 6),
        "clamped": lambda x: lax.clamp(-1.0, x, 0.5),
        "mean": lambda x: x.mean(axis=-1),
        "finite": jnp.isfinite,
    }
    x = draw(4)
    x[:, 1] = np.inf
    x[1::2, 3] = np.nan
    check(by_name(functions, "x"), {"x": x})


def test_functions_of_two_real_numbers():
    functions = {
        **{name: getattr(jnp, name) for name in ("add", "subtract", "multiply", "divide")},
        **{name: getattr(jnp, name) for name in ("maximum", "minimum", "arctan2", "less")},
        **{name: getattr(jnp, name) for name in ("greater", "less_equal", "greater_equal")},
        **{name: getattr(jnp, name) for name in ("equal", "not_equal", "fmod", "mod")},
        "power": lambda x, y: (x + 2.5) ** y,
        "of_pairs": lambda x, y: x[:, :, None] * y[:, None, :],
        "of_a_row": lambda x, y: x + y[:, :1],
        "of_constants": lambda x, y: x * np.arange(4, dtype=np.float32)[None] - 1,
        "where": lambda x, y: jnp.where(x > y, x, 0),
        "logical": lambda x, y: ((x > 0) & ~(y > 0)) | ((x > 1) ^ (y > 1)),
    }
    x, y = draw(4), draw(4, seed=1)
    y[:, 1] = x[:, 1]
    x[:, 2] = 0
    check(by_name(functions, "x", "y"), {"x": x, "y": y})


def test_integers():
    functions = {
        **{name: getattr(jnp, name) for name in ("add", "subtract", "multiply", "maximum")},
        **{name: getattr(jnp, name) for name in ("minimum", "equal", "less", "bitwise_and")},
        **{name: getattr(jnp, name) for name in ("bitwise_or", "bitwise_xor", "floor_divide")},
        **{name: getattr(jnp, name) for name in ("remainder",)},
        "truncated": lambda x, y: lax.div(x, y),
        "rest": lambda x, y: lax.rem(x, y),
        "not": lambda x, y: ~x,
        "power": lambda x, y: x**3,
        "real": lambda x, y: x / 3,
        "clipped": lambda x, y: jnp.clip(x, -3, 2),
        "sum": lambda x, y: x.sum(axis=1),
        "product": lambda x, y: jnp.einsum("bi,bj->b", x, y),
        "count": lambda x, y: (x > y).sum(axis=1),
        "any": lambda x, y: (x > y).any(axis=1),
        "all": lambda x, y: (x > y).all(axis=1),
        "chosen": lambda x, y: lax.select_n(jnp.clip(x, 0, 2), x, y, x * y),
        "byte": lambda x, y: (x.astype(jnp.uint8) + jnp.uint8(3)).astype(jnp.int32),
        "of_real": lambda x, y: (x * 0.3).astype(jnp.int32),
        "position": lambda x, y: x + jnp.arange(5)[None],
    }
    x = draw(5, low=-9, high=9, dtype=np.int32)
    y = draw(5, low=1, high=5, seed=1, dtype=np.int32)
    check(by_name(functions, "x", "y"), {"x": x, "y": y})


def test_shapes():
    functions = {
        "transposed": lambda x: x.transpose(0, 2, 3, 1),
        "merged": lambda x: x.reshape(x.shape[0], -1),
        "merged_with_the_batch": lambda x: (x.reshape(-1, 5) * 2).reshape(x.shape),
        "inner": lambda x: x.reshape(x.shape[0], 12, 5)[:, ::5, 1:-1],
        "squeezed": lambda x: x[:, 1:2].squeeze(1)[:, None, :, None],
        "joined": lambda x: jnp.concatenate([x, x[:, :1] + 1, jnp.zeros_like(x)], axis=1),
        "stacked": lambda x: jnp.stack([x, x**2], axis=2).transpose(0, 2, 1, 4, 3),
        "stacked_transposes": lambda x: jnp.stack(
            [x.transpose(0, 2, 3, 1), x.transpose(0, 2, 3, 1) ** 2], axis=-1
        ),
        "zeros": lambda x: jnp.pad(x, ((0, 0), (1, 2), (0, 0), (0, 1)), constant_values=3),
        "edge": lambda x: jnp.pad(x, ((0, 0), (0, 0), (1, 1), (2, 0)), mode="edge"),
        "cut": lambda x: lax.pad(x, 0.0, ((0, 0, 0), (-1, 1, 0), (0, 0, 0), (0, -2, 0))),
        "reversed": lambda x: x[:, ::-1, :, ::-1],
        "unstacked": lambda x: jnp.add(*jnp.unstack(x[:, :2], axis=1)),
        "split": lambda x: jnp.add(*jnp.split(x, 2, axis=2)),
        "broadcast": lambda x: jnp.broadcast_to(jnp.arange(3.0)[None], (x.shape[0], 3)),
        "repeated": lambda x: jnp.tile(x[:, :, :1], (1, 1, 2, 1)),
        "rows": lambda x: jnp.broadcast_to(x[:, :1], x.shape).reshape(x.shape[0], -1),
        "place": lambda x: jnp.arange(x.shape[0])[:, None] + jnp.arange(2)[None],
        "whole": lambda x: lax.dynamic_slice_in_dim(x, 1, 2, axis=1),
        "moved": lambda x: x * x.transpose(0, 1, 3, 2)[:, :, :4, :1],
    }
    check(by_name(functions, "x"), {"x": draw(3, 4, 5)})


def test_reductions():
    functions = {
        "sum": lambda x: x.sum(axis=(1, 3)),
        "mean": lambda x: x.mean(axis=2, keepdims=True),
        "max": lambda x: x.max(axis=-1) - x.min(axis=-1),
        "product": lambda x: jnp.prod(x, axis=1),
        "variance": lambda x: x.var(axis=(1, 2)),
        "of_a_transpose": lambda x: (x.transpose(0, 3, 1, 2) * 2).sum(axis=1),
        "of_repeated": lambda x: jnp.broadcast_to(x[:, :1], x.shape).sum(axis=1),
        "norm": lambda x: jnp.linalg.norm(x, axis=-1),
        "argmax": lambda x: x.argmax(axis=1),
        "argmin": lambda x: x.argmin(axis=-1),
        "cumulated": lambda x: jnp.cumsum(x, axis=2),
        "softmax": lambda x: jax.nn.softmax(x, axis=1),
        "log_softmax": jax.nn.log_softmax,
        "logsumexp": lambda x: jax.nn.logsumexp(x, axis=-1),
        "sorted": lambda x: jnp.sort(x, axis=1),
        "order": lambda x: jnp.argsort(x, axis=-1),
        "best": lambda x: lax.top_k(x, 2)[0],
        "places": lambda x: lax.top_k(x, 2)[1],
        "median": lambda x: jnp.median(x, axis=1),
        "hot": lambda x: jax.nn.one_hot(x.argmax(axis=-1), 5),
    }
    check(by_name(functions, "x"), {"x": draw(3, 4, 5)})


def test_products():
    equations = {
        "dense": ("bij,jk->bik", (2, 3), None, (3, 4)),
        "dense_of_two": ("bij,ijk->bk", (2, 3), None, (2, 3, 4)),
        "to_two": ("bi,ijk->bjk", (3,), None, (3, 2, 4)),
        "weights_first": ("kj,bij->bki", None, (2, 3), (4, 3)),
        "pairs": ("bqhk,bnhk->bhqn", (2, 3, 4), (5, 3, 4), None),
        "values": ("bhqn,bnhk->bqhk", (3, 2, 5), (5, 3, 4), None),
        "inner": ("bi,bi->b", (3,), (3,), None),
        "outer": ("bi,bj->bij", (3,), (4,), None),
        "grouped": ("bgx,gxd->bgd", (2, 3), None, (2, 3, 4)),
        "separable": ("bhwc,uw->bhuc", (4, 5, 2), None, (3, 5)),
        "all": ("bij,bij->b", (2, 3), (2, 3), None),
        "of_many": ("bijk,bklm->bijlm", (2, 3, 4), (4, 2, 2), None),
    }
    arrays, functions = {}, {}
    for seed, (name, (equation, left, right, weights)) in enumerate(equations.items()):
        for part, shape in (("left", left), ("right", right)):
            if shape is not None:
                arrays[f"{name}_{part}"] = draw(*shape, seed=seed)
        known = None if weights is None else draw(*weights, seed=seed)[0]

        def product(inputs, equation=equation, name=name, known=known):
            sides = [inputs.get(f"{name}_{part}", known) for part in ("left", "right")]
            return jnp.einsum(equation, *sides)

        functions[name] = product
    check(lambda inputs: {name: one(inputs) for name, one in functions.items()}, arrays)


def convolution(x, shape, *, strides=(1, 1), padding="SAME", groups=1, dilation=(1, 1)):
    return lax.conv_general_dilated(
        x,
        draw(*shape, seed=3)[0],
        strides,
        padding,
        rhs_dilation=dilation,
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        feature_group_count=groups,
    )


def test_convolutions_and_pooling():
    window = (1, 3, 3, 1), (1, 2, 2, 1)
    functions = {
        "same": lambda x: convolution(x, (3, 3, 4, 6), strides=(2, 2)),
        "valid": lambda x: convolution(x, (3, 2, 4, 6), padding="VALID"),
        "uneven": lambda x: convolution(x, (7, 7, 4, 2), strides=(2, 2), padding=((3, 2), (0, 1))),
        "depthwise": lambda x: convolution(x, (3, 3, 1, 8), groups=4),
        "dilated": lambda x: convolution(x, (3, 3, 4, 2), dilation=(2, 1)),
        "of_a_line": lambda x: lax.conv(x[:, :, :, 0], draw(5, 9, 3)[0], (2,), "SAME"),
        "max": lambda x: lax.reduce_window(x, -jnp.inf, lax.max, *window, "SAME"),
        "max_at_the_end": lambda x: lax.reduce_window(
            x, -jnp.inf, lax.max, *window, ((0, 0), (0, 1), (0, 1), (0, 0))
        ),
        "min": lambda x: lax.reduce_window(x, jnp.inf, lax.min, *window, "VALID"),
        "sum": lambda x: lax.reduce_window(x, 0.0, lax.add, *window, "SAME"),
        "of_channels": lambda x: lax.reduce_window(
            x, -jnp.inf, lax.max, (1, 1, 1, 2), (1, 1, 1, 2), "VALID"
        ),
        "squares": lambda x: models._maxima_of_squares(convolution(x[:, :8, :8], (1, 1, 4, 4))),
        "rows": lambda x: jnp.maximum(x[:, 1::2], x[:, :-1:2]),
        "twice": lambda x: (one := convolution(x, (1, 1, 4, 4))) + jax.nn.relu(one * 2),
    }
    functions["scaled"] = lambda x: (
        (convolution(x, (1, 1, 4, 3)) - 0.5) * np.float32([1, 2, 3])[None, None, None] / 2 + 1
    )

    def prelu(*slopes):
        return lambda x: (
            jnp.maximum(one := convolution(x, (1, 1, 4, 4)), 0)
            + np.float32(slopes)[None, None, None] * jnp.minimum(one, 0)
        )

    functions["prelu"], functions["steep_prelu"] = prelu(0.1, -0.2, 0.3, 1), prelu(0, 0.5, 1.5, 2)
    model = check(by_name(functions, "x"), {"x": draw(9, 9, 4)})
    found = operators(model)
    assert (found["PRelu"], found["Max"], found["Min"]) == (0, 2, 1)  # Max: of prelu, and rows
    assert found["MaxPool"] == 5  # one of them of the squares


def test_indices():
    known = np.array([[0, 3], [2, 2]])
    functions = {
        "row": lambda x, i: x[:, 2],
        "known": lambda x, i: x[:, known],
        "inner": lambda x, i: x[:, :, [4, 0]],
        "pairs": lambda x, i: x[:, [3, 1], [0, 4]],
        "points": lambda x, i: x[:, known, np.array([1, 4])[None]],
        "own": lambda x, i: jnp.take_along_axis(x, i[:, :, None, None], axis=1),
        "own_of_all": lambda x, i: jax.vmap(lambda a, j: a[j])(x, i),
        "own_pairs": lambda x, i: jax.vmap(lambda a, j: a[j, j + 1])(x, i),
        "held": lambda x, i: jnp.take(x, i[0:1, 0] * 0 + 9, axis=1, mode="clip")[:, 0],
        "missing": lambda x, i: jax.vmap(lambda a, j: a.at[j * 2].get(mode="fill", fill_value=7))(
            x, i
        ),
        "from_the_end": lambda x, i: jax.vmap(lambda a, j: a[-1 - j])(x, i),
        "by_a_number": lambda x, i: x[:, ::2] * (i[:, :1, None, None] == 2),
    }
    arrays = {"x": draw(4, 5, 3), "i": draw(4, low=0, high=4, dtype=np.int32, seed=2)}
    check(by_name(functions, "x", "i"), arrays)


def test_slices_from_places_that_are_computed():
    def cut(inputs):
        start = inputs["i"].max() * 0 + 5
        return {"cut": lax.dynamic_slice_in_dim(inputs["x"], start, 2, axis=1)}

    check(cut, {"x": draw(4, 3), "i": draw(1, low=0, high=2, dtype=np.int32)})


def test_a_resize_and_a_similarity():
    """Both of uint8 pictures: by the same map for all, and by one for each."""
    random = np.random.default_rng(0)
    pixels = random.integers(0, 256, (BATCHES[-1], 12, 10, 3), dtype=np.uint8)
    square = pixels[:, :10]
    transform = np.tile(np.float32([[1, 0.2, 0.5], [-0.2, 1, 1]]), (BATCHES[-1], 1, 1))
    transform += draw(2, 3, low=-0.1, high=0.1)

    def both(inputs):
        image = inputs["image"]
        resize = augment.identity_transforms(image.shape[0], stored_size=10, input_size=7)
        return {
            method: resample.resample(image, resize, input_size=7, method=method)
            for method in ("gather", "separable")
        } | {"similar": resample.resample(image, inputs["map"], input_size=8, method="gather")}

    check(both, {"image": square, "map": transform}, tolerance=1e-3)


def test_a_rotation_without_svd():
    """The polar factor of 3 x 3 matrices, by Newton's iteration."""

    def polar(inputs):
        x = inputs["x"] + 3 * jnp.eye(3)[None]
        for _ in range(6):
            rows = [jnp.cross(x[:, (i + 1) % 3], x[:, (i + 2) % 3]) for i in range(3)]
            cofactor = jnp.stack(rows, axis=1)
            determinant = jnp.sum(x[:, 0] * cofactor[:, 0], axis=-1)[:, None, None]
            x = (x + cofactor / determinant) / 2
        return {"rotation": x, "square": x @ x.transpose(0, 2, 1)}

    check(polar, {"x": draw(3, 3, low=-1, high=1)})


def random_variables(shapes, seed=0):
    """Weights that keep the size of what passes; scales and variances above 0."""
    random = np.random.default_rng(seed)

    def one(path, leaf):
        name = path[-1].key
        if name in ("var", "scale"):
            return random.uniform(0.5, 1.5, leaf.shape).astype(np.float32)
        fan_in = max(1, int(np.prod(leaf.shape[:-1])))
        scale = fan_in**-0.5 if name == "kernel" else 0.1
        return random.normal(0, scale, leaf.shape).astype(np.float32)

    return jax.tree_util.tree_map_with_path(one, shapes)


def network_of(settings):
    """A network with random weights as a function of its inputs, and arrays for it."""
    network = MtlFace(changed(settings, convolution="xla"))
    inputs = network_inputs(settings)
    shapes = jax.eval_shape(lambda: network.init(jax.random.key(0), inputs, train=False))
    variables = random_variables(shapes)
    arrays = {
        name: draw(*shape) if name != IMAGE else draw(*shape, low=0, high=255)
        for name, (_, shape) in specification(settings.inputs, settings.input_size).items()
    }
    return lambda inputs: network.apply(variables, inputs, train=False), arrays


def operators(model):
    return collections.Counter(node.op_type for node in model.graph.node)


SMALL = changed(
    TINY,
    input_size=64,
    stage_sizes=(1, 1),
    width=8,
    expansion=2,
    embed_dim=16,
    num_heads=2,
    head_width=16,
    decoder_modules=2,
)


VIT = VitConfig(
    **{"patch": 16, "width": 16, "depth": 2, "num_heads": 2, "mlp_width": 24, "registers": 2},
    **{"positions": "rotary", "layer_scale": True, "activation": "quick_gelu"},
)
OTHERS = {
    "vit": {"kind": "vit", "vit": VIT},
    "vit, gated": {"kind": "vit", "vit": dataclasses.replace(VIT, gated_mlp=True, pre_norm=True)},
    "vit, tanh": {
        "kind": "vit",
        "vit": dataclasses.replace(VIT, activation="gelu_tanh", positions="learned"),
    },
    "convnext": {
        "kind": "convnext",
        "convnext": ConvNextConfig(depths=(1, 1), widths=(8, 12), global_response_norm=True),
    },
}


@pytest.mark.parametrize("name", OTHERS)
def test_other_backbones(name):
    check(*network_of(changed(SMALL, **OTHERS[name])))


@pytest.fixture(scope="module")
def small_model():
    return check(*network_of(SMALL))


def test_a_small_network_has_few_operators(small_model):
    found = operators(small_model)
    convolutions = 1 + 2 * 4
    assert found["Conv"] == convolutions
    # Batch norms are in the convolutions, and the parts of larger operators are gone.
    assert not {"Sqrt", "Exp", "ReduceSum", "ReduceMax", "Expand"} & set(found)
    # Of the first module's tokens, which are the same for all, all is known.
    assert found["LayerNormalization"] == 8
    # One to the convolutions and one from them; of queries, keys and values, and of answers.
    attention = 1 + 2 * 2 - 1
    assert found["Transpose"] <= 2 + 4 * attention


def test_a_model_says_what_it_takes(small_model):
    (image,) = small_model.graph.input
    sizes = [size.dim_param or size.dim_value for size in image.type.tensor_type.shape.dim]
    assert (image.name, sizes) == ("image", ["batch", 64, 64, 3])
    assert [output.name for output in small_model.graph.output] == ["au", "expr", "va"]
    assert any("stage1_block1/conv1" in weight.name for weight in small_model.graph.initializer)


def test_metadata_is_kept():
    inputs = {"x": (np.float32, (2,))}
    model = to_onnx(lambda x: {"y": x["x"]}, inputs, ["y"], metadata={"card": "{}"})
    assert [(entry.key, entry.value) for entry in model.metadata_props] == [("card", "{}")]
    assert operators(model) == {"Identity": 1}


VARIANTS = {
    "post": changed(SMALL, norm="post", decoder_mlp="each", va_variance="per_example"),
    "keras": changed(SMALL, variant="keras", input_size=60),
    "caffe": changed(SMALL, variant="caffe", input_size=60),
    "points": changed(
        config.load("geometry").model, embed_dim=16, head_width=16, num_heads=2, encoder_layers=1
    ),
}


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=pytest.mark.slow if n == "caffe" else ()) for n in VARIANTS]
)
def test_variants_of_a_small_network(name):
    check(*network_of(VARIANTS[name]))


def test_an_unknown_primitive_is_named():
    def summed(inputs):
        with jax.named_scope("recurrence"):
            return {"y": lax.fori_loop(0, 3, lambda _, x: x * 2, inputs["x"])}

    with pytest.raises(ExportError, match=r"primitive scan, at recurrence.*no translation to ONNX"):
        to_onnx(summed, {"x": (np.float32, (2,))}, ["y"])


def test_a_part_that_cannot_be_translated_is_named():
    def spread(inputs):
        return {"y": lax.pad(inputs["x"], 0.0, ((0, 0, 0), (0, 0, 1)))}

    with pytest.raises(ExportError, match="primitive pad, outside of all modules: pad between"):
        to_onnx(spread, {"x": (np.float32, (2,))}, ["y"])


def test_a_size_that_is_no_multiple_of_the_batch_is_refused():
    def longer(inputs):
        return {"y": jnp.zeros((inputs["x"].shape[0] + 1,))}

    with pytest.raises(ExportError, match=r"size batch \+ 1 is no multiple of the batch's"):
        to_onnx(longer, {"x": (np.float32, (2,))}, ["y"])


def test_a_missing_package_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(ExportError, match=r'onnx.*\n.*pip install "mtl_face\[onnx\]"'):
        to_onnx(lambda x: x, {"x": (np.float32, (2,))}, ["x"])


def faces(size):
    """Cuts of a photograph of a face, uint8."""
    photo = pytest.importorskip("skimage.data").astronaut()[:300, 60:360]
    cuts = [Image.fromarray(photo[4 * i : 280 + 2 * i, 3 * i : 270]) for i in range(BATCHES[-1])]
    return np.stack([np.asarray(cut.resize((size, size))) for cut in cuts])


@pytest.mark.slow
@pytest.mark.parametrize(
    ("function", "size", "names"),
    [
        (models.face_mesh, models.MESH_SIZE, ("score", "points")),
        (models.blaze_face, models.BLAZE_FACE_SIZE, ("score", "box", "points")),
    ],
)
def test_networks_that_find_faces(function, size, names):
    variables = models.variables(function.__name__)

    def outputs(inputs):
        found = function(variables, inputs["image"], convolution="xla")
        return dict(zip(names, found, strict=True))

    found = operators(check(outputs, {"image": faces(size)}))
    assert not {"Gather", "PRelu"} & set(found)  # slow in ONNX Runtime
    assert found["Transpose"] <= 5


@pytest.mark.slow
@pytest.mark.parametrize("name", ["paper", "rendered_faces", "geometry", "mobilenet"])
def test_shipped_networks(name):
    check(*network_of(config.load(name, ["data.root=/x"]).model))


@pytest.mark.slow
@pytest.mark.parametrize("variant", ["keras", "torchvision"])
def test_the_paper_s_network_in_other_geometries(variant):
    check(*network_of(changed(PAPER, variant=variant)))


@pytest.mark.slow
def test_attention_weights_are_an_output():
    function, arrays = network_of(SMALL)
    del function
    network = MtlFace(SMALL)
    inputs = network_inputs(SMALL)
    shapes = jax.eval_shape(lambda: network.init(jax.random.key(0), inputs, train=False))
    variables = random_variables(shapes)
    check(
        lambda inputs: {
            "read": network.apply(variables, inputs, train=False, return_attention=True)[ATTENTION]
        },
        arrays,
    )
