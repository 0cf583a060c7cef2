"""JAX's primitives as operators of ONNX: reductions, sorting, products, and sliding windows."""

import dataclasses
import functools
import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from mtl_face.export.onnx_builder import Builder, Tensor, View, broadcast, count, full_order
from mtl_face.export.onnx_elementwise import (
    OPERATIONS,
    Operation,
    Parameters,
    computable,
    refuse,
    translates,
)
from mtl_face.export.onnx_shapes import other_axes, resized, without


def _reduced(build: Builder, op: str, view: View, axes: Sequence[int], **attributes: Any) -> View:
    """A reduction that keeps the axes, stored with size 1; the array loses them."""
    places = [view.place(axis) for axis in axes if axis in view.axes]
    shape = tuple(1 if place in places else size for place, size in enumerate(view.tensor.shape))
    inputs = [view.tensor, build.constant(sorted(places), np.int64)]
    tensor = build.add(op, inputs, shape, keepdims=1, **attributes) if places else view.tensor
    return without(View(tensor, view.axes, view.shape), axes)


def _reduction(op: str, *, counts: bool) -> Operation:
    """`counts`: whether it matters how often an element is repeated."""

    def operation(build: Builder, parameters: Parameters, view: View) -> View:
        axes = parameters["axes"]
        wide = computable(build, build.full(view, axes) if counts else view)
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


@translates("argmax")
def _argmax(build: Builder, parameters: Parameters, view: View, *, op: str = "ArgMax") -> View:
    (axis,) = parameters["axes"]
    view = computable(build, build.full(view, [axis]))
    place = view.place(axis)
    shape = resized(view.tensor.shape, place, 1)
    tensor = build.add(op, [view.tensor], shape, np.int64, axis=place, keepdims=1)
    found = without(View(tensor, view.axes, view.shape), [axis])
    return build.cast(found, parameters["index_dtype"])


OPERATIONS["argmin"] = functools.partial(_argmax, op="ArgMin")


@translates("cumsum")
def _cumsum(build: Builder, parameters: Parameters, view: View) -> View:
    axis = parameters["axis"]
    view = build.full(view, [axis])
    inputs = [view.tensor, build.constant(view.place(axis), np.int64)]
    tensor = build.add("CumSum", inputs, view.tensor.shape, reverse=int(parameters["reverse"]))
    return View(tensor, view.axes, view.shape)


@translates("top_k")
def _top_k(build: Builder, parameters: Parameters, view: View) -> list[View]:
    axis = parameters.get("axis", len(view.shape) - 1) % len(view.shape)
    values, places = _sorted(build, view, axis, parameters["k"], largest=1)
    return [values, build.cast(places, np.int32)]


@translates("sort")
def _sort(build: Builder, parameters: Parameters, *views: View) -> list[View]:
    if parameters["num_keys"] != 1:
        raise refuse("sort by several keys")
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
    shape, order = resized(view.shape, axis, size), full_order(view)
    tensor = build.arranged(build.full(view), order)
    place = order.index(axis)
    stored = resized(tensor.shape, place, size)
    found = build.add_several(
        "TopK",
        [tensor, build.constant([size], np.int64)],
        [(stored, view.dtype), (stored, np.int64)],
        axis=place,
        largest=largest,
    )
    return [View(one, tuple(order), shape) for one in found]


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


@translates("dot_general")
def _dot_general(build: Builder, parameters: Parameters, *views: View) -> View:
    """MatMul of [batch..., free..., summed] and [batch..., summed, free]."""
    summed, batches = parameters["dimension_numbers"]
    dtype = parameters["preferred_element_type"] or views[0].dtype
    batch = len(batches[0])
    shape = [views[0].shape[axis] for axis in batches[0]]
    sides = []
    for view, own, own_batch in zip(views, summed, batches, strict=True):
        free = other_axes(view, *own, *own_batch)
        labels = list(range(len(shape), len(shape) + len(free)))
        shape += [view.shape[axis] for axis in free]
        sides.append(_Side(computable(build, view), own_batch, free, own, labels))
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


@translates("conv_general_dilated")
def _convolution(build: Builder, parameters: Parameters, lhs: View, rhs: View) -> View:
    numbers = parameters["dimension_numbers"]
    if parameters["batch_group_count"] != 1 or set(parameters["lhs_dilation"]) - {1}:
        raise refuse("a convolution of groups of the batch, or with a dilated input")
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
        raise refuse("a window with negative padding")
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
        raise refuse("a reduction over windows of integers, or of a dilated array")
    dilated = bool(set(parameters["window_dilation"]) - {1})
    if op == "AveragePool" and dilated:
        raise refuse("a sum over dilated windows")
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


@translates("reduce_window_max")
def _window_max(build: Builder, parameters: Parameters, view: View) -> View:
    return _pooled("MaxPool", build, parameters, view)


@translates("reduce_window_min")
def _window_min(build: Builder, parameters: Parameters, view: View) -> View:
    found = _pooled("MaxPool", build, parameters, build.elementwise("Neg", [view]))
    return build.elementwise("Neg", [found])


@translates("reduce_window_sum")
def _window_sum(build: Builder, parameters: Parameters, view: View) -> View:
    mean = _pooled("AveragePool", build, parameters, view)
    return build.elementwise("Mul", [mean, math.prod(parameters["window_dimensions"])])
