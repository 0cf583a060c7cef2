"""JAX's gather as operators of ONNX."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jax import lax

from mtl_face.export.onnx_builder import (
    Builder,
    View,
    count,
    full_order,
    is_one,
    is_static,
    relabelled,
)
from mtl_face.export.onnx_elementwise import (
    Parameters,
    as_view,
    clamp,
    computable,
    refuse,
    translates,
)
from mtl_face.export.onnx_shapes import dynamic_slice, other_axes, sliced, without


@translates("gather")
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
    labels = dict(zip(other_axes(view, *gone), numbers.offset_dims, strict=True))
    shape = [0] * rank
    for place, axis in enumerate(of_indices):
        shape[axis] = indices.shape[place]
    for axis, label in labels.items():
        shape[label] = sizes[axis]

    parts: dict[int, View] = {}  # indices along each axis
    for number, axis in enumerate(numbers.start_index_map):
        part = without(sliced(build, indices, last, number, number + 1), [last])
        parts[axis] = _narrowed(build, computable(build, part))
    for axis, size in enumerate(sizes):
        if axis in parts:
            known = build.scalar(parts[axis])
            if known is not None and known >= 0 and _fits(known + size, view.shape[axis]):
                view = sliced(build, view, axis, known, known + size)
                del parts[axis]
        elif axis not in numbers.operand_batching_dims:
            view = sliced(build, view, axis, 0, size)
    for axis, part in list(parts.items()):
        series = _series(build, part, view.shape[axis])
        others = [one for own, other in parts.items() if own != axis for one in other.wide]
        if series is not None and is_one(sizes[axis]) and part.wide[0] not in others:
            view = sliced(build, view, axis, *series)
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
        view = dynamic_slice(build, window, view, *starts)
        parts = {}
    for axis in parts:
        if not is_one(sizes[axis]) or not is_static((view.shape[axis],)):
            raise refuse("a gather of several windows, or along the batch")

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
    rest = other_axes(view, *batch, *indexed)
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
            low, high = (as_view(build, value, part.dtype) for value in (0, size - 1))
            held = clamp(build, {}, low, part, high)
            if mode == lax.GatherScatterMode.FILL_OR_DROP:
                same = build.elementwise("Equal", [held, part], bool)
                inside = same if inside is None else build.elementwise("And", [inside, same])
            part = held
        stride = count(tuple(view.shape[other] for other in axes[number + 1 :]))
        if stride != 1:
            part = build.elementwise("Mul", [part, stride])
        total = part if total is None else build.elementwise("Add", [total, part])
    return total, inside
