"""The text of a compiled program, read into computations and instructions.

The text is that of an optimised, partitioned module (`compiled.as_text()`), the program of one
device: sizes in it are sizes on one device. Pure Python; imports no JAX.
"""

import collections
import dataclasses
import math
import re
from collections.abc import Iterator

FORWARD, BACKWARD, OTHER = "forward", "backward", "other"

RUN_OTHERS = ("while", "conditional", "call")
"""Operations that run the instructions of other computations one by one."""

_BITS = {"pred": 8, "token": 0, "opaque": 0, "bf16": 16, "tf32": 32}
_TYPES = r"\b(pred|token|opaque|bf16|tf32|[suf]\d+\w*|c\d+)"
_ARRAY = re.compile(_TYPES + r"\[([\d,<=]*)\](?:\{([\d,]*)([^}]*)\})?")
_TILE = re.compile(r"T\(([\d,]+)\)")
_COMPUTATION = re.compile(r"^(ENTRY )?%?([\w.-]+) (?:\(.*\) -> .* )?\{$")
_INSTRUCTION = re.compile(r"^\s+(?:ROOT )?%?([\w.-]+) = ")
_OPCODE = re.compile(r"\s([a-z][\w-]*)\(")
_CALLED = re.compile(r"\b(?:calls|to_apply|body|condition)=%?([\w.-]+)")
_BRANCHES = re.compile(r"\bbranch_computations=\{([^}]*)\}")
_TRIPS = re.compile(r'"known_trip_count":\{"n":"(\d+)"')
_SOURCE = re.compile(r'op_name="([^"]*)"')
_OPERAND = re.compile(r"%([\w.-]+)")


@dataclasses.dataclass(frozen=True)
class Array:
    """An array on one device.

    Attributes:
        dtype: as in the text.
        sizes: of its axes.
        minor_to_major: its axes in the order of memory, where the text says it.
        layout: the rest of its layout, as in the text: `:T(8,128)(2,1)S(1)`.
    """

    dtype: str
    sizes: tuple[int, ...]
    minor_to_major: tuple[int, ...] = ()
    layout: str = ""

    @property
    def elements(self) -> int:
        """Their number, without padding."""
        return math.prod(self.sizes)

    @property
    def nbytes(self) -> int:
        """Bytes without the padding of any layout."""
        return self.elements * _bits(self.dtype) // 8

    @property
    def padded_nbytes(self) -> int:
        """Bytes in whole tiles; the first tile of a layout is the largest."""
        padded = list(self.sizes)
        tile = _TILE.search(self.layout)
        lengths = tile[1].split(",")[::-1] if tile else ()
        for axis, length in zip(self.minor_to_major, lengths, strict=False):
            padded[axis] = -(-padded[axis] // int(length)) * int(length)
        return math.prod(padded) * _bits(self.dtype) // 8


@dataclasses.dataclass(frozen=True)
class Instruction:
    """One line of the text.

    Attributes:
        name: unique in its computation.
        opcode: as in the text, `all-reduce-start` for one.
        results: its result, the parts of a tuple one by one.
        operands: names of the instructions that it reads.
        source: the place in the code, as JAX names it; "" if none.
        called: computations that it runs.
        trips: how often a loop runs; 1 for all else, 0 if the compiler does not know.
        attributes: the rest of the line; of a constant, its value, of a parameter, its number.
    """

    name: str
    opcode: str
    results: tuple[Array, ...]
    operands: tuple[str, ...]
    source: str
    called: tuple[str, ...]
    trips: int
    attributes: str


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

    def sequences(self) -> Iterator[tuple[str, list[Instruction]]]:
        """The computations whose instructions run one by one: not those within a fusion."""
        seen, waiting = set(), [self.entry]
        while waiting:
            name = waiting.pop()
            if name in seen or name not in self.computations:
                continue
            seen.add(name)
            yield name, self.computations[name]
            for item in self.computations[name]:
                waiting += item.called if item.opcode in RUN_OTHERS else ()


def parse(text: str) -> Module:
    """Reads the text of a module; raises ValueError if it has no entry."""
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


def phase(source: str) -> str:
    """Whether a place in the code belongs to the forward or the backward pass."""
    if "transpose(" in source:
        return BACKWARD
    return FORWARD if "jvp(" in source else OTHER


def _bits(dtype: str) -> int:
    return _BITS[dtype] if dtype in _BITS else int(re.findall(r"\d+", dtype)[0])


def _with_trips(item: Instruction, computations: dict[str, list[Instruction]]) -> Instruction:
    """A loop with its length where only the condition has it, as `number < constant`.

    JAX writes a loop over an array so; it counts from 0 in ones.
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
        results=tuple(
            Array(dtype, _integers(sizes), _integers(order), layout)
            for dtype, sizes, order, layout in _ARRAY.findall(line, match.end(), opcode.start())
        ),
        operands=tuple(_OPERAND.findall(operands)),
        source=metadata[1] if metadata else "",
        called=tuple(called),
        trips=trips,
        attributes=operands if opcode[1] in ("constant", "parameter") else attributes,
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


def _integers(text: str) -> tuple[int, ...]:
    return tuple(map(int, re.findall(r"\d+", text)))
