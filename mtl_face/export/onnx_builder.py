"""An ONNX graph while it is built: tensors, and views that say where a tensor keeps each axis.

JAX names axes by their place; a convolution of ONNX wants channels second. A `View` lets both be
right: it pairs a tensor as it is stored with the axes of the array that it stands for. Transposing,
broadcasting, and adding or dropping axes of size 1 make another view of the same tensor. A
Transpose is written where an operation needs another order, so a network of convolutions has one
at its start and one at its end.

Constants are folded when a node is added. Equal nodes are added once.
"""

import dataclasses
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mtl_face.weights.card import ExportError

OPSET = 18
"""The first in which all reductions take their axes alike and integers have bitwise operations.
ONNX Runtime reads it since 1.14, in browsers too; nothing newer is needed."""

BATCH = "batch"
"""Name of the batch's size, in the graph and in symbolic shapes."""

Shape = tuple[Any, ...]
"""Sizes of axes: integers, or multiples of the symbolic size of a batch."""

_SMALL = 64  # elements up to which equal constants are one


@dataclasses.dataclass(frozen=True)
class Tensor:
    """A tensor of the graph as it is stored."""

    name: str
    shape: Shape
    dtype: np.dtype

    def __post_init__(self) -> None:
        object.__setattr__(self, "shape", _plain_integers(self.shape))


@dataclasses.dataclass(frozen=True)
class View:
    """An array of the traced program, held by a tensor.

    Attributes:
        tensor: what is stored.
        axes: for each axis of the tensor the axis of the array that it holds; None for one of size
            1 that the array does not have. Axes of the array that are missing here, or that are
            stored with size 1, are broadcast.
        shape: of the array.
    """

    tensor: Tensor
    axes: tuple[int | None, ...]
    shape: Shape

    def __post_init__(self) -> None:
        object.__setattr__(self, "shape", _plain_integers(self.shape))

    @property
    def dtype(self) -> np.dtype:
        """Of the elements."""
        return self.tensor.dtype

    def stored(self, axis: int) -> Any:
        """The stored size of an axis of the array; 1 where it is broadcast."""
        return self.tensor.shape[self.axes.index(axis)] if axis in self.axes else 1

    def place(self, axis: int) -> int:
        """Where the tensor keeps an axis that is stored."""
        return self.axes.index(axis)

    @property
    def wide(self) -> list[int]:
        """Axes of the array that are stored with a size other than 1, in stored order."""
        pairs = zip(self.axes, self.tensor.shape, strict=True)
        return [axis for axis, size in pairs if axis is not None and not is_one(size)]


@dataclasses.dataclass
class Node:
    """An operation; `place` is the scope in the traced program that it comes from."""

    op: str
    inputs: list[str]
    outputs: list[str]
    attributes: dict[str, Any]
    place: str


def _plain_integers(shape: Shape) -> Shape:
    """Python's integers in place of NumPy's, which come from paddings."""
    return tuple(int(size) if isinstance(size, np.integer) else size for size in shape)


def is_one(size: Any) -> bool:
    """Whether a size is 1 whatever the batch."""
    return isinstance(size, int) and size == 1


def is_static(shape: Shape) -> bool:
    """Whether no size depends on the batch."""
    return all(isinstance(size, int) for size in shape)


def broadcast(shapes: Iterable[Shape]) -> Shape:
    """The shape of an elementwise operation's result, by NumPy's rules."""
    shapes = list(shapes)
    rank = max(map(len, shapes))
    padded = [(1,) * (rank - len(shape)) + tuple(shape) for shape in shapes]
    return tuple(
        next((size for size in sizes if not is_one(size)), 1) for sizes in zip(*padded, strict=True)
    )


class Builder:
    """Collects nodes and constants. `place` names the scope of those that are added next."""

    def __init__(self, batch: Any) -> None:
        from onnx import helper, reference

        self._make_node = helper.make_node
        self._tensor_type = helper.np_dtype_to_tensor_dtype
        self._evaluator = reference.ReferenceEvaluator
        self._known: dict[Any, list[Tensor]] = {}
        self._small_constants: dict[Any, Tensor] = {}
        self._producers: dict[str, Node] = {}
        self._tensors: dict[str, Tensor] = {}
        self._count = 0
        self.batch = batch
        self.place = ""
        self.inputs: dict[str, Tensor] = {}
        self.nodes: list[Node] = []
        self.constants: dict[str, NDArray[Any]] = {}

    # Tensors

    def input(self, name: str, shape: Shape, dtype: Any) -> View:
        """A named input of the graph."""
        tensor = self.inputs[name] = Tensor(name, shape, np.dtype(dtype))
        return View(tensor, tuple(range(len(shape))), shape)

    def constant(self, value: Any, dtype: Any = None) -> Tensor:
        """A tensor of known values; small ones that are equal are one tensor."""
        array = np.asarray(value, dtype)
        key: Any = (array.dtype, array.shape, array.tobytes()) if array.size <= _SMALL else None
        if key in self._small_constants:
            return self._small_constants[key]
        tensor = Tensor(self._name("constant"), array.shape, array.dtype)
        self.constants[tensor.name] = array
        if key is not None:
            self._small_constants[key] = tensor
        return tensor

    def known(self, tensor: Tensor) -> NDArray[Any] | None:
        """The values of a constant; None of others."""
        return self.constants.get(tensor.name)

    def scalar(self, view: View) -> Any:
        """The one value of a constant that is the same everywhere; None of others."""
        array = self.known(view.tensor)
        return array.item() if array is not None and array.size == 1 else None

    def add(
        self, op: str, inputs: Sequence[Tensor], shape: Shape, dtype: Any = None, **attributes: Any
    ) -> Tensor:
        """The result of a node with one output; its dtype is the first input's by default."""
        (tensor,) = self.add_several(op, inputs, [(shape, dtype or inputs[0].dtype)], **attributes)
        return tensor

    def add_several(
        self,
        op: str,
        inputs: Sequence[Tensor],
        outputs: Sequence[tuple[Shape, Any]],
        **attributes: Any,
    ) -> list[Tensor]:
        """The results of a node, each of a shape and dtype."""
        key = (op, *(tensor.name for tensor in inputs), *sorted(map(repr, attributes.items())))
        if key in self._known:
            return self._known[key]
        names = [self._name(op) for _ in outputs]
        node = Node(op, [tensor.name for tensor in inputs], names, attributes, self.place)
        if all(tensor.name in self.constants for tensor in inputs):
            found = [self.constant(array) for array in self._evaluated(node)]
        else:
            self.nodes.append(node)
            found = [
                Tensor(name, shape, np.dtype(dtype))
                for name, (shape, dtype) in zip(names, outputs, strict=True)
            ]
            self._producers |= dict.fromkeys(names, node)
            self._tensors |= dict(zip(names, found, strict=True))
        self._known[key] = found
        return found

    def producer(self, tensor: Tensor) -> Node | None:
        """The node that makes a tensor; None of inputs and constants."""
        return self._producers.get(tensor.name)

    def tensor(self, name: str) -> Tensor:
        """An input, a constant or the result of a node, by name."""
        if name in self.constants:
            array = self.constants[name]
            return Tensor(name, array.shape, array.dtype)
        return self.inputs.get(name) or self._tensors[name]

    def named_output(self, name: str, view: View) -> Tensor:
        """An output of the graph, in the array's own order of axes."""
        tensor = self.plain(view)
        output = Tensor(name, tensor.shape, tensor.dtype)
        self.nodes.append(Node("Identity", [tensor.name], [name], {}, ""))
        return output

    def _evaluated(self, node: Node) -> list[NDArray[Any]]:
        proto = self._make_node(node.op, node.inputs, node.outputs, **node.attributes)
        evaluator = self._evaluator(proto, opsets={"": OPSET})
        with np.errstate(all="ignore"):
            known = {name: self.constants[name] for name in set(node.inputs)}
            return list(evaluator.run(None, known))

    def _name(self, op: str) -> str:
        self._count += 1
        return f"{self.place}/{op}_{self._count}"

    # Views

    def view(self, array: Any) -> View:
        """A known array."""
        tensor = self.constant(array)
        return View(tensor, tuple(range(len(tensor.shape))), tensor.shape)

    def arranged(self, view: View, order: Sequence[int], *, trim: bool = False) -> Tensor:
        """The tensor with its axes in this order of the array's axes; broadcast ones have size 1.

        With `trim` leading axes of size 1 may be missing.
        """
        tensor, axes = view.tensor, list(view.axes)
        wide = view.wide
        if wide != [axis for axis in order if axis in wide]:
            places = sorted(
                range(len(axes)), key=lambda place: (axes[place] in wide, _rank(order, axes[place]))
            )
            shape = tuple(tensor.shape[place] for place in places)
            tensor = self.add("Transpose", [tensor], shape, perm=places)
        shape = tuple(view.stored(axis) for axis in order)
        if trim:
            while (
                shape
                and is_one(shape[0])
                and (len(shape) > len(tensor.shape) or self.known(tensor) is not None)
            ):
                shape = shape[1:]
        return self.reshaped(tensor, shape)

    def reshaped(self, tensor: Tensor, shape: Shape) -> Tensor:
        """The same elements in another shape, of which one size may depend on the batch."""
        before = self.producer(tensor)
        if before is not None and before.op == "Reshape":
            tensor = self.tensor(before.inputs[0])
        if tensor.shape == shape:
            return tensor
        array = self.known(tensor)
        if array is not None:
            return self.constant(array.reshape(shape))
        dynamic = [size for size in shape if not isinstance(size, int)]
        if len(dynamic) == 1:
            sizes = [size if isinstance(size, int) else -1 for size in shape]
            target = self.constant(sizes, np.int64)
        else:
            target = self.sizes(shape)
        return self.add("Reshape", [tensor, target], shape)

    def sizes(self, shape: Shape) -> Tensor:
        """The sizes as a tensor, int64 [rank]."""
        if is_static(shape):
            return self.constant(np.asarray(shape, np.int64))
        return self.add("Concat", [self.size(size) for size in shape], (len(shape),), axis=0)

    def size(self, size: Any) -> Tensor:
        """A size as a tensor, int64 [1]."""
        if isinstance(size, int):
            return self.constant([size], np.int64)
        multiple = size // self.batch
        if not isinstance(multiple, int) or size != multiple * self.batch:
            raise ExportError(f"in {self.place}: the size {size} is no multiple of the batch's")
        first = next(iter(self.inputs.values()))
        batch = self.add("Shape", [first], (1,), np.int64, start=0, end=1)
        if multiple == 1:
            return batch
        return self.add("Mul", [batch, self.constant([multiple], np.int64)], (1,))

    def full(self, view: View, axes: Iterable[int] | None = None) -> View:
        """The view with these axes of the array, or all, stored in their full size."""
        wanted = set(range(len(view.shape)) if axes is None else axes)
        if all(view.stored(axis) == view.shape[axis] for axis in wanted):
            return view
        order = full_order(view)
        tensor = self.arranged(view, order)
        shape = tuple(view.shape[axis] if axis in wanted else view.stored(axis) for axis in order)
        tensor = self.add("Expand", [tensor, self.sizes(shape)], shape)
        return View(tensor, tuple(order), view.shape)

    def plain(self, view: View) -> Tensor:
        """The array itself: all axes in their order and full size."""
        return self.arranged(self.full(view), range(len(view.shape)))

    def elementwise(
        self, op: str, views: Sequence[View | float], dtype: Any = None, **attributes: Any
    ) -> View:
        """An operation on each element; numbers are of the dtype of the first view."""
        like = next(view for view in views if isinstance(view, View))
        found = [
            view if isinstance(view, View) else self.view(np.asarray(view, like.dtype))
            for view in views
        ]
        shape = broadcast(view.shape for view in found)
        dtype = np.dtype(dtype or found[-1].dtype)
        leader = max(found, key=lambda view: (len(view.wide), self.known(view.tensor) is None))
        scalars = [view is not leader and self.scalar(view) is not None for view in found]
        if all(one or view.axes == leader.axes for one, view in zip(scalars, found, strict=True)):
            tensors = [
                self.reshaped(view.tensor, ()) if one else view.tensor
                for one, view in zip(scalars, found, strict=True)
            ]
            stored = broadcast(tensor.shape for tensor in tensors)
            return View(self.add(op, tensors, stored, dtype, **attributes), leader.axes, shape)
        order = full_order(leader)
        tensors = [self.arranged(view, order, trim=True) for view in found]
        stored = broadcast(tensor.shape for tensor in tensors)
        tensor = self.add(op, tensors, stored, dtype, **attributes)
        # What was folded has the shape that it has.
        return View(tensor, tuple(order[len(order) - len(tensor.shape) :]), shape)

    def cast(self, view: View, dtype: Any) -> View:
        """The elements as another dtype."""
        dtype = np.dtype(dtype)
        if dtype == view.dtype:
            return view
        return self.elementwise("Cast", [view], dtype, to=self._tensor_type(dtype))


def full_order(view: View) -> list[int]:
    """The array's axes as the tensor has them; missing ones where they ask for least work."""
    missing = [axis for axis in range(len(view.shape)) if axis not in view.axes]
    order: list[int] = []
    for axis in view.axes:
        if axis is not None:
            order.append(axis)
        elif missing:
            order.append(missing.pop(0))
    for axis in missing:
        order.insert(order.index(axis - 1) + 1 if axis - 1 in order else 0, axis)
    return order


def relabelled(view: View, axes: Mapping[int, int], shape: Shape) -> View:
    """Another array of the same tensor: each axis by what it is in the new one, if it stays."""
    labels = tuple(None if axis is None else axes.get(axis) for axis in view.axes)
    return View(view.tensor, labels, shape)


def count(shape: Shape) -> Any:
    """Number of elements."""
    return math.prod(shape)


def _rank(order: Sequence[int], axis: int | None) -> int:
    return -1 if axis is None or axis not in order else list(order).index(axis)
