"""What the devices exchange in a compiled step, from its text.

The text is that of an optimised, partitioned module (`compiled.as_text()`), the program of one
device: sizes in it are sizes on one device. Pure Python; imports no JAX.
"""

import collections
import dataclasses
import math
import re
from collections.abc import Iterable, Iterator, Sequence

KINDS = (
    "all-reduce",
    "all-gather",
    "reduce-scatter",
    "all-to-all",
    "ragged-all-to-all",
    "collective-permute",
    "collective-broadcast",
)
"""The exchanges, as the text names them."""

FORWARD, BACKWARD, OTHER = "forward", "backward", "other"

_BITS = {"pred": 8, "token": 0, "opaque": 0, "bf16": 16, "tf32": 32}
_ARRAY = re.compile(r"\b(pred|token|opaque|bf16|tf32|[suf]\d+\w*|c\d+)\[([\d,<=]*)\]")
_COMPUTATION = re.compile(r"^(ENTRY )?%?([\w.-]+) (?:\(.*\) -> .* )?\{$")
_INSTRUCTION = re.compile(r"^\s+(?:ROOT )?%?([\w.-]+) = ")
_OPCODE = re.compile(r"\s([a-z][\w-]*)\(")
_CALLED = re.compile(r"\b(?:calls|to_apply|body|condition)=%?([\w.-]+)")
_BRANCHES = re.compile(r"\bbranch_computations=\{([^}]*)\}")
_TRIPS = re.compile(r'"known_trip_count":\{"n":"(\d+)"')
_SOURCE = re.compile(r'op_name="([^"]*)"')
_MESH_GROUPS = re.compile(r"replica_groups=mesh\[([^\]]*)\](?:, device_ids=\(.*?\))? ?\{([^}]*)\}")
_OPERAND = re.compile(r"%([\w.-]+)")


@dataclasses.dataclass(frozen=True)
class Array:
    """Type and number of elements of an array on one device."""

    dtype: str
    elements: int

    @property
    def nbytes(self) -> int:
        """Bytes without the padding of any layout."""
        return self.elements * bits(self.dtype) // 8


@dataclasses.dataclass(frozen=True)
class Instruction:
    """One line of the text.

    Attributes:
        name: unique in its computation.
        opcode: as in the text, `all-reduce-start` for one.
        results: its result, the parts of a tuple one by one.
        operands: names of the instructions that it reads.
        source: the place in the program's code, as JAX names it; "" if none.
        called: computations that it runs.
        trips: how often a loop runs; 1 for all else, 0 if the compiler does not know.
        attributes: the rest of the line; of a constant, its value.
        result_type: the result as in the text, with its layout.
    """

    name: str
    opcode: str
    results: tuple[Array, ...]
    operands: tuple[str, ...]
    source: str
    called: tuple[str, ...]
    trips: int
    attributes: str
    result_type: str


@dataclasses.dataclass(frozen=True)
class Module:
    """Computations by name, instructions in the order of the text, and the one that is run."""

    computations: dict[str, list[Instruction]]
    entry: str

    def runs(self) -> dict[str, int]:
        """How often each computation runs in one call of the entry; absent ones never.

        A loop of unknown length counts once.
        """
        runs: collections.Counter[str] = collections.Counter()

        def visit(name: str, times: int) -> None:
            runs[name] += times
            for instruction in self.computations.get(name, ()):
                for called in instruction.called:
                    visit(called, times * max(instruction.trips, 1))

        visit(self.entry, 1)
        return dict(runs)


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
        source: place in the code. Of exchanges that the compiler merged, the first one's.
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


def parse(text: str) -> Module:
    """Reads the text of a module.

    Raises:
        ValueError: it has no entry.
    """
    computations: dict[str, list[Instruction]] = {}
    current: list[Instruction] = []
    entry = None
    for line in text.splitlines():
        if line.startswith((" ", "\t")):
            instruction = _instruction(line)
            if instruction is not None:
                current.append(instruction)
            continue
        match = _COMPUTATION.match(line)
        if match is not None:
            current = computations.setdefault(match[2], [])
            entry = match[2] if match[1] else entry
    if entry is None:
        raise ValueError("the text is no module of HLO: it has no ENTRY")
    return Module(
        {
            name: [_with_trips(item, computations) for item in instructions]
            for name, instructions in computations.items()
        },
        entry,
    )


def collectives(module: Module, num_devices: int) -> list[Collective]:
    """Every exchange of a step, in the order of the text, those within loops with their count.

    Args:
        module: of one device.
        num_devices: that run it, the size of a group that the text does not tell.
    """
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
            size = group_size(instruction.attributes, num_devices)
            found.append(
                Collective(
                    kind=kind,
                    arrays=tuple(_payload(instruction, kind, size)),
                    group_size=size,
                    count=runs[name],
                    phase=_phase_of_operands(instruction, by_name),
                    source=instruction.source,
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


def phase(source: str) -> str:
    """Whether a place in the code belongs to the forward or the backward pass."""
    if "transpose(" in source:
        return BACKWARD
    return FORWARD if "jvp(" in source else OTHER


_KERNEL_ROWS = (3, 7)
"""Pieces in which the gradient of a convolution's kernel may come, see `model.convolution`."""


def split_gradients(
    found: Sequence[Collective], parameter_sizes: Iterable[int], *, shards: int = 1
) -> tuple[list[tuple[Collective, int]], int]:
    """How much of each exchange is the gradient of a parameter.

    An array that is not of the forward pass and has as many elements as a parameter that is still
    without a gradient is that parameter's. (Under a batch norm of the global batch the same sums
    serve as gradients of scale and bias and as statistics of the backward pass.) Parameters are
    looked for in the largest exchanges first: among the small ones may be statistics.

    Args:
        found: the exchanges.
        parameter_sizes: elements of each parameter.
        shards: parts into which large parameters are split; an exchange may be of one part.

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


def _phase_of_operands(instruction: Instruction, by_name: dict[str, Instruction]) -> str:
    """The merged gradients of a step may bear the name of a sum of the forward pass."""
    phases = {phase(instruction.source)}
    for operand in instruction.operands:
        producer = by_name.get(operand)
        while producer is not None and producer.opcode in ("get-tuple-element", "bitcast", "copy"):
            producer = by_name.get(producer.operands[0]) if producer.operands else None
        if producer is not None:
            phases.add(phase(producer.source))
    return BACKWARD if BACKWARD in phases else FORWARD if FORWARD in phases else OTHER


def _needed_by_forward(instructions: list[Instruction]) -> set[str]:
    """What the products of the forward pass depend on; instructions stand after their operands.

    A product that itself depends on the backward pass is none of the forward pass, whatever its
    name: of what the compiler fused it bears one name.
    """
    late: set[str] = set()
    for item in instructions:
        if phase(item.source) == BACKWARD or not late.isdisjoint(item.operands):
            late.add(item.name)
    needed: set[str] = set()
    for item in reversed(instructions):
        is_product = item.source.endswith(("conv_general_dilated", "dot_general"))
        of_forward = phase(item.source) == FORWARD and item.name not in late
        if item.name in needed or (is_product and of_forward):
            needed.add(item.name)
            needed.update(item.operands)
    return needed


def _with_trips(item: Instruction, computations: dict[str, list[Instruction]]) -> Instruction:
    """A loop with its length, if the text says so only in the condition, as `number < constant`.

    That is how JAX writes a loop over an array; it counts from 0 in ones.
    """
    if item.opcode != "while" or item.trips:
        return item
    condition = re.search(r"condition=%?([\w.-]+)", item.attributes)
    instructions = computations.get(condition[1], []) if condition else []
    literals = {one.name: one.attributes for one in instructions if one.opcode == "constant"}
    for one in instructions:
        if one.opcode == "compare" and "direction=LT" in one.attributes:
            value = literals.get(one.operands[-1], "")
            if value.isdigit():
                return dataclasses.replace(item, trips=int(value))
    return item


def _instruction(line: str) -> Instruction | None:
    match = _INSTRUCTION.match(line)
    if match is None:
        return None
    opcode = _OPCODE.search(line, match.end() - 1)
    if opcode is None:
        return None
    operands, attributes = _split_operands(line, opcode.end())
    metadata = _SOURCE.search(attributes)
    called = [*_CALLED.findall(attributes)]
    for branches in _BRANCHES.findall(attributes):
        called += _OPERAND.findall(branches)
    trips = 1
    if opcode[1] == "while":
        known = _TRIPS.search(attributes)
        trips = int(known[1]) if known else 0
    return Instruction(
        name=match[1],
        opcode=opcode[1],
        results=tuple(_arrays(line[match.end() : opcode.start()])),
        result_type=line[match.end() : opcode.start()],
        operands=tuple(_OPERAND.findall(operands)),
        source=metadata[1] if metadata else "",
        called=tuple(called),
        trips=trips,
        attributes=operands if opcode[1] == "constant" else attributes,
    )


def _split_operands(line: str, begin: int) -> tuple[str, str]:
    depth = 1
    for place in range(begin, len(line)):
        if line[place] == "(":
            depth += 1
        elif line[place] == ")":
            depth -= 1
            if depth == 0:
                return line[begin:place], line[place + 1 :]
    return line[begin:], ""


def _arrays(text: str) -> Iterator[Array]:
    for dtype, dimensions in _ARRAY.findall(text):
        sizes = [int(n.lstrip("<=")) for n in dimensions.split(",") if n]
        yield Array(dtype, math.prod(sizes))


def _payload(instruction: Instruction, kind: str, group: int) -> Iterator[Array]:
    """The arrays exchanged; a `-start` also lists its operands and its bookkeeping."""
    arrays = list(instruction.results)
    if instruction.opcode.endswith("-start") and kind != "all-reduce":
        arrays = [array for array in arrays if array.elements > 1 or array.dtype[0] not in "us"]
        arrays = arrays[len(arrays) // 2 :]
    if kind == "reduce-scatter":
        arrays = [Array(array.dtype, array.elements * group) for array in arrays]
    yield from arrays


def bits(dtype: str) -> int:
    """Bits of one number."""
    if dtype in _BITS:
        return _BITS[dtype]
    return int(re.findall(r"\d+", dtype)[0])
