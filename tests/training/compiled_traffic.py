"""What devices exchange in a compiled step, and which convolutions wait for it, from its text."""

import dataclasses
import math
import re

COLLECTIVES = ("all-gather", "all-reduce", "reduce-scatter", "collective-permute", "all-to-all")

_OPERATION = re.compile(r"\s+(?:ROOT )?%([\w.-]+) = (.*?) ([a-z][\w-]*)\((.*)")
_NAME = re.compile(r'op_name="([^"]*)"')
_ARRAY = re.compile(r"\b[a-z]+\d*\[([\d,]*)\]")


@dataclasses.dataclass(frozen=True)
class Operation:
    """One operation of the program.

    Attributes:
        kind: as in the text, `all-reduce` for one.
        sizes: elements of each of its results.
        operands: names of the operations that it needs.
        source: the place in the network's code, as JAX names it.
    """

    kind: str
    sizes: tuple[int, ...]
    operands: tuple[str, ...]
    source: str

    @property
    def is_collective(self) -> bool:
        return self.kind.removesuffix("-start") in COLLECTIVES

    @property
    def is_forward_convolution(self) -> bool:
        # A convolution may have become a matrix product or a call of a library.
        return (
            self.kind in ("convolution", "dot", "custom-call", "fusion", "call")
            and self.source.endswith("conv_general_dilated")
            and "transpose(jvp" not in self.source
        )


def operations(text: str) -> dict[str, Operation]:
    """Operations of the program's entry by name, in the order in which they are computed."""
    entry = text[text.index("\nENTRY ") :].splitlines()[2:]
    found = {}
    for line in entry:
        match = _OPERATION.match(line)
        if match is None:
            continue
        name, results, kind, rest = match.groups()
        source = _NAME.search(rest)
        found[name] = Operation(
            kind,
            tuple(
                math.prod(int(n) for n in dims.split(",") if n) for dims in _ARRAY.findall(results)
            ),
            tuple(re.findall(r"%([\w.-]+)", rest.split("metadata=")[0])),
            source[1] if source else "",
        )
    return found


def collectives(text: str) -> list[Operation]:
    """All exchanges; none may hide outside the entry."""
    found = [operation for operation in operations(text).values() if operation.is_collective]
    kinds = "|".join(COLLECTIVES)
    assert len(re.findall(rf" (?:{kinds})(?:-start)?\(", text)) == len(found)
    return found


def forward_convolutions(text: str) -> dict[str, bool]:
    """Forward convolutions by their place in the code: whether each needs an exchange's result."""
    after: dict[str, bool] = {}
    found: dict[str, bool] = {}
    for name, operation in operations(text).items():
        waits = any(after.get(operand, False) for operand in operation.operands)
        after[name] = waits or operation.is_collective
        if operation.is_forward_convolution:
            found[operation.source] = found.get(operation.source, False) or waits
    return found
