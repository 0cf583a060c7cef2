"""A function of JAX as an ONNX model, and the whole way from crops to answers as an ONNX file.

The function is traced once, for batches of any size; each of the primitives that it consists of
becomes one or a few standard operators (`OPERATIONS`), and what they make together is fused
(`onnx_fusions`). Known arrays become initializers.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jax
import numpy as np

import mtl_face
from mtl_face.export import onnx_fusions, onnx_gather, onnx_shapes, onnx_sums
from mtl_face.export.onnx_builder import BATCH, OPSET, Builder, View
from mtl_face.export.onnx_elementwise import OPERATIONS
from mtl_face.export.whole_way import KEY, WholeWay
from mtl_face.weights import card as cards
from mtl_face.weights.card import ExportError
from mtl_face.weights.programs import onnx_file

if TYPE_CHECKING:
    import onnx

TABLE = (onnx_gather, onnx_shapes, onnx_sums)
"""What adds to `OPERATIONS` when it is imported."""

_INLINED = ("jaxpr", "call_jaxpr", "fun_jaxpr")
"""Parameters of primitives that only call another program."""

_CALLS = (
    *("jit", "pjit", "closed_call", "core_call", "checkpoint", "remat2", "custom_jvp_call"),
    *("custom_vjp_call", "custom_vjp_call_jaxpr"),
)


def write(path: Path, whole: WholeWay) -> None:
    """Writes the program; raises ExportError as `content`, and OSError where writing fails."""
    path.write_bytes(content(whole))


def content(whole: WholeWay) -> bytes:
    """The program as a file; the model's metadata hold the card, and the inputs and outputs in it.

    Raises:
        ExportError: as `to_onnx`, or the file would be too large.
    """
    model = to_onnx(
        whole.function,
        {name: (np.dtype(one.dtype), one.shape_of_one) for name, one in whole.inputs.items()},
        list(whole.outputs),
        metadata={
            cards.KEY: json.dumps(whole.card),
            **{name: json.dumps(whole.card[KEY][name]) for name in ("inputs", "outputs")},
        },
    )
    if model.ByteSize() > onnx_file.LARGEST:
        raise ExportError(
            f"the model has {model.ByteSize() / 1e9:.1f} GB, and a file of ONNX at most 2.1",
            remedy="give --format=stablehlo",
        )
    return model.SerializeToString()


def to_onnx(
    function: Callable[[dict[str, jax.Array]], Mapping[str, jax.Array]],
    inputs: Mapping[str, tuple[Any, tuple[int, ...]]],
    outputs: Sequence[str],
    *,
    metadata: Mapping[str, str] | None = None,
) -> "onnx.ModelProto":
    """Translates a pure function of named batches into a model of opset 18 (see `OPSET`).

    Arrays keep their layout: images are [batch, height, width, channels] outside; inside, the maps
    of convolutions have the channels second. NaN passes as in JAX, except through the maximum or
    minimum of an axis: runtimes may give another element.

    Args:
        function: from arrays [batch, ...] by name to arrays by name. It may not depend on the size
            of the batch other than through shapes: `array.shape[0]`, not `len(array)`.
        inputs: dtype and shape of one example's arrays by name, as of `inputs.specification`.
        outputs: which of the function's results the model gives, in this order.
        metadata: texts to keep in the model.

    Raises:
        ExportError: the package onnx is not installed, a primitive has no translation, or a size
            is not a multiple of the batch's.
        KeyError: the function has no such result.
    """
    onnx = _onnx()
    (batch,) = jax.export.symbolic_shape(BATCH)
    abstract = {
        name: jax.ShapeDtypeStruct((batch, *shape), dtype)
        for name, (dtype, shape) in inputs.items()
    }

    def chosen(arrays: dict[str, jax.Array]) -> list[jax.Array]:
        results = function(arrays)
        return [results[name] for name in outputs]

    closed = jax.jit(chosen).trace(abstract).jaxpr
    build = Builder(batch)
    views = {name: build.input(name, value.shape, value.dtype) for name, value in abstract.items()}
    # Dictionaries are flattened in the order of their keys.
    results = _translated(build, closed.jaxpr, closed.consts, [views[n] for n in sorted(views)])
    build.place = ""
    named = [build.named_output(name, view) for name, view in zip(outputs, results, strict=True)]
    onnx_fusions.fuse(build, outputs)
    return _model(onnx, build, named, metadata or {})


def _onnx() -> Any:
    try:
        import onnx
        import onnx.helper
        import onnx.numpy_helper
        import onnx.reference
    except ImportError as error:
        raise ExportError(
            f"writing ONNX needs the package onnx, which cannot be imported ({error})",
            remedy='install the extra: python -m pip install "mtl_face[onnx]" '
            "(in a clone: python -m pip install -e '.[onnx]')",
        ) from error
    return onnx


def _translated(
    build: Builder, jaxpr: Any, constants: Sequence[Any], arguments: Sequence[View], scope: str = ""
) -> list[View]:
    """Adds a program to the graph; the views of its results."""
    values: dict[Any, View] = {}
    for variable, constant in zip(jaxpr.constvars, constants, strict=True):
        values[variable] = build.view(np.asarray(constant))
    values |= zip(jaxpr.invars, arguments, strict=True)

    def read(atom: Any) -> View:
        if hasattr(atom, "val"):  # a literal
            return build.view(np.asarray(atom.val, atom.aval.dtype))
        return values[atom]

    for equation in jaxpr.eqns:
        own = str(equation.source_info.name_stack)
        place = "/".join(part for part in (scope, own) if part)
        found = _applied(build, equation, [read(atom) for atom in equation.invars], place)
        for variable, view in zip(equation.outvars, found, strict=True):
            expected = (variable.aval.shape, variable.aval.dtype)
            if (view.shape, view.dtype) != expected:
                raise AssertionError(
                    f"{place}/{equation.primitive}: {view.shape} {view.dtype}, not {expected}"
                )
            values[variable] = view
    return [read(atom) for atom in jaxpr.outvars]


def _applied(build: Builder, equation: Any, views: list[View], place: str) -> list[View]:
    name = equation.primitive.name
    if name in _CALLS:
        called = next(equation.params[key] for key in _INLINED if key in equation.params)
        constants = getattr(called, "consts", ())
        return _translated(build, getattr(called, "jaxpr", called), constants, views, place)
    build.place = place
    operation = OPERATIONS.get(name)
    where = f"at {place}" if place else "outside of all modules"
    if operation is None:
        raise ExportError(
            f"the primitive {name}, {where}, has no translation to ONNX",
            remedy="write that part of the function with other operations",
        )
    try:
        found = operation(build, equation.params, *views)
    except ExportError as error:
        raise ExportError(
            f"the primitive {name}, {where}: {error.problem}", remedy=error.remedy
        ) from error
    return found if isinstance(found, list) else [found]


def _model(
    onnx: Any, build: Builder, outputs: Sequence[Any], metadata: Mapping[str, str]
) -> "onnx.ModelProto":
    helper = onnx.helper

    def described(tensor: Any) -> Any:
        sizes = [size if isinstance(size, int) else str(size) for size in tensor.shape]
        element = helper.np_dtype_to_tensor_dtype(tensor.dtype)
        return helper.make_tensor_value_info(tensor.name, element, sizes)

    nodes, initializers = [], []
    names: dict[str, str] = {}
    for number, node in enumerate(build.nodes):
        place = f"{node.place}/{node.op}".removeprefix("/")
        for index, name in enumerate(node.inputs):
            if name in build.constants and name not in names:
                part = {1: "weight", 2: "bias"}.get(index, "constant")
                part = part if node.op in ("Conv", "MatMul", "LayerNormalization") else "constant"
                names[name] = f"{place}/{part}_{len(names)}"
                initializers.append(
                    onnx.numpy_helper.from_array(build.constants[name], names[name])
                )
        nodes.append(
            helper.make_node(
                node.op,
                [names.get(name, name) for name in node.inputs],
                node.outputs,
                name=f"{place}_{number}",
                **node.attributes,
            )
        )
    graph = helper.make_graph(
        nodes,
        "mtl_face",
        [described(tensor) for tensor in build.inputs.values()],
        [described(tensor) for tensor in outputs],
        initializers,
    )
    opset = helper.make_opsetid("", OPSET)
    model = helper.make_model(
        graph,
        opset_imports=[opset],
        ir_version=helper.find_min_ir_version_for([opset]),
        producer_name="mtl_face",
        producer_version=mtl_face.__version__,
    )
    helper.set_model_props(model, dict(metadata))
    return model
