"""JAX's primitives as operators of ONNX: those of each element, and the table of all.

`onnx_shapes`, `onnx_sums` and `onnx_gather` add theirs to the table.
"""

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from jax import lax

from mtl_face.export.onnx_builder import Builder, View
from mtl_face.weights.card import ExportError

Parameters = dict[str, Any]
Operation = Callable[..., Any]

OPERATIONS: dict[str, Operation] = {}
"""By name of the primitive: a function of the builder, the primitive's parameters and the views of
its operands, that gives a view, or a list of views."""


def translates(*names: str) -> Callable[[Operation], Operation]:
    """Registers an operation under the names of primitives."""

    def register(operation: Operation) -> Operation:
        OPERATIONS.update(dict.fromkeys(names, operation))
        return operation

    return register


def refuse(what: str) -> ExportError:
    """The error for a use of a primitive that has no translation."""
    return ExportError(f"{what} has no translation to ONNX")


def computable(build: Builder, view: View) -> View:
    """Integers of dtypes that ONNX Runtime does not calculate with, as wider ones."""
    if view.dtype.kind in "iub" and view.dtype not in (np.int32, np.int64):
        return build.cast(view, np.int64 if view.dtype == np.uint32 else np.int32)
    return view


def _calculation(op: str) -> Operation:
    def operation(build: Builder, parameters: Parameters, *views: View) -> View:
        wide = [computable(build, view) for view in views]
        return build.cast(build.elementwise(op, wide, wide[0].dtype), views[0].dtype)

    return operation


def _comparison(op: str) -> Operation:
    def operation(build: Builder, parameters: Parameters, *views: View) -> View:
        return build.elementwise(op, [computable(build, view) for view in views], bool)

    return operation


def _of_bits(logical: str, bitwise: str) -> Operation:
    def operation(build: Builder, parameters: Parameters, *views: View) -> View:
        return build.elementwise(logical if views[0].dtype == bool else bitwise, views)

    return operation


OPERATIONS |= {
    name: _calculation(op)
    for name, op in {
        **{"add": "Add", "add_any": "Add", "sub": "Sub", "mul": "Mul", "div": "Div", "pow": "Pow"},
        **{"neg": "Neg", "abs": "Abs", "sign": "Sign", "floor": "Floor", "ceil": "Ceil"},
        **{"exp": "Exp", "log": "Log", "sqrt": "Sqrt", "logistic": "Sigmoid", "erf": "Erf"},
        **{"sin": "Sin", "cos": "Cos", "tan": "Tan", "asin": "Asin", "acos": "Acos"},
        **{"atan": "Atan", "sinh": "Sinh", "cosh": "Cosh", "tanh": "Tanh", "asinh": "Asinh"},
        **{"acosh": "Acosh", "atanh": "Atanh"},
    }.items()
}
OPERATIONS |= {
    name: _comparison(op)
    for name, op in {
        **{"eq": "Equal", "lt": "Less", "gt": "Greater"},
        **{"le": "LessOrEqual", "ge": "GreaterOrEqual"},
    }.items()
}
OPERATIONS |= {
    "and": _of_bits("And", "BitwiseAnd"),
    "or": _of_bits("Or", "BitwiseOr"),
    "xor": _of_bits("Xor", "BitwiseXor"),
    "not": _of_bits("Not", "BitwiseNot"),
}


@translates("ne")
def _ne(build: Builder, parameters: Parameters, *views: View) -> View:
    equal = build.elementwise("Equal", [computable(build, view) for view in views], bool)
    return build.elementwise("Not", [equal])


@translates("max")
def _max(build: Builder, parameters: Parameters, *views: View) -> View:
    if views[0].dtype == bool:
        return build.elementwise("Or", views)
    for one, other in (views, views[::-1]):
        if one.dtype.kind == "f" and build.scalar(one) == 0:
            return _as(build.elementwise("Relu", [other]), views)
        if build.scalar(one) == -math.inf:
            return _as(other, views)
    return _calculation("Max")(build, parameters, *views)


@translates("min")
def _min(build: Builder, parameters: Parameters, *views: View) -> View:
    if views[0].dtype == bool:
        return build.elementwise("And", views)
    for one, other in (views, views[::-1]):
        before = build.producer(other.tensor)
        if build.scalar(one) is not None and before is not None and before.op == "Relu":
            source = View(build.tensor(before.inputs[0]), other.axes, other.shape)
            return _as(build.elementwise("Clip", [source, _zero(build, one), one]), views)
    return _calculation("Min")(build, parameters, *views)


def _zero(build: Builder, like: View) -> View:
    return build.view(np.zeros((), like.dtype))


def _as(view: View, views: Sequence[View]) -> View:
    """The view with the shape that an operation on these has."""
    return View(view.tensor, view.axes, max((view.shape for view in views), key=len))


@translates("clamp")
def clamp(build: Builder, parameters: Parameters, low: View, view: View, high: View) -> View:
    """The elements held between two bounds."""
    if view.dtype.kind == "f" and None not in (build.scalar(low), build.scalar(high)):
        return build.elementwise("Clip", [view, low, high])
    return _min(build, {}, _max(build, {}, view, low), high)


@translates("square")
def _square(build: Builder, parameters: Parameters, view: View) -> View:
    return _calculation("Mul")(build, parameters, view, view)


@translates("integer_pow")
def _integer_pow(build: Builder, parameters: Parameters, view: View) -> View:
    power = parameters["y"]
    result = functools.reduce(
        lambda one, other: build.elementwise("Mul", [one, other]), [view] * abs(power)
    )
    return result if power > 0 else build.elementwise("Reciprocal", [result])


@translates("rsqrt")
def _rsqrt(build: Builder, parameters: Parameters, view: View) -> View:
    return build.elementwise("Reciprocal", [build.elementwise("Sqrt", [view])])


@translates("cbrt")
def _cbrt(build: Builder, parameters: Parameters, view: View) -> View:
    size = build.elementwise("Pow", [build.elementwise("Abs", [view]), 1 / 3])
    return build.elementwise("Mul", [build.elementwise("Sign", [view]), size])


@translates("exp2")
def _exp2(build: Builder, parameters: Parameters, view: View) -> View:
    return build.elementwise("Exp", [build.elementwise("Mul", [view, math.log(2)])])


@translates("expm1")
def _expm1(build: Builder, parameters: Parameters, view: View) -> View:
    return build.elementwise("Sub", [build.elementwise("Exp", [view]), 1.0])


@translates("log1p")
def _log1p(build: Builder, parameters: Parameters, view: View) -> View:
    return build.elementwise("Log", [build.elementwise("Add", [view, 1.0])])


@translates("erfc")
def _erfc(build: Builder, parameters: Parameters, view: View) -> View:
    one = build.view(np.ones((), view.dtype))
    return build.elementwise("Sub", [one, build.elementwise("Erf", [view])])


@translates("atan2")
def _atan2(build: Builder, parameters: Parameters, y: View, x: View) -> View:
    """The angle of (x, y): arctan(y / x), half a turn on where x is negative; 0 at the origin."""
    angle = build.elementwise("Atan", [build.elementwise("Div", [y, x])])
    half = [build.view(np.asarray(value, x.dtype)) for value in (math.pi, -math.pi)]
    turn = build.elementwise("Where", [_below_zero(build, y), half[1], half[0]])
    turned = build.elementwise("Add", [angle, turn])
    angle = build.elementwise("Where", [_below_zero(build, x), turned, angle])
    origin = build.elementwise(
        "And", [build.elementwise("Equal", [value, 0.0], bool) for value in (x, y)]
    )
    return build.elementwise("Where", [origin, _zero(build, x), angle])


def _below_zero(build: Builder, view: View) -> View:
    return build.elementwise("Less", [view, 0.0], bool)


@translates("rem")
def _rem(build: Builder, parameters: Parameters, *views: View) -> View:
    wide = [computable(build, view) for view in views]
    return build.cast(build.elementwise("Mod", wide, fmod=1), views[0].dtype)


@translates("round")
def _round(build: Builder, parameters: Parameters, view: View) -> View:
    if parameters["rounding_method"] == lax.RoundingMethod.TO_NEAREST_EVEN:
        return build.elementwise("Round", [view])
    size = build.elementwise("Add", [build.elementwise("Abs", [view]), 0.5])
    size = build.elementwise("Floor", [size])
    return build.elementwise("Mul", [build.elementwise("Sign", [view]), size])


@translates("is_finite")
def _is_finite(build: Builder, parameters: Parameters, view: View) -> View:
    wrong = [build.elementwise(op, [view], bool) for op in ("IsNaN", "IsInf")]
    return build.elementwise("Not", [build.elementwise("Or", wrong)])


@translates("select_n")
def _select_n(build: Builder, parameters: Parameters, which: View, *cases: View) -> View:
    if which.dtype == bool:
        return build.elementwise("Where", [which, *cases[::-1]], cases[0].dtype)
    chosen = cases[0]
    for number, case in enumerate(cases[1:], start=1):
        at = build.elementwise("Equal", [which, number], bool)
        chosen = build.elementwise("Where", [at, case, chosen], case.dtype)
    return chosen


@translates("convert_element_type")
def _convert(build: Builder, parameters: Parameters, view: View) -> View:
    return build.cast(view, parameters["new_dtype"])


@translates("copy", "copy_p", "stop_gradient", "sharding_constraint", "optimization_barrier")
def _identity(build: Builder, parameters: Parameters, *views: View) -> View | list[View]:
    return list(views)


@translates("reduce_precision")
def _reduce_precision(build: Builder, parameters: Parameters, view: View) -> View:
    kept = np.finfo(view.dtype)
    if parameters["exponent_bits"] < kept.nexp or parameters["mantissa_bits"] < kept.nmant:
        raise refuse("reduce_precision to fewer bits")
    return view


def as_view(build: Builder, value: View | int, dtype: Any) -> View:
    """A number, or an array, as a view of this dtype."""
    if isinstance(value, View):
        return build.cast(value, dtype)
    return build.view(np.asarray(value, dtype))
