"""What a compiled step moves within a chip, in the memory beside its arithmetic units.

A TPU's compiler copies what will be needed soon from the chip's large memory (HBM) into a small one
on the chip, and marks arrays that lie there with `S(1)` in their layout. Its own count of the bytes
accessed adds up both, and the copies between them. Sizes here have the padding of the layout, as
they have in that count: of a program that keeps nothing on the chip, what the instructions read and
write adds up to the count to a thousandth (the paper's network at low effort).
"""

import math
import re
from collections.abc import Iterator

from mtl_face.planner import hlo

_LAID_OUT = re.compile(r"\b(pred|bf16|tf32|[suf]\d+\w*|c\d+)\[([\d,]*)\]\{([\d,]*)([^}]*)\}")
_TILE = re.compile(r"T\(([\d,]+)\)")
_ON_CHIP = "S(1)"
_RUN_OTHERS = ("while", "conditional", "call")
_MOVE_NOTHING = (
    *_RUN_OTHERS,
    *("parameter", "constant", "tuple", "get-tuple-element", "bitcast"),
    *("after-all", "optimization-barrier"),
)


def on_chip_bytes(module: hlo.Module) -> int:
    """Bytes that the instructions of a step read and write in the chip's own memory.

    Loops count once, as in the compiler's count. What is copied to or from the large memory counts
    here with its end on the chip alone.

    Args:
        module: the program of one device.

    Returns:
        0 for a program that keeps nothing there, as those of CPUs and GPUs.
    """
    return sum(
        _bytes(module.computations[name]) for name in _sequences(module, module.entry, set())
    )


def _sequences(module: hlo.Module, name: str, seen: set[str]) -> Iterator[str]:
    """The computations whose instructions run one by one: not those within a fusion."""
    if name in seen or name not in module.computations:
        return
    seen.add(name)
    yield name
    for item in module.computations[name]:
        if item.opcode in _RUN_OTHERS:
            for called in item.called:
                yield from _sequences(module, called, seen)


def _bytes(instructions: list[hlo.Instruction]) -> int:
    results = {item.name: sum(_sizes(item.result_type)) for item in instructions}
    total = 0
    for item in instructions:
        if item.opcode in _MOVE_NOTHING or item.opcode.endswith("-done"):
            continue
        if item.opcode in ("copy-start", "slice-start", "async-start"):
            # Its result lists both ends; of the larger one it reads a part as large as the smaller.
            part = _smallest(item.result_type)
            total += sum(min(size, part) for size in _sizes(item.result_type))
        else:
            total += results[item.name] + sum(results.get(name, 0) for name in item.operands)
    return total


def _sizes(result_type: str) -> list[int]:
    """Bytes of each array of a type that lies on the chip."""
    if _ON_CHIP not in result_type:
        return []
    return [size for size, layout in _arrays(result_type) if _ON_CHIP in layout]


def _smallest(result_type: str) -> int:
    sizes = [size for size, _ in _arrays(result_type) if size > 0]
    return min(sizes, default=0)


def _arrays(result_type: str) -> Iterator[tuple[int, str]]:
    """Bytes with padding, and layout, of each array with dimensions."""
    for dtype, dimensions, order, layout in _LAID_OUT.findall(result_type):
        if dimensions:
            sizes = [int(size) for size in dimensions.split(",")]
            minor_to_major = [int(place) for place in order.split(",") if place]
            elements = math.prod(_padded(sizes, minor_to_major, layout))
            yield elements * hlo.bits(dtype) // 8, layout


def _padded(sizes: list[int], minor_to_major: list[int], layout: str) -> list[int]:
    """Sizes rounded up to whole tiles; the first tile of a layout is the largest."""
    tile = _TILE.search(layout)
    if tile is None:
        return sizes
    padded = list(sizes)
    for place, length in zip(minor_to_major, reversed(tile[1].split(",")), strict=False):
        padded[place] = -(-sizes[place] // int(length)) * int(length)
    return padded
