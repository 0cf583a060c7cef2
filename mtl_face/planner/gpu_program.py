"""What a program for NVIDIA GPUs consists of: library calls, fusions, transposes, memory traffic.

XLA hands convolutions to cuDNN and products to cuBLASLt as calls whose inside it does not know: its
own cost analysis has neither their operations nor their bytes. Both follow from the shapes in the
text. Sizes are those of one device. Pure Python; imports no JAX.
"""

import collections
import math
import re
from collections.abc import Iterable, Iterator
from typing import Any

from mtl_face.planner import hlo
from mtl_face.planner.hlo import Instruction, Module

LARGE = 10**6
"""Bytes from which a transpose or copy is listed."""

_TARGET = re.compile(r'custom_call_target="__(cudnn|cublas)\$([\w$]+)"')
_DIM_LABELS = re.compile(r"dim_labels=\w+_(\w+)->\w+")
_CONTRACTING = re.compile(r'"lhs_contracting_dimensions":\[([^\]]*)\]')
_FREE = ("parameter", "constant", "tuple", "get-tuple-element", "bitcast", "after-all")
_PARTIAL = ("slice", "dynamic-slice", "gather")


def summary(module: Module, parameter_sizes: Iterable[int]) -> dict[str, Any]:
    """The program in figures.

    Returns:
        `kernels` (fusions that run), `fused_operations` (inside of them), `single_operations`
        (fusions of one operation); `libraries`: calls of equal `library`, `target` (as in the text:
        `convForward`, `lt$matmul`, ...), `dtype` (of the factors), `result_dtype` and `phase`, with
        their `count`, `flops` (a multiplication and an addition as two) and `bytes` (read and
        written, without the library's workspace); `transposes` and
        `copies` of activations of `LARGE` bytes and more: rows of equal `shape` and `source` with
        `count` and `bytes`; `parameter_copies`: bytes of all transposes and copies of arrays that
        have one of `parameter_sizes`, the elements of parameters and of their parts; `scatters`:
        additions to scattered places, which are atomic and slow, `count` and `bytes`;
        `moved_bytes`, see there.
    """
    fused = [
        [inner for inner in module.computations[item.called[0]] if inner.opcode not in _FREE]
        for _, items in module.sequences()
        for item in items
        if item.opcode == "fusion"
    ]
    activations, parameter_copies = _rearranged(module, set(parameter_sizes))
    scatters = [item for item in _all(module) if item.opcode == "scatter" and _size(item) >= LARGE]
    return {
        "kernels": len(fused),
        "fused_operations": sum(map(len, fused)),
        "single_operations": sum(len(inside) == 1 for inside in fused),
        "libraries": _libraries(module),
        "transposes": [row for row in activations if row["opcode"] == "transpose"],
        "copies": [row for row in activations if row["opcode"] == "copy"],
        "parameter_copies": parameter_copies,
        "scatters": {"count": len(scatters), "bytes": sum(map(_size, scatters))},
        "moved_bytes": moved_bytes(module),
    }


def moved_bytes(module: Module) -> int:
    """Bytes that the kernels and library calls of a step read and write.

    Each kernel reads each operand once, or the part that it slices or gathers, and writes its
    result once; what the caches keep is not known. Loops count as often as they run.
    """
    runs = module.runs()
    total = 0
    for name, items in module.sequences():
        by_name = {item.name: item for item in items}
        total += runs[name] * sum(_moved(item, by_name, module) for item in items)
    return total


def _moved(item: Instruction, by_name: dict[str, Instruction], module: Module) -> int:
    if item.opcode in _FREE or item.opcode.endswith("-done") or item.opcode in hlo.RUN_OTHERS:
        return 0
    sizes = [_size(by_name[name]) for name in item.operands if name in by_name]
    if item.opcode == "fusion":
        sizes = _read_by_fusion(module.computations[item.called[0]], sizes)
    if item.opcode.endswith("-start"):
        return 2 * sum(sizes)
    results = item.results
    if _TARGET.search(item.attributes):  # beside the result, the workspace
        results = results[:1]
    return sum(sizes) + sum(array.nbytes for array in results)


def _read_by_fusion(inside: list[Instruction], sizes: list[int]) -> list[int]:
    """Bytes that a fusion reads of each operand, of `sizes` bytes."""
    users = collections.defaultdict(list)
    for item in inside:
        for name in item.operands:
            users[name].append(item)
    by_name = {item.name: item for item in inside}

    def read(name: str) -> float:
        total = 0.0
        for user in users[name]:
            first = user.operands[0] == name
            if user.opcode in _PARTIAL and first:
                total += _size(user)
            elif user.opcode == "dynamic-update-slice" and first:
                total += _size(by_name[user.operands[1]])
            elif user.opcode == "bitcast":
                total += read(user.name)
            else:
                return math.inf
        return total

    sizes = list(sizes)
    for item in inside:
        if item.opcode == "parameter" and int(item.attributes) < len(sizes):
            place = int(item.attributes)
            sizes[place] = round(min(sizes[place], read(item.name)))
    return sizes


def _libraries(module: Module) -> list[dict[str, Any]]:
    rows: dict[tuple[str, ...], dict[str, Any]] = {}
    runs = module.runs()
    for name, items in module.sequences():
        by_name = {item.name: item for item in items}
        for item in items:
            target = _TARGET.search(item.attributes) if item.opcode == "custom-call" else None
            if target is None:
                continue
            operands = [by_name[operand] for operand in item.operands]
            alike = {
                "library": "cuDNN" if target[1] == "cudnn" else "cuBLAS",
                "target": target[2],
                "dtype": operands[0].results[0].dtype,
                "result_dtype": item.results[0].dtype,
                "phase": hlo.phase(item.source),
            }
            empty = {**alike, "count": 0, "flops": 0, "bytes": 0}
            row = rows.setdefault(tuple(alike.values()), empty)
            row["count"] += runs[name]
            row["flops"] += runs[name] * _flops(item, target, operands)
            row["bytes"] += runs[name] * (item.results[0].nbytes + sum(map(_size, operands)))
    return sorted(rows.values(), key=lambda row: -row["flops"])


def _flops(item: Instruction, target: re.Match[str], operands: list[Instruction]) -> int:
    result = item.results[0].sizes
    first, second = (operand.results[0].sizes for operand in operands[:2])
    if target[1] == "cudnn":
        kernel, output = second, result
        if target[2] == "convBackwardFilter":
            kernel, output = result, second
        elif target[2] == "convBackwardInput":
            output = first
        labels = _DIM_LABELS.search(item.attributes)
        # Grouped convolutions have a kernel with fewer input channels: the formula holds.
        channels = kernel[labels[1].index("o")] if labels else 1
        return 2 * math.prod(output) * math.prod(kernel) // channels
    contracting = _CONTRACTING.search(item.attributes)
    places = re.findall(r"\d+", contracting[1]) if contracting else ()
    return 2 * math.prod(result) * math.prod(first[int(place)] for place in places)


def _rearranged(module: Module, parameter_sizes: set[int]) -> tuple[list[dict[str, Any]], int]:
    """Large transposes and copies of activations by shape and source; bytes of the parameters'."""
    rows: dict[tuple[str, ...], dict[str, Any]] = {}
    of_parameters = 0
    for item in _all(module):
        if item.opcode not in ("transpose", "copy"):
            continue
        if item.results[0].elements in parameter_sizes:
            of_parameters += _size(item)
        elif _size(item) >= LARGE:
            array = item.results[0]
            shape = f"{array.dtype}[{','.join(map(str, array.sizes))}]"
            key = (item.opcode, shape, re.sub(r"\d+", "*", item.source))
            row = rows.setdefault(
                key,
                {"opcode": key[0], "shape": shape, "source": item.source, "count": 0, "bytes": 0},
            )
            row["count"] += 1
            row["bytes"] += _size(item)
    return sorted(rows.values(), key=lambda row: -row["bytes"]), of_parameters


def _size(item: Instruction) -> int:
    return sum(array.nbytes for array in item.results)


def _all(module: Module) -> Iterator[Instruction]:
    """The instructions that run, with those inside of fusions."""
    for _, items in module.sequences():
        for item in items:
            yield item
            if item.opcode == "fusion":
                yield from module.computations[item.called[0]]
