"""JAX's primitives as operators of ONNX.

`OPERATIONS` maps the name of a primitive to a function of the builder, the primitive's parameters
and the views of its operands; the result is a view, or a list of views where it has several.
"""

import dataclasses
import functools
import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from jax import lax

from mtl_face.export.onnx_builder import (
    Builder,
    Tensor,
    View,
    broadcast,
    count,
    full_order,
    is_one,
    is_static,
    relabelled,
)
from mtl_face.weights.card import ExportError

Parameters = dict[str, Any]
Operation = Callable[..., Any]

_LAST = np.iinfo(np.int64).max

OPERATIONS: dict[str, Operation] = {}
"""By name of the primitive; each gives a view, or a list of views."""


def _of(*names: str) -> Callable[[Operation], Operation]:
    def register(operation: Operation) -> Operation:
        OPERATIONS.update(dict.fromkeys(names, operation))
        return operation

    return register


def _refuse(what: str) -> ExportError:
    return ExportError(f"{what} has no translation to ONNX")


# Elementwise


def _computable(build: Builder, view: View) -> View:
    """Integers of dtypes that ONNX Runtime does not calculate with, as wider ones."""
    if view.dtype.kind in "iub" and view.dtype not in (np.int32, np.int64):
        return build.cast(view, np.int64 if view.dtype == np.uint32 else np.int32)
    return view


def _calculation(op: str) -> Operation:
    def operation(build: Builder, parameters: Parameters, *views: View) -> View:
        wide = [_computable(build, view) for view in views]
        return build.cast(build.elementwise(op, wide), views[0].dtype)

    return operation


def _comparison(op: str) -> Operation:
    def operation(build: Builder, parameters: Parameters, *views: View) -> View:
        return build.elementwise(op, [_computable(build, view) for view in views], bool)

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


@_of("ne")
def _ne(build: Builder, parameters: Parameters, *views: View) -> View:
    equal = build.elementwise("Equal", [_computable(build, view) for view in views], bool)
    return build.elementwise("Not", [equal])


@_of("max")
def _max(build: Builder, parameters: Parameters, *views: View) -> View:
    if views[0].dtype == bool:
        return build.elementwise("Or", views)
    for one, other in (views, views[::-1]):
        if one.dtype.kind == "f" and build.scalar(one) == 0:
            return _as(build.elementwise("Relu", [other]), views)
        if build.scalar(one) == -math.inf:
            return _as(other, views)
    return _calculation("Max")(build, parameters, *views)


@_of("min")
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


@_of("clamp")
def _clamp(build: Builder, parameters: Parameters, low: View, view: View, high: View) -> View:
    if view.dtype.kind == "f" and None not in (build.scalar(low), build.scalar(high)):
        return build.elementwise("Clip", [view, low, high])
    return _min(build, {}, _max(build, {}, view, low), high)


@_of("square")
def _square(build: Builder, parameters: Parameters, view: View) -> View:
    return _calculation("Mul")(build, parameters, view, view)


@_of("integer_pow")
def _integer_pow(build: Builder, parameters: Parameters, view: View) -> View:
    power = parameters["y"]
    result = functools.reduce(
        lambda one, other: build.elementwise("Mul", [one, other]), [view] * abs(power)
    )
    return result if power > 0 else build.elementwise("Reciprocal", [result])


@_of("rsqrt")
def _rsqrt(build: Builder, parameters: Parameters, view: View) -> View:
    return build.elementwise("Reciprocal", [build.elementwise("Sqrt", [view])])


@_of("cbrt")
def _cbrt(build: Builder, parameters: Parameters, view: View) -> View:
    size = build.elementwise("Pow", [build.elementwise("Abs", [view]), 1 / 3])
    return build.elementwise("Mul", [build.elementwise("Sign", [view]), size])


@_of("exp2")
def _exp2(build: Builder, parameters: Parameters, view: View) -> View:
    return build.elementwise("Exp", [build.elementwise("Mul", [view, math.log(2)])])


@_of("expm1")
def _expm1(build: Builder, parameters: Parameters, view: View) -> View:
    return build.elementwise("Sub", [build.elementwise("Exp", [view]), 1.0])


@_of("log1p")
def _log1p(build: Builder, parameters: Parameters, view: View) -> View:
    return build.elementwise("Log", [build.elementwise("Add", [view, 1.0])])


@_of("erfc")
def _erfc(build: Builder, parameters: Parameters, view: View) -> View:
    one = build.view(np.ones((), view.dtype))
    return build.elementwise("Sub", [one, build.elementwise("Erf", [view])])


@_of("atan2")
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


@_of("rem")
def _rem(build: Builder, parameters: Parameters, *views: View) -> View:
    wide = [_computable(build, view) for view in views]
    return build.cast(build.elementwise("Mod", wide, fmod=1), views[0].dtype)


@_of("round")
def _round(build: Builder, parameters: Parameters, view: View) -> View:
    if parameters["rounding_method"] == lax.RoundingMethod.TO_NEAREST_EVEN:
        return build.elementwise("Round", [view])
    size = build.elementwise("Add", [build.elementwise("Abs", [view]), 0.5])
    size = build.elementwise("Floor", [size])
    return build.elementwise("Mul", [build.elementwise("Sign", [view]), size])


@_of("is_finite")
def _is_finite(build: Builder, parameters: Parameters, view: View) -> View:
    wrong = [build.elementwise(op, [view], bool) for op in ("IsNaN", "IsInf")]
    return build.elementwise("Not", [build.elementwise("Or", wrong)])


@_of("select_n")
def _select_n(build: Builder, parameters: Parameters, which: View, *cases: View) -> View:
    if which.dtype == bool:
        return build.elementwise("Where", [which, *cases[::-1]], cases[0].dtype)
    chosen = cases[0]
    for number, case in enumerate(cases[1:], start=1):
        at = build.elementwise("Equal", [which, number], bool)
        chosen = build.elementwise("Where", [at, case, chosen], case.dtype)
    return chosen


@_of("convert_element_type")
def _convert(build: Builder, parameters: Parameters, view: View) -> View:
    return build.cast(view, parameters["new_dtype"])


@_of("copy", "copy_p", "stop_gradient", "sharding_constraint", "optimization_barrier")
def _identity(build: Builder, parameters: Parameters, *views: View) -> View | list[View]:
    return list(views)


@_of("reduce_precision")
def _reduce_precision(build: Builder, parameters: Parameters, view: View) -> View:
    kept = np.finfo(view.dtype)
    if parameters["exponent_bits"] < kept.nexp or parameters["mantissa_bits"] < kept.nmant:
        raise _refuse("reduce_precision to fewer bits")
    return view


# Shape


@_of("broadcast_in_dim")
def _broadcast_in_dim(
    build: Builder, parameters: Parameters, view: View, *dynamic_sizes: View
) -> View:
    places = dict(enumerate(parameters["broadcast_dimensions"]))
    return relabelled(view, places, tuple(parameters["shape"]))


@_of("transpose")
def _transpose(build: Builder, parameters: Parameters, view: View) -> View:
    order = parameters["permutation"]
    places = {old: new for new, old in enumerate(order)}
    return relabelled(view, places, tuple(view.shape[axis] for axis in order))


@_of("squeeze")
def _squeeze(build: Builder, parameters: Parameters, view: View) -> View:
    return _without(view, parameters["dimensions"])


def _without(view: View, dropped: Sequence[int]) -> View:
    """The array without these axes, which are stored with size 1 or not at all."""
    kept = [axis for axis in range(len(view.shape)) if axis not in dropped]
    places = {old: new for new, old in enumerate(kept)}
    return relabelled(view, places, tuple(view.shape[axis] for axis in kept))


@_of("reshape")
def _reshape(build: Builder, parameters: Parameters, view: View, *dynamic_sizes: View) -> View:
    shape = tuple(parameters["new_sizes"])
    before = [axis for axis, size in enumerate(view.shape) if not is_one(size)]
    after = [axis for axis, size in enumerate(shape) if not is_one(size)]
    if [view.shape[axis] for axis in before] == [shape[axis] for axis in after]:
        return relabelled(view, dict(zip(before, after, strict=True)), shape)
    first = _common(view.shape, shape)
    last = _common(view.shape[first:][::-1], shape[first:][::-1])
    # Axes at the start and the end that stay may stay broadcast.
    view = build.full(view, range(first, len(view.shape) - last))
    tensor = build.arranged(view, range(len(view.shape)))
    ends = (tensor.shape[:first], tensor.shape[len(view.shape) - last :])
    tensor = build.reshaped(tensor, (*ends[0], *shape[first : len(shape) - last], *ends[1]))
    return View(tensor, tuple(range(len(shape))), shape)


def _common(one: Sequence[Any], other: Sequence[Any]) -> int:
    """How many sizes are equal from the start."""
    return len(
        list(itertools.takewhile(lambda pair: pair[0] == pair[1], zip(one, other, strict=False)))
    )


@_of("concatenate")
def _concatenate(build: Builder, parameters: Parameters, *views: View) -> View:
    axis = parameters["dimension"]
    views = tuple(view for view in views if view.shape[axis] != 0) or views[:1]
    if len(views) == 1:
        return views[0]
    stored = {one for view in views for one in view.wide} | {axis}
    # An axis along which all are the same stays as it is.
    found = [build.full(view, stored) for view in views]
    order = full_order(max(found, key=lambda view: len(view.wide)))
    tensors = [build.arranged(view, order) for view in found]
    total = sum(view.shape[axis] for view in views)
    place = order.index(axis)
    shape = (*tensors[0].shape[:place], total, *tensors[0].shape[place + 1 :])
    tensor = build.add("Concat", tensors, shape, axis=place)
    return View(tensor, tuple(order), _resized(views[0].shape, axis, total))


@_of("tile")
def _tile(build: Builder, parameters: Parameters, view: View) -> View:
    repeats = parameters["reps"]
    view = build.full(view, [axis for axis, number in enumerate(repeats) if number != 1])
    numbers = [1 if axis is None else repeats[axis] for axis in view.axes]
    stored, shape = (
        tuple(size * number for size, number in zip(sizes, own, strict=True))
        for sizes, own in ((view.tensor.shape, numbers), (view.shape, repeats))
    )
    tensor = build.add("Tile", [view.tensor, build.constant(numbers, np.int64)], stored)
    return View(tensor, view.axes, shape)


@_of("stack")
def _stack(build: Builder, parameters: Parameters, *views: View) -> View:
    axis, rank = parameters["axis"], len(views[0].shape)
    axis %= rank + 1
    places = {old: old + (old >= axis) for old in range(rank)}
    shape = (*views[0].shape[:axis], 1, *views[0].shape[axis:])
    parts = [relabelled(view, places, shape) for view in views]
    return _concatenate(build, {"dimension": axis}, *parts)


@_of("unstack")
def _unstack(build: Builder, parameters: Parameters, view: View) -> list[View]:
    axis = parameters["axis"] % len(view.shape)
    parts = [_sliced(build, view, axis, place, place + 1) for place in range(view.shape[axis])]
    return [_without(part, [axis]) for part in parts]


def _resized(shape: Sequence[Any], axis: int, size: Any) -> tuple[Any, ...]:
    return (*shape[:axis], size, *shape[axis + 1 :])


@_of("pad")
def _pad(build: Builder, parameters: Parameters, view: View, value: View) -> View:
    config = parameters["padding_config"]
    if any(interior for _, _, interior in config):
        raise _refuse("pad between elements")
    if not any(low or high for low, high, _ in config):
        return view
    view = build.full(view, [axis for axis, pads in enumerate(config) if any(pads)])
    pads: list[list[int]] = [[], []]
    for axis in view.axes:
        for side in range(2):
            pads[side].append(0 if axis is None else config[axis][side])
    shape = tuple(size + sum(pair) for size, *pair in zip(view.tensor.shape, *pads, strict=True))
    inputs = [
        view.tensor,
        build.constant(np.ravel(pads), np.int64),
        build.reshaped(value.tensor, ()),
    ]
    logical = tuple(
        size + low + high for size, (low, high, _) in zip(view.shape, config, strict=True)
    )
    return View(build.add("Pad", inputs, shape), view.axes, logical)


@_of("slice")
def _slice(build: Builder, parameters: Parameters, view: View) -> View:
    starts, limits = parameters["start_indices"], parameters["limit_indices"]
    steps = parameters["strides"] or (1,) * len(starts)
    for axis, (start, limit, step) in enumerate(zip(starts, limits, steps, strict=True)):
        view = _sliced(build, view, axis, start, limit, step)
    return view


def _sliced(build: Builder, view: View, axis: int, start: Any, limit: Any, step: int = 1) -> View:
    """Every `step`-th of the elements from `start` to before `limit` along an axis."""
    size = view.shape[axis]
    if isinstance(start, int) and (start, limit, step) == (0, size, 1):
        return view
    length = -(-(limit - start) // step)
    shape = _resized(view.shape, axis, length)
    if is_one(view.stored(axis)):
        return View(view.tensor, view.axes, shape)
    start, limit = _counted_from_an_end(start, size), _counted_from_an_end(limit, size)
    place = view.place(axis)
    before = build.producer(view.tensor)
    if before is not None and before.op == "Concat" and before.attributes["axis"] == place:
        begin = 0
        for part in map(build.tensor, before.inputs):
            if (begin, begin + part.shape[place], step) == (start, limit, 1):
                return View(part, view.axes, shape)
            begin += part.shape[place]
    ends = [[start], [limit], [place], [step]]
    inputs = [view.tensor, *(build.constant(end, np.int64) for end in ends)]
    tensor = build.add("Slice", inputs, _resized(view.tensor.shape, place, length))
    return View(tensor, view.axes, shape)


def _counted_from_an_end(place: Any, size: Any) -> int:
    """A place as ONNX counts it: from the end of an axis below 0."""
    if isinstance(place, int):
        return place
    before_end = place - size
    if not isinstance(before_end, int):
        raise _refuse("a slice whose ends depend on the size of the batch")
    return before_end if before_end < 0 else _LAST


@_of("split")
def _split(build: Builder, parameters: Parameters, view: View) -> list[View]:
    ends = np.cumsum([0, *parameters["sizes"]]).tolist()
    axis = parameters["axis"]
    return [_sliced(build, view, axis, start, limit) for start, limit in itertools.pairwise(ends)]


@_of("rev")
def _rev(build: Builder, parameters: Parameters, view: View) -> View:
    places = [view.place(axis) for axis in parameters["dimensions"] if axis in view.axes]
    if not places:
        return view
    ends = [[-1] * len(places), [-_LAST] * len(places), places, [-1] * len(places)]
    inputs = [view.tensor, *(build.constant(end, np.int64) for end in ends)]
    return View(build.add("Slice", inputs, view.tensor.shape), view.axes, view.shape)


@_of("iota")
def _iota(build: Builder, parameters: Parameters, *dynamic_sizes: View) -> View:
    shape, axis = tuple(parameters["shape"]), parameters["dimension"]
    dtype = np.dtype(parameters["dtype"])
    if isinstance(shape[axis], int):
        return View(build.constant(np.arange(shape[axis], dtype=dtype)), (axis,), shape)
    ends = [build.constant(value, np.int64) for value in (0, 1)]
    limit = build.reshaped(build.size(shape[axis]), ())
    numbers = View(build.add("Range", [ends[0], limit, ends[1]], (shape[axis],)), (axis,), shape)
    return build.cast(numbers, dtype)


@_of("dimension_as_value", "dim_as_value")
def _dimension_as_value(build: Builder, parameters: Parameters) -> View:
    size = View(build.reshaped(build.size(parameters["dim"]), ()), (), ())
    return build.cast(size, np.int32)


@_of("dynamic_slice")
def _dynamic_slice(build: Builder, parameters: Parameters, view: View, *starts: View) -> View:
    for axis, (start, length) in enumerate(zip(starts, parameters["slice_sizes"], strict=True)):
        size, known = view.shape[axis], build.scalar(start)
        if length == size:
            continue
        shape = _resized(view.shape, axis, length)
        if known is not None and is_static((size,)):
            known = min(max(known, 0), size - length)
            view = _sliced(build, view, axis, known, known + length)
            continue
        if not is_static((size,)):
            raise _refuse("a slice along the batch")
        view = build.full(view, [axis])
        start = _clamp(
            build, {}, *(_number(build, each, np.int64) for each in (0, start, size - length))
        )
        first = build.reshaped(start.tensor, (1,))
        limit = build.add("Add", [first, build.constant([length], np.int64)], (1,))
        place = view.place(axis)
        inputs = [view.tensor, first, limit, build.constant([place], np.int64)]
        tensor = build.add("Slice", inputs, _resized(view.tensor.shape, place, length))
        view = View(tensor, view.axes, shape)
    return view


def _number(build: Builder, value: View | int, dtype: Any) -> View:
    if isinstance(value, View):
        return build.cast(value, dtype)
    return build.view(np.asarray(value, dtype))


# Reductions


def _reduced(build: Builder, op: str, view: View, axes: Sequence[int], **attributes: Any) -> View:
    """A reduction that keeps the axes, stored with size 1; the array loses them."""
    places = [view.place(axis) for axis in axes if axis in view.axes]
    shape = tuple(1 if place in places else size for place, size in enumerate(view.tensor.shape))
    inputs = [view.tensor, build.constant(sorted(places), np.int64)]
    tensor = build.add(op, inputs, shape, keepdims=1, **attributes) if places else view.tensor
    return _without(View(tensor, view.axes, view.shape), axes)


def _reduction(op: str, *, counts: bool) -> Operation:
    """`counts`: whether it matters how often an element is repeated."""

    def operation(build: Builder, parameters: Parameters, view: View) -> View:
        axes = parameters["axes"]
        wide = _computable(build, build.full(view, axes) if counts else view)
        return build.cast(_reduced(build, op, wide, axes), view.dtype)

    return operation


OPERATIONS |= {
    "reduce_sum": _reduction("ReduceSum", counts=True),
    "reduce_prod": _reduction("ReduceProd", counts=True),
    "reduce_max": _reduction("ReduceMax", counts=False),
    "reduce_min": _reduction("ReduceMin", counts=False),
    "reduce_and": _reduction("ReduceMin", counts=False),
    "reduce_or": _reduction("ReduceMax", counts=False),
}


@_of("argmax")
def _argmax(build: Builder, parameters: Parameters, view: View, *, op: str = "ArgMax") -> View:
    (axis,) = parameters["axes"]
    view = _computable(build, build.full(view, [axis]))
    place = view.place(axis)
    shape = _resized(view.tensor.shape, place, 1)
    tensor = build.add(op, [view.tensor], shape, np.int64, axis=place, keepdims=1)
    found = _without(View(tensor, view.axes, view.shape), [axis])
    return build.cast(found, parameters["index_dtype"])


OPERATIONS["argmin"] = functools.partial(_argmax, op="ArgMin")


@_of("cumsum")
def _cumsum(build: Builder, parameters: Parameters, view: View) -> View:
    axis = parameters["axis"]
    view = build.full(view, [axis])
    inputs = [view.tensor, build.constant(view.place(axis), np.int64)]
    tensor = build.add("CumSum", inputs, view.tensor.shape, reverse=int(parameters["reverse"]))
    return View(tensor, view.axes, view.shape)


@_of("top_k")
def _top_k(build: Builder, parameters: Parameters, view: View) -> list[View]:
    axis = parameters.get("axis", len(view.shape) - 1) % len(view.shape)
    values, places = _sorted(build, view, axis, parameters["k"], largest=1)
    return [values, build.cast(places, np.int32)]


@_of("sort")
def _sort(build: Builder, parameters: Parameters, *views: View) -> list[View]:
    if parameters["num_keys"] != 1:
        raise _refuse("sort by several keys")
    axis = parameters["dimension"]
    size = views[0].shape[axis]
    values, places = _sorted(build, views[0], axis, size, largest=0)
    others = []
    for view in views[1:]:
        inputs = [build.arranged(build.full(view), values.axes), places.tensor]  # type: ignore[arg-type]
        tensor = build.add("GatherElements", inputs, inputs[0].shape, axis=places.place(axis))
        others.append(View(tensor, values.axes, view.shape))
    return [values, *others]


def _sorted(build: Builder, view: View, axis: int, size: int, *, largest: int) -> list[View]:
    """The first of the sorted elements along an axis, and where they were, int64."""
    shape, order = _resized(view.shape, axis, size), full_order(view)
    tensor = build.arranged(build.full(view), order)
    place = order.index(axis)
    stored = _resized(tensor.shape, place, size)
    found = build.add_several(
        "TopK",
        [tensor, build.constant([size], np.int64)],
        [(stored, view.dtype), (stored, np.int64)],
        axis=place,
        largest=largest,
    )
    return [View(one, tuple(order), shape) for one in found]


# Products


@dataclasses.dataclass
class _Side:
    """A factor of a product: its axes of each kind, and what the free ones are in the result."""

    view: View
    batch: Sequence[int]
    free: Sequence[int]
    summed: Sequence[int]
    labels: list[int]

    def is_moved(self, *last: Sequence[int]) -> bool:
        """Whether the batch, then the last groups of axes are stored in another order."""
        order = [*self.batch, *(axis for group in last for axis in group)]
        return self.view.wide != [axis for axis in order if axis in self.view.wide]

    def merged(self, build: Builder, *groups: Sequence[int]) -> Tensor:
        """The axes of the batch, then one for each group of axes."""
        tensor = build.arranged(
            self.view, [*self.batch, *(one for group in groups for one in group)]
        )
        sizes = [count(tuple(self.view.stored(axis) for axis in group)) for group in groups]
        return build.reshaped(tensor, (*tensor.shape[: len(self.batch)], *sizes))


@_of("dot_general")
def _dot_general(build: Builder, parameters: Parameters, *views: View) -> View:
    """MatMul of [batch..., free..., summed] and [batch..., summed, free]."""
    summed, batches = parameters["dimension_numbers"]
    dtype = parameters["preferred_element_type"] or views[0].dtype
    batch = len(batches[0])
    shape = [views[0].shape[axis] for axis in batches[0]]
    sides = []
    for view, own, own_batch in zip(views, summed, batches, strict=True):
        free = _others(view, *own, *own_batch)
        labels = list(range(len(shape), len(shape) + len(free)))
        shape += [view.shape[axis] for axis in free]
        sides.append(_Side(_computable(build, view), own_batch, free, own, labels))
    if batch:
        # What is stored as it should be stands where it can stay so.
        moves = [
            left.is_moved(left.free, left.summed) + right.is_moved(right.summed, right.free)
            for left, right in (sides, sides[::-1])
        ]
        swap = moves[1] < moves[0]
    else:
        # First the array with more free axes: they need no merging there.
        swap = len(sides[0].free) <= 1 < len(sides[1].free)
    left, right = sides[::-1] if swap else sides
    apart = not batch and len(left.free) > 0
    for side in (left, right):  # merged axes are stored in their full size
        merged = len(side.free) > 1 and not (side is left and apart)
        side.view = build.full(side.view, [*side.summed, *(side.free if merged else [])])
    groups = [[axis] for axis in left.free] if apart else [left.free]
    tensors = [
        left.merged(build, *groups, left.summed),
        right.merged(build, right.summed, right.free),
    ]
    outer = broadcast(tensor.shape[:-2] for tensor in tensors)
    product = build.add("MatMul", tensors, (*outer, tensors[0].shape[-2], tensors[1].shape[-1]))
    split = [[side.view.stored(axis) for axis in side.free] or [1] for side in (left, right)]
    product = build.reshaped(product, (*product.shape[:batch], *split[0], *split[1]))
    none: list[int | None] = [None]
    axes = (*range(batch), *(left.labels or none), *(right.labels or none))
    return build.cast(View(product, axes, tuple(shape)), dtype)


def _others(view: View, *axes: int) -> list[int]:
    return [axis for axis in range(len(view.shape)) if axis not in axes]


@_of("conv_general_dilated")
def _convolution(build: Builder, parameters: Parameters, lhs: View, rhs: View) -> View:
    numbers = parameters["dimension_numbers"]
    if parameters["batch_group_count"] != 1 or set(parameters["lhs_dilation"]) - {1}:
        raise _refuse("a convolution of groups of the batch, or with a dilated input")
    maps = build.arranged(build.full(lhs), numbers.lhs_spec)
    kernel = build.arranged(build.full(rhs), numbers.rhs_spec)
    windows = _windows(
        maps.shape[2:],
        kernel.shape[2:],
        parameters["window_strides"],
        parameters["padding"],
        parameters["rhs_dilation"],
    )
    stored = (maps.shape[0], kernel.shape[0], *windows.pop("sizes"))
    groups = parameters["feature_group_count"]
    tensor = build.add("Conv", [maps, kernel], stored, group=groups, **windows)
    shape = tuple(stored[numbers.out_spec.index(axis)] for axis in range(len(stored)))
    found = View(tensor, tuple(numbers.out_spec), shape)
    return build.cast(found, parameters["preferred_element_type"] or lhs.dtype)


def _windows(
    sizes: Sequence[int],
    window: Sequence[int],
    strides: Sequence[int],
    padding: Sequence[tuple[int, int]],
    dilations: Sequence[int],
) -> dict[str, Any]:
    """Attributes of a node with windows, and under `sizes` how many windows there are."""
    if min(pad for pads in padding for pad in pads) < 0:
        raise _refuse("a window with negative padding")
    numbers = [
        (size + low + high - dilation * (extent - 1) - 1) // stride + 1
        for size, extent, stride, (low, high), dilation in zip(
            sizes, window, strides, padding, dilations, strict=True
        )
    ]
    return {
        "sizes": numbers,
        "kernel_shape": list(window),
        "strides": list(strides),
        "pads": [low for low, _ in padding] + [high for _, high in padding],
        "dilations": list(dilations),
    }


def _pooled(op: str, build: Builder, parameters: Parameters, view: View) -> View:
    settings = [
        parameters[name]
        for name in ("window_dimensions", "window_strides", "padding", "window_dilation")
    ]
    if view.dtype.kind != "f" or set(parameters["base_dilation"]) - {1}:
        raise _refuse("a reduction over windows of integers, or of a dilated array")
    dilated = bool(set(parameters["window_dilation"]) - {1})
    if op == "AveragePool" and dilated:
        raise _refuse("a sum over dilated windows")
    slid = [
        axis
        for axis, own in enumerate(zip(*settings, strict=True))
        if own not in ((1, 1, (0, 0), 1),)
    ]
    if not slid:
        return view
    view = build.full(view)
    rest = [axis for axis in full_order(view) if axis not in slid]
    order = [*rest, *slid]
    tensor = build.arranged(view, order)
    sizes = tensor.shape[len(rest) :]
    windows = _windows(sizes, *([own[axis] for axis in slid] for own in settings))
    found = windows.pop("sizes")
    if op == "AveragePool":
        del windows["dilations"]
        windows["count_include_pad"] = 1
    batch, channels = rest[:1], rest[1:]
    outer = tuple(count(tuple(view.shape[axis] for axis in part)) for part in (batch, channels))
    tensor = build.reshaped(tensor, (*outer, *sizes))
    tensor = build.add(op, [tensor], (*outer, *found), **windows)
    tensor = build.reshaped(tensor, (*(view.shape[axis] for axis in rest), *found))
    shape = tuple(tensor.shape[order.index(axis)] for axis in range(len(order)))
    return View(tensor, tuple(order), shape)


@_of("reduce_window_max")
def _window_max(build: Builder, parameters: Parameters, view: View) -> View:
    return _pooled("MaxPool", build, parameters, view)


@_of("reduce_window_min")
def _window_min(build: Builder, parameters: Parameters, view: View) -> View:
    found = _pooled("MaxPool", build, parameters, build.elementwise("Neg", [view]))
    return build.elementwise("Neg", [found])


@_of("reduce_window_sum")
def _window_sum(build: Builder, parameters: Parameters, view: View) -> View:
    mean = _pooled("AveragePool", build, parameters, view)
    return build.elementwise("Mul", [mean, math.prod(parameters["window_dimensions"])])


# Indices


@_of("gather")
def _gather(build: Builder, parameters: Parameters, view: View, indices: View) -> View:
    """Slices where the indices are known and regular; else Gather.

    Where examples have indices of their own it is GatherND. Several indexed axes are merged into
    one.
    """
    numbers, sizes = parameters["dimension_numbers"], parameters["slice_sizes"]
    last = len(indices.shape) - 1
    rank = len(numbers.offset_dims) + last
    of_indices = [axis for axis in range(rank) if axis not in numbers.offset_dims]
    gone = {*numbers.collapsed_slice_dims, *numbers.operand_batching_dims}
    labels = dict(zip(_others(view, *gone), numbers.offset_dims, strict=True))
    shape = [0] * rank
    for place, axis in enumerate(of_indices):
        shape[axis] = indices.shape[place]
    for axis, label in labels.items():
        shape[label] = sizes[axis]

    parts: dict[int, View] = {}  # indices along each axis
    for number, axis in enumerate(numbers.start_index_map):
        part = _without(_sliced(build, indices, last, number, number + 1), [last])
        parts[axis] = _narrowed(build, _computable(build, part))
    for axis, size in enumerate(sizes):
        if axis in parts:
            known = build.scalar(parts[axis])
            if known is not None and known >= 0 and _fits(known + size, view.shape[axis]):
                view = _sliced(build, view, axis, known, known + size)
                del parts[axis]
        elif axis not in numbers.operand_batching_dims:
            view = _sliced(build, view, axis, 0, size)
    for axis, part in list(parts.items()):
        series = _series(build, part, view.shape[axis])
        others = [one for own, other in parts.items() if own != axis for one in other.wide]
        if series is not None and is_one(sizes[axis]) and part.wide[0] not in others:
            view = _sliced(build, view, axis, *series)
            labels[axis] = of_indices[part.wide[0]]
            del parts[axis]
    if last == 0 and parts and parameters["mode"] != lax.GatherScatterMode.FILL_OR_DROP:
        # One place for all, not known.
        starts = [parts.get(axis, build.view(np.int32(0))) for axis in range(len(sizes))]
        window = {
            "slice_sizes": [
                sizes[axis] if axis in parts else view.shape[axis] for axis in range(len(sizes))
            ]
        }
        view = _dynamic_slice(build, window, view, *starts)
        parts = {}
    for axis in parts:
        if not is_one(sizes[axis]) or not is_static((view.shape[axis],)):
            raise _refuse("a gather of several windows, or along the batch")

    index, inside = _linear_index(build, parameters["mode"], view, parts)
    apart = []  # axes of the batch with indices of their own, in the operand and in the indices
    for own, place in zip(
        numbers.operand_batching_dims, numbers.start_indices_batching_dims, strict=True
    ):
        if index is None or is_one(index.stored(place)):
            labels[own] = of_indices[place]  # the same indices for all
        else:
            apart.append((own, place))
    if index is None:
        return relabelled(view, labels, tuple(shape))
    found = _gathered(build, view, index, list(parts), apart, labels, of_indices)
    found = View(found.tensor, found.axes, tuple(shape))
    if inside is None:
        return found
    mask = relabelled(inside, dict(enumerate(of_indices)), tuple(shape))
    fill = parameters["fill_value"]
    if fill is None:
        kind = view.dtype.kind
        fill = math.nan if kind == "f" else np.iinfo(view.dtype).min if kind == "i" else -1
    value = build.view(np.asarray(fill).astype(view.dtype))
    return build.elementwise("Where", [mask, found, value])


def _fits(end: int, size: Any) -> bool:
    """Whether an axis has so many elements, whatever the batch."""
    return end <= size if isinstance(size, int) else end <= 1


def _narrowed(build: Builder, view: View) -> View:
    """Known values, each axis along which they do not change stored with size 1."""
    array = build.known(view.tensor)
    if array is None:
        return view
    for axis in range(array.ndim):
        first = array.take([0], axis)
        array = first if (array == first).all() else array
    return View(build.constant(array), view.axes, view.shape)


def _series(build: Builder, part: View, size: Any) -> tuple[int, int, int] | None:
    """Start, limit and step of known indices that are a series along one axis, within `size`."""
    known = build.known(part.tensor)
    if known is None or len(part.wide) != 1 or not isinstance(size, int):
        return None
    values = known.reshape(-1)
    steps = np.diff(values)
    if steps[0] < 1 or (steps != steps[0]).any() or values[0] < 0 or values[-1] >= size:
        return None
    return int(values[0]), int(values[-1]) + 1, int(steps[0])


def _gathered(
    build: Builder,
    view: View,
    index: View,
    indexed: Sequence[int],
    apart: Sequence[tuple[int, int]],
    labels: Mapping[int, int],
    of_indices: Sequence[int],
) -> View:
    """Elements at places in the merged indexed axes; `labels` are the other axes in the result."""
    batch, own_places = [own for own, _ in apart], [own for _, own in apart]
    view = build.full(view, [*indexed, *batch])
    rest = _others(view, *batch, *indexed)
    before = [axis for axis in rest if axis < min(indexed)] if not apart else []
    after = [axis for axis in rest if axis not in before]
    stored: list[int | None]
    if len(indexed) == 1 and not apart:
        data, place = view.tensor, view.place(indexed[0])
        stored = list(view.axes)
    else:
        data = build.arranged(view, [*batch, *before, *indexed, *after])
        place = len(batch) + len(before)
        merged = count(tuple(view.shape[axis] for axis in indexed))
        shape = (*data.shape[:place], merged, *data.shape[place + len(indexed) :])
        data = build.reshaped(data, shape)
        stored = [*batch, *before, None, *after]
    outer, inner = (
        [None if axis is None else labels.get(axis) for axis in part]
        for part in (stored[:place], stored[place + 1 :])
    )
    if apart:
        index = build.full(index, own_places)
        order = [*own_places, *(axis for axis in full_order(index) if axis not in own_places)]
        places = build.arranged(build.cast(index, np.int64), order)
        shape = (*places.shape, *data.shape[place + 1 :])
        places = build.reshaped(places, (*places.shape, 1))
        tensor = build.add("GatherND", [data, places], shape, batch_dims=len(apart))
        return View(tensor, (*(of_indices[axis] for axis in order), *inner), ())
    shape = (*data.shape[:place], *index.tensor.shape, *data.shape[place + 1 :])
    tensor = build.add("Gather", [data, index.tensor], shape, axis=place)
    # An axis that the indices have with size 1 may be one of the other axes.
    taken = {label for label in (*outer, *inner) if label is not None}
    named = [None if axis is None else of_indices[axis] for axis in index.axes]
    return View(tensor, (*outer, *(None if a in taken else a for a in named), *inner), ())


def _linear_index(
    build: Builder, mode: Any, view: View, parts: Mapping[int, View]
) -> tuple[View | None, View | None]:
    """Places in the merged indexed axes, inside them; and where they were asked for inside.

    The second is None where all are known to be inside, both are where no axis is indexed.
    """
    total: View | None = None
    inside: View | None = None
    axes = list(parts)
    for number, (axis, part) in enumerate(parts.items()):
        size = view.shape[axis]
        known = build.known(part.tensor)
        safe = known is not None and known.min() >= 0 and known.max() < size
        if not safe and mode != lax.GatherScatterMode.PROMISE_IN_BOUNDS:
            low, high = (_number(build, value, part.dtype) for value in (0, size - 1))
            held = _clamp(build, {}, low, part, high)
            if mode == lax.GatherScatterMode.FILL_OR_DROP:
                same = build.elementwise("Equal", [held, part], bool)
                inside = same if inside is None else build.elementwise("And", [inside, same])
            part = held
        stride = count(tuple(view.shape[other] for other in axes[number + 1 :]))
        if stride != 1:
            part = build.elementwise("Mul", [part, stride])
        total = part if total is None else build.elementwise("Add", [total, part])
    return total, inside
