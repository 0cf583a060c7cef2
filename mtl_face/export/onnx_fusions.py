"""What a built graph is made into before it is written: fewer and faster operators.

Batch norms go into their convolutions. Softmax, LayerNorm, GELU and PReLU, of which JAX sees only
the parts, become operators or the form of them that ONNX Runtime knows.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from mtl_face.export.onnx_builder import Builder, Node

Pattern = Any
"""The name of a constant or of anything, or an operator with the patterns of its inputs."""

_MEAN = ("Div", ("ReduceSum", "x", "axes"), "count")

_VARIANCE = (
    "Sub",
    ("Div", ("ReduceSum", ("Mul", "x", "x"), "axes"), "count"),
    ("Mul", _MEAN, _MEAN),
)

_LAYER_NORM = (
    "Add",
    (
        "Mul",
        ("Sub", "x", _MEAN),
        (
            "Mul",
            ("Reciprocal", ("Sqrt", ("Add", ("Relu", _VARIANCE), "epsilon"))),
            "scale",
        ),
    ),
    "bias",
)

_EXPONENTIAL = ("Exp", ("Sub", "x", ("ReduceMax", "x", "axes")))

_SOFTMAX = ("Div", _EXPONENTIAL, ("ReduceSum", _EXPONENTIAL, "axes"))

_GELU = (
    "Mul",
    ("Mul", "half", "x"),
    ("Sub", "one", ("Erf", ("Mul", ("Neg", "x"), "factor"))),
)

_PAIRS = (
    "Max",
    ("Slice", "x", "start", "limit", "axis", "step"),
    ("Slice", "x", "other_start", "other_limit", "axis", "step"),
)

_PRELU = ("Add", ("Relu", "x"), ("Mul", "slope", ("Min", "x", "zero")))


def fuse(build: Builder, outputs: Sequence[str]) -> None:
    """Rewrites the nodes of a graph with these outputs in place, and drops what nothing reads."""
    graph = _Graph(build, outputs)
    for pattern, rewrite in (
        (_LAYER_NORM, graph.layer_norm),
        (_SOFTMAX, graph.softmax),
        (_GELU, graph.gelu),
        (_PRELU, graph.prelu),
        (_PAIRS, graph.maxima_of_pairs),
    ):
        graph.replace(pattern, rewrite)
    graph.name_outputs()
    graph.drop_unread()
    graph.fold_scales()
    graph.drop_unread()


def _pool(window: list[int]) -> dict[str, Any]:
    return {"kernel_shape": window, "strides": window}


class _Graph:
    def __init__(self, build: Builder, outputs: Sequence[str]) -> None:
        self.build = build
        self.outputs = list(outputs)
        self.producers = {name: node for node in build.nodes for name in node.outputs}

    def replace(self, pattern: Pattern, rewrite: Callable[..., list[Node] | None]) -> None:
        """Puts others in the place of each node that ends such a pattern."""
        nodes: list[Node] = []
        for node in self.build.nodes:
            found = next(self._matches(pattern, node.outputs[0], {}), None)
            others = (None if found is None else rewrite(node, found)) or [node]
            nodes += others
            self.producers |= {name: other for other in others for name in other.outputs}
        self.build.nodes[:] = nodes

    def _matches(
        self, pattern: Pattern, name: str, bound: dict[str, str]
    ) -> Iterator[dict[str, str]]:
        """Ways to give the pattern's names tensors, so that it ends in the tensor."""
        if isinstance(pattern, str):
            if bound.get(pattern, name) == name:
                yield {**bound, pattern: name}
            return
        op, *parts = pattern
        node = self.producers.get(name)
        if node is None or node.op != op or len(node.inputs) != len(parts):
            return
        orders = [node.inputs]
        if op in ("Add", "Mul", "Min", "Max"):
            orders.append(node.inputs[::-1])
        for inputs in orders:
            yield from self._match_all(list(zip(parts, inputs, strict=True)), bound)

    def _match_all(
        self, pairs: list[tuple[Pattern, str]], bound: dict[str, str]
    ) -> Iterator[dict[str, str]]:
        if not pairs:
            yield bound
            return
        (pattern, name), *others = pairs
        for found in self._matches(pattern, name, bound):
            yield from self._match_all(others, found)

    def _values(self, name: str) -> Any:
        return self.build.constants.get(name)

    def _number(self, name: str) -> float | None:
        """The one value of a constant."""
        array = self._values(name)
        return float(array.item()) if array is not None and array.size == 1 else None

    def _last_axis(self, found: dict[str, str]) -> Any:
        """The size of the last axis of x if that alone is reduced; else None."""
        axes, shape = self._values(found["axes"]), self.build.tensor(found["x"]).shape
        alone = axes is not None and axes.tolist() == [len(shape) - 1]
        return shape[-1] if alone else None

    def layer_norm(self, node: Node, found: dict[str, str]) -> list[Node] | None:
        """LayerNormalization, of x over the last axis."""
        size, epsilon = self._last_axis(found), self._number(found["epsilon"])
        known = [self._values(found[name]) for name in ("scale", "bias")]
        if size is None or self._number(found["count"]) != size or epsilon is None:
            return None
        if any(array is None or array.size != size or array.shape[-1] != size for array in known):
            return None
        weights = [self.build.constant(array.reshape(size)).name for array in known]
        attributes = {"axis": -1, "epsilon": epsilon}
        inputs = [found["x"], *weights]
        return [Node("LayerNormalization", inputs, node.outputs, attributes, node.place)]

    def softmax(self, node: Node, found: dict[str, str]) -> list[Node] | None:
        """Softmax along the one axis that is reduced."""
        axes = self._values(found["axes"])
        if axes is None or axes.size != 1:
            return None
        return [Node("Softmax", [found["x"]], node.outputs, {"axis": axes.item()}, node.place)]

    def gelu(self, node: Node, found: dict[str, str]) -> list[Node] | None:
        """X (1 + erf(x factor)) / 2, in the order that ONNX Runtime takes for one operator."""
        factor = self._number(found["factor"])
        if (self._number(found["half"]), self._number(found["one"])) != (0.5, 1) or not factor:
            return None
        root = self.build.constant(1 / factor, self._values(found["factor"]).dtype).name
        steps = [
            ("Div", [found["x"], root]),
            ("Erf", ["scaled"]),
            ("Add", ["error", found["one"]]),
            ("Mul", [found["x"], "whole"]),
            ("Mul", ["product", found["half"]]),
        ]
        names = dict(zip(("scaled", "error", "whole", "product"), self._new(node, 4), strict=True))
        made = [[name] for name in names.values()]
        return [
            Node(op, [names.get(name, name) for name in inputs], outputs, {}, node.place)
            for (op, inputs), outputs in zip(steps, [*made, node.outputs], strict=True)
        ]

    def prelu(self, node: Node, found: dict[str, str]) -> list[Node] | None:
        """The larger of x and x times a slope, where no slope is above 1.

        On a CPU ONNX Runtime takes eight times as long for PRelu, and three times for what others
        stay.
        """
        slope = self._values(found["slope"])
        if self._number(found["zero"]) != 0 or slope is None or slope.max() > 1:
            return None
        (scaled,) = self._new(node, 1)
        return [
            Node("Mul", [found["x"], found["slope"]], [scaled], {}, node.place),
            Node("Max", [found["x"], scaled], node.outputs, {}, node.place),
        ]

    def maxima_of_pairs(self, node: Node, found: dict[str, str]) -> list[Node] | None:
        """MaxPool of even rows or columns and the odd ones after them; of both, one MaxPool."""
        shape = self.build.tensor(found["x"]).shape
        axis, step, *starts = (
            None if self._number(found[name]) is None else int(self._number(found[name]) or 0)
            for name in ("axis", "step", "start", "other_start")
        )
        if (
            len(shape) != 4
            or axis not in (2, 3)
            or step != 2
            or sorted(map(repr, starts)) != ["0", "1"]
        ):
            return None
        if shape[axis] % 2:
            return None
        window = [2 if place == axis else 1 for place in (2, 3)]
        source = found["x"]
        before = self.producers.get(source)
        if (
            before is not None
            and before.op == "MaxPool"
            and before.attributes == _pool(window[::-1])
        ):
            source, window = before.inputs[0], [2, 2]
        return [Node("MaxPool", [source], node.outputs, _pool(window), node.place)]

    def _new(self, node: Node, number: int) -> list[str]:
        return [f"{node.outputs[0]}_{part}" for part in range(number)]

    def name_outputs(self) -> None:
        """Lets the node that makes an output bear its name, where it is the only one to ask."""
        ends = [node for node in self.build.nodes if node.outputs[0] in self.outputs]
        renamed: dict[str, str] = {}
        for end in ends:
            (source,) = end.inputs
            if source in self.producers and source not in renamed:
                renamed[source] = end.outputs[0]
                self.build.nodes.remove(end)
        for node in self.build.nodes:
            node.inputs[:] = [renamed.get(name, name) for name in node.inputs]
            node.outputs[:] = [renamed.get(name, name) for name in node.outputs]

    def drop_unread(self) -> None:
        """Keeps the nodes that an output depends on."""
        read, kept = set(self.outputs), []
        for node in reversed(self.build.nodes):
            if not read.isdisjoint(node.outputs):
                kept.append(node)
                read |= set(node.inputs)
        self.build.nodes[:] = kept[::-1]

    def fold_scales(self) -> None:
        """Puts known scales and shifts of channels behind a convolution into it, in float64."""
        readers: dict[str, list[Node]] = {}
        for node in self.build.nodes:
            for name in node.inputs:
                readers.setdefault(name, []).append(node)
        for node in [node for node in self.build.nodes if node.op == "Conv"]:
            kernel = self._values(node.inputs[1])
            if kernel is None:
                continue
            weight, bias = kernel.astype(np.float64), np.zeros(len(kernel))
            folded: list[Node] = []
            end = node
            while True:
                after = readers.get(end.outputs[0], [])
                if len(after) != 1 or end.outputs[0] in self.outputs:
                    break
                step = self._of_channels(after[0], end.outputs[0], kernel)
                if step is None:
                    break
                scale, shift = step
                weight *= scale.reshape(-1, *[1] * (weight.ndim - 1))
                bias = bias * scale + shift
                end = after[0]
                folded.append(end)
            if folded:
                arrays = [array.astype(kernel.dtype) for array in (weight, bias)]
                node.inputs[1:] = [self.build.constant(array).name for array in arrays]
                node.outputs[:] = end.outputs
                for gone in folded:
                    gone.outputs[:] = [f"{end.outputs[0]}_folded"]

    def _of_channels(self, node: Node, name: str, kernel: Any) -> Any:
        """Scale and shift of each channel that a node applies to a convolution, float64 [C]."""
        if node.op not in ("Add", "Sub", "Mul", "Div") or node.inputs.count(name) != 1:
            return None
        (other,) = (each for each in node.inputs if each != name)
        values = self._values(other)
        if values is None or (node.op == "Div" and node.inputs[0] != name):
            return None
        shape = (1,) * (kernel.ndim - values.ndim) + values.shape
        if shape[0] != 1 or shape[1] not in (1, len(kernel)) or set(shape[2:]) - {1}:
            return None
        known = np.broadcast_to(values.astype(np.float64).reshape(-1), len(kernel))
        one, none = np.ones(len(kernel)), np.zeros(len(kernel))
        if node.op == "Mul":
            return known, none
        if node.op == "Div":
            return one / known, none
        if node.op == "Add":
            return one, known
        return (one, -known) if node.inputs[0] == name else (-one, known)
