"""JAX's primitives as operators of ONNX: shapes, slices and paddings."""

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np

from mtl_face.export.onnx_builder import (
    Builder,
    View,
    full_order,
    is_one,
    is_static,
    relabelled,
)
from mtl_face.export.onnx_elementwise import Parameters, as_view, clamp, refuse, translates

_LAST = np.iinfo(np.int64).max


@translates("broadcast_in_dim")
def _broadcast_in_dim(
    build: Builder, parameters: Parameters, view: View, *dynamic_sizes: View
) -> View:
    places = dict(enumerate(parameters["broadcast_dimensions"]))
    return relabelled(view, places, tuple(parameters["shape"]))


@translates("transpose")
def _transpose(build: Builder, parameters: Parameters, view: View) -> View:
    order = parameters["permutation"]
    places = {old: new for new, old in enumerate(order)}
    return relabelled(view, places, tuple(view.shape[axis] for axis in order))


@translates("squeeze")
def _squeeze(build: Builder, parameters: Parameters, view: View) -> View:
    return without(view, parameters["dimensions"])


def without(view: View, dropped: Sequence[int]) -> View:
    """The array without these axes, which are stored with size 1 or not at all."""
    kept = [axis for axis in range(len(view.shape)) if axis not in dropped]
    places = {old: new for new, old in enumerate(kept)}
    return relabelled(view, places, tuple(view.shape[axis] for axis in kept))


@translates("reshape")
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


@translates("concatenate")
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
    return View(tensor, tuple(order), resized(views[0].shape, axis, total))


@translates("tile")
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


@translates("stack")
def _stack(build: Builder, parameters: Parameters, *views: View) -> View:
    axis, rank = parameters["axis"], len(views[0].shape)
    axis %= rank + 1
    places = {old: old + (old >= axis) for old in range(rank)}
    shape = (*views[0].shape[:axis], 1, *views[0].shape[axis:])
    parts = [relabelled(view, places, shape) for view in views]
    return _concatenate(build, {"dimension": axis}, *parts)


@translates("unstack")
def _unstack(build: Builder, parameters: Parameters, view: View) -> list[View]:
    axis = parameters["axis"] % len(view.shape)
    parts = [sliced(build, view, axis, place, place + 1) for place in range(view.shape[axis])]
    return [without(part, [axis]) for part in parts]


def resized(shape: Sequence[Any], axis: int, size: Any) -> tuple[Any, ...]:
    """The shape with another size of one axis."""
    return (*shape[:axis], size, *shape[axis + 1 :])


@translates("pad")
def _pad(build: Builder, parameters: Parameters, view: View, value: View) -> View:
    config = parameters["padding_config"]
    if any(interior for _, _, interior in config):
        raise refuse("pad between elements")
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


@translates("slice")
def _slice(build: Builder, parameters: Parameters, view: View) -> View:
    starts, limits = parameters["start_indices"], parameters["limit_indices"]
    steps = parameters["strides"] or (1,) * len(starts)
    for axis, (start, limit, step) in enumerate(zip(starts, limits, steps, strict=True)):
        view = sliced(build, view, axis, start, limit, step)
    return view


def sliced(build: Builder, view: View, axis: int, start: Any, limit: Any, step: int = 1) -> View:
    """Every `step`-th of the elements from `start` to before `limit` along an axis."""
    size = view.shape[axis]
    if isinstance(start, int) and (start, limit, step) == (0, size, 1):
        return view
    length = -(-(limit - start) // step)
    shape = resized(view.shape, axis, length)
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
    tensor = build.add("Slice", inputs, resized(view.tensor.shape, place, length))
    return View(tensor, view.axes, shape)


def _counted_from_an_end(place: Any, size: Any) -> int:
    """A place as ONNX counts it: from the end of an axis below 0."""
    if isinstance(place, int):
        return place
    before_end = place - size
    if not isinstance(before_end, int):
        raise refuse("a slice whose ends depend on the size of the batch")
    return before_end if before_end < 0 else _LAST


@translates("split")
def _split(build: Builder, parameters: Parameters, view: View) -> list[View]:
    ends = np.cumsum([0, *parameters["sizes"]]).tolist()
    axis = parameters["axis"]
    return [sliced(build, view, axis, start, limit) for start, limit in itertools.pairwise(ends)]


@translates("rev")
def _rev(build: Builder, parameters: Parameters, view: View) -> View:
    places = [view.place(axis) for axis in parameters["dimensions"] if axis in view.axes]
    if not places:
        return view
    ends = [[-1] * len(places), [-_LAST] * len(places), places, [-1] * len(places)]
    inputs = [view.tensor, *(build.constant(end, np.int64) for end in ends)]
    return View(build.add("Slice", inputs, view.tensor.shape), view.axes, view.shape)


@translates("iota")
def _iota(build: Builder, parameters: Parameters, *dynamic_sizes: View) -> View:
    shape, axis = tuple(parameters["shape"]), parameters["dimension"]
    dtype = np.dtype(parameters["dtype"])
    if isinstance(shape[axis], int):
        return View(build.constant(np.arange(shape[axis], dtype=dtype)), (axis,), shape)
    ends = [build.constant(value, np.int64) for value in (0, 1)]
    limit = build.reshaped(build.size(shape[axis]), ())
    numbers = View(build.add("Range", [ends[0], limit, ends[1]], (shape[axis],)), (axis,), shape)
    return build.cast(numbers, dtype)


@translates("dimension_as_value", "dim_as_value")
def _dimension_as_value(build: Builder, parameters: Parameters) -> View:
    size = View(build.reshaped(build.size(parameters["dim"]), ()), (), ())
    return build.cast(size, np.int32)


@translates("dynamic_slice")
def dynamic_slice(build: Builder, parameters: Parameters, view: View, *starts: View) -> View:
    """A window whose place may be computed; it is moved inside, as JAX does."""
    for axis, (start, length) in enumerate(zip(starts, parameters["slice_sizes"], strict=True)):
        size, known = view.shape[axis], build.scalar(start)
        if length == size:
            continue
        shape = resized(view.shape, axis, length)
        if known is not None and is_static((size,)):
            known = min(max(known, 0), size - length)
            view = sliced(build, view, axis, known, known + length)
            continue
        if not is_static((size,)):
            raise refuse("a slice along the batch")
        view = build.full(view, [axis])
        start = clamp(
            build, {}, *(as_view(build, each, np.int64) for each in (0, start, size - length))
        )
        first = build.reshaped(start.tensor, (1,))
        limit = build.add("Add", [first, build.constant([length], np.int64)], (1,))
        place = view.place(axis)
        inputs = [view.tensor, first, limit, build.constant([place], np.int64)]
        tensor = build.add("Slice", inputs, resized(view.tensor.shape, place, length))
        view = View(tensor, view.axes, shape)
    return view


def other_axes(view: View, *axes: int) -> list[int]:
    """The axes of an array but these."""
    return [axis for axis in range(len(view.shape)) if axis not in axes]
