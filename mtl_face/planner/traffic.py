"""What a compiled step moves: between the devices, and within a chip.

Sizes are those of one device. Pure Python; imports no JAX.
"""

import collections
import dataclasses
import math
import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from mtl_face.planner.hlo import (
    BACKWARD,
    FORWARD,
    OTHER,
    RUN_OTHERS,
    Array,
    Instruction,
    Module,
    phase,
)

KINDS = (
    "all-reduce",
    "all-gather",
    "reduce-scatter",
    "all-to-all",
    "ragged-all-to-all",
    "collective-permute",
    "collective-broadcast",
)
"""The exchanges between devices, as the text names them."""

_MESH_GROUPS = re.compile(r"replica_groups=mesh\[([^\]]*)\](?:, device_ids=\(.*?\))? ?\{([^}]*)\}")

_KERNEL_ROWS = (3, 7)
"""Pieces in which the gradient of a convolution's kernel may come, see `model.convolution`."""


@dataclasses.dataclass(frozen=True)
class Collective:
    """One exchange between devices.

    Attributes:
        kind: one of `KINDS`.
        arrays: what each device holds after it (`reduce-scatter`: before it).
        group_size: devices that take part in one exchange.
        count: how often a step makes it.
        phase: `forward`, `backward` or `other`, by the code that its operands come from; of
            several, the last.
        source: place in the code. Of exchanges that the compiler merged, the first one's; of one
            without a name, its operands'.
        awaited: whether a convolution or matrix product of the forward pass needs its result.
    """

    kind: str
    arrays: tuple[Array, ...]
    group_size: int
    count: int
    phase: str
    source: str
    awaited: bool

    @property
    def nbytes(self) -> int:
        """Bytes of the arrays, once."""
        return sum(array.nbytes for array in self.arrays)

    @property
    def sent_bytes(self) -> float:
        """Bytes that a device sends in all `count` exchanges, in a ring, which sends least."""
        share = (self.group_size - 1) / self.group_size
        if self.kind == "all-reduce":
            return 2 * share * self.nbytes * self.count
        if self.kind in ("collective-permute", "collective-broadcast"):
            return float(self.nbytes * self.count)
        return share * self.nbytes * self.count


def collectives(module: Module, num_devices: int) -> list[Collective]:
    """Every exchange of a step on `num_devices`, in the order of the text."""
    found = []
    runs = module.runs()
    for name, instructions in module.computations.items():
        here = [item for item in instructions if item.opcode.removesuffix("-start") in KINDS]
        if not here or not runs.get(name):
            continue
        by_name = {item.name: item for item in instructions}
        awaited = _needed_by_forward(instructions)
        for instruction in here:
            kind = instruction.opcode.removesuffix("-start")
            sources = _sources(instruction, by_name)
            phases = {phase(source) for source in sources}
            size = group_size(instruction.attributes, num_devices)
            found.append(
                Collective(
                    kind=kind,
                    arrays=tuple(_payload(instruction, kind, size, by_name, module)),
                    group_size=size,
                    count=runs[name],
                    phase=next((one for one in (BACKWARD, FORWARD) if one in phases), OTHER),
                    source=next(filter(None, sources), ""),
                    awaited=instruction.name in awaited,
                )
            )
    return found


def group_size(attributes: str, num_devices: int) -> int:
    """Devices in one group of an exchange, from any of the ways in which the text writes it."""
    match = re.search(r"replica_groups=\[\d+(?:,\d+)*\]<=", attributes)
    if match:
        return int(re.findall(r"\d+", match[0])[-1])
    match = _MESH_GROUPS.search(attributes)
    if match:
        axes = {name: int(size) for name, size in re.findall(r"'([^']+)'=(\d+)", match[1])}
        return math.prod(axes[name] for name in re.findall(r"'([^':]+)'", match[2]))
    match = re.search(r"replica_groups=\{\{([\d,]*)\}", attributes)
    if match:
        return match[1].count(",") + 1
    return num_devices


def split_gradients(
    found: Sequence[Collective], parameter_sizes: Iterable[int], *, shards: int = 1
) -> tuple[list[tuple[Collective, int]], int]:
    """How much of each exchange is the gradient of a parameter.

    An array that is not of the forward pass and has as many elements as a parameter that is still
    without a gradient is that parameter's. (Under a batch norm of the global batch the same sums
    serve as gradients of scale and bias and as statistics of the backward pass.) Parameters are
    looked for in the largest exchanges first: among the small ones may be statistics. An exchange
    may be of one of the `shards` into which a large parameter is split.

    Returns:
        Each exchange with its bytes of gradients in all its runs, and the number of elements of
        parameters for which no exchange was found.
    """
    missing = {size: float(count) for size, count in collections.Counter(parameter_sizes).items()}
    gradient_bytes = [0] * len(found)
    for index in sorted(range(len(found)), key=lambda place: -found[place].nbytes):
        item = found[index]
        if item.phase == FORWARD or item.kind not in ("all-reduce", "reduce-scatter"):
            continue
        for array in item.arrays:
            for pieces in (1, shards, *_KERNEL_ROWS):
                if missing.get(array.elements * pieces, 0) > 1 / pieces - 1e-6:
                    missing[array.elements * pieces] -= 1 / pieces
                    gradient_bytes[index] += array.nbytes * item.count
                    break
    left = round(sum(size * count for size, count in missing.items()))
    return list(zip(found, gradient_bytes, strict=True)), left


def exchanges(
    found: list[Collective], parameter_sizes: list[int], *, shards: int = 1
) -> dict[str, Any]:
    """What the devices exchange in a step.

    Returns:
        `collectives`: rows of equal `kind`, `phase`, `role`, `group_size` with their `count`,
        `bytes` (of the arrays, over all), `largest` (bytes of one exchange), `dtypes` and
        `example` (a place in the code). `role` is `gradients` where most bytes are those, else
        `statistics`, `parameters` (an all-gather) or `other`.
        `gradients`: `bytes`, `expected_bytes` (each trained parameter once in float32), `dtypes`,
        and `missing_elements`, of parameters for whose gradient no exchange was found.
        `not_gradients`: `bytes` and `largest` of all else.
        `forward`: exchanges that the forward pass waits for: `count` and `bytes`.
        `sent_bytes`: what a device sends in a step, if all exchanges are rings.
    """
    split, missing = split_gradients(found, parameter_sizes, shards=shards)
    rows: dict[tuple[Any, ...], dict[str, Any]] = {}
    dtypes: set[str] = set()
    for item, gradient_bytes in split:
        role = _role(item, gradient_bytes)
        if role == "gradients":
            dtypes |= {array.dtype for array in item.arrays if array.elements > 1}
        alike = {
            "kind": item.kind,
            "phase": item.phase,
            "role": role,
            "group_size": item.group_size,
            "awaited_by_forward": item.awaited,
        }
        row = rows.setdefault(
            tuple(alike.values()),
            {**alike, "count": 0, "bytes": 0, "largest": 0, "dtypes": [], "example": item.source},
        )
        row["count"] += item.count
        row["bytes"] += item.nbytes * item.count
        row["largest"] = max(row["largest"], item.nbytes)
        row["dtypes"] = sorted({*row["dtypes"], *(array.dtype for array in item.arrays)})
    others = [(item, item.nbytes * item.count - gradient) for item, gradient in split]
    awaited = [item for item in found if item.awaited]
    return {
        "collectives": sorted(rows.values(), key=lambda row: -row["bytes"]),
        "gradients": {
            "bytes": sum(gradient for _, gradient in split),
            "expected_bytes": 4 * sum(parameter_sizes),
            "dtypes": sorted(dtypes),
            "missing_elements": missing,
        },
        "not_gradients": {
            "bytes": sum(left for _, left in others),
            "largest": max((left for _, left in others), default=0),
        },
        "forward": {
            "count": sum(item.count for item in awaited),
            "bytes": sum(item.nbytes * item.count for item in awaited),
        },
        "sent_bytes": sum(item.sent_bytes for item in found),
    }


def _role(item: Collective, gradient_bytes: int) -> str:
    if 2 * gradient_bytes > item.nbytes * item.count:
        return "gradients"
    if item.kind == "all-gather":
        return "parameters"
    if "/bn" in item.source or "_bn/" in item.source:
        return "statistics"
    return "other"


def _sources(instruction: Instruction, by_name: dict[str, Instruction]) -> list[str]:
    """Places in the code of an exchange and of what computed its operands.

    The merged gradients of a step may bear the name of a sum of the forward pass. A fusion without
    a name has put several arrays into one.
    """
    found = [instruction.source]
    for name in instruction.operands:
        producer = _producer(name, by_name)
        if producer is not None and not producer.source:
            producers = [_producer(before, by_name) for before in producer.operands]
            found += [one.source for one in producers if one is not None]
        elif producer is not None:
            found.append(producer.source)
    return found


def _producer(name: str, by_name: dict[str, Instruction]) -> Instruction | None:
    """What computed an operand, behind views and copies of it."""
    producer = by_name.get(name)
    while producer is not None and producer.opcode in ("get-tuple-element", "bitcast", "copy"):
        producer = by_name.get(producer.operands[0]) if producer.operands else None
    return producer


def _needed_by_forward(instructions: list[Instruction]) -> set[str]:
    """What the products of the forward pass depend on; instructions stand after their operands.

    A product that itself depends on the backward pass does not count, whatever its name: a fusion
    bears the name of one of its parts. A call of cuDNN or cuBLAS bears its own.
    """
    late: set[str] = set()
    for item in instructions:
        if phase(item.source) == BACKWARD or not late.isdisjoint(item.operands):
            late.add(item.name)
    needed: set[str] = set()
    for item in reversed(instructions):
        is_product = item.source.endswith(("conv_general_dilated", "dot_general"))
        known = 'custom_call_target="__cu' in item.attributes or item.name not in late
        of_forward = phase(item.source) == FORWARD and known
        if item.name in needed or (is_product and of_forward):
            needed.add(item.name)
            needed.update(item.operands)
    return needed


def _payload(
    instruction: Instruction,
    kind: str,
    group: int,
    by_name: dict[str, Instruction],
    module: Module,
) -> Iterator[Array]:
    """The arrays exchanged; a `-start` may also list its operands and its bookkeeping."""
    arrays = list(instruction.results)
    if instruction.opcode.endswith("-start"):
        if kind != "all-reduce":
            arrays = [array for array in arrays if array.elements > 1 or array.dtype[0] not in "us"]
            arrays = arrays[len(arrays) // 2 :]
        elif len(arrays) == 2 * len(instruction.operands):
            arrays = arrays[len(arrays) // 2 :]
    if len(arrays) == len(instruction.operands) == 1:
        arrays = _before_concatenation(_producer(instruction.operands[0], by_name), module, arrays)
    if kind == "reduce-scatter":
        arrays = [Array(array.dtype, (array.elements * group,)) for array in arrays]
    yield from arrays


def _before_concatenation(
    producer: Instruction | None, module: Module, arrays: list[Array]
) -> list[Array]:
    """The arrays that a GPU's compiler has put into one for an exchange; else `arrays` as given."""
    called = producer.called if producer is not None and producer.opcode == "fusion" else ()
    inside = [item for name in called for item in module.computations[name]]
    if not inside or inside[-1].opcode != "concatenate":
        return arrays
    parts = {item.name: item.results[0] for item in inside}
    return [parts[name] for name in inside[-1].operands]


# A TPU's compiler copies what will be needed soon from the chip's large memory (HBM) into a small
# one on the chip, and marks arrays that lie there with `S(1)` in their layout. Its own count of the
# bytes accessed adds up both, and the copies between them. Sizes here have the padding of the
# layout, as in that count: of a program that keeps nothing on the chip, what the instructions read
# and write adds up to the count to a thousandth (the paper's network at low effort).
_ON_CHIP = "S(1)"
_MOVE_NOTHING = (
    *RUN_OTHERS,
    *("parameter", "constant", "tuple", "get-tuple-element", "bitcast"),
    *("after-all", "optimization-barrier"),
)


def on_chip_bytes(module: Module) -> int:
    """Bytes that the instructions of a step read and write in the chip's own memory.

    Loops count once, as in the compiler's count. What is copied to or from the large memory counts
    with its end on the chip alone. 0 for programs of CPUs and GPUs, which keep nothing there.
    """
    return sum(_bytes(instructions) for _, instructions in module.sequences())


def _bytes(instructions: list[Instruction]) -> int:
    results = {item.name: sum(_sizes(item)) for item in instructions}
    total = 0
    for item in instructions:
        if item.opcode in _MOVE_NOTHING or item.opcode.endswith("-done"):
            continue
        if item.opcode in ("copy-start", "slice-start", "async-start"):
            # Its result lists both ends; of the larger one it reads a part as large as the smaller.
            ends = [array.padded_nbytes for array in item.results if array.sizes]
            part = min(filter(None, ends), default=0)
            total += sum(min(size, part) for size in _sizes(item))
        else:
            total += results[item.name] + sum(results.get(name, 0) for name in item.operands)
    return total


def _sizes(item: Instruction) -> list[int]:
    """Bytes of each array of a result that lies on the chip."""
    return [
        array.padded_nbytes for array in item.results if array.sizes and _ON_CHIP in array.layout
    ]
