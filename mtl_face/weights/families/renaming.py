"""Tables of names: which tensors of a file are which arrays of a network.

A line of a table is a name of the network, then the names that files give the same tensor, without
`.weight` and `.bias`. A `*` is a number, in the network counted from 1, in files from 0. What is
found bears the network's name in PyTorch's words and layout, whatever the file: a convolution has
`.weight` [O, I, H, W] and `.bias`, a dense layer `.weight` [O, I], a norm `.weight` and `.bias`.

Kernel letters: H W height and width, I O channels in and out.
"""

import dataclasses
import functools
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Generic, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from mtl_face.errors import WeightsError, shortened
from mtl_face.weights.file_content import Entry, FileContent, reason, shape_text

Shapes = Mapping[str, tuple[int, ...]]
"""Shapes of a network's arrays by their paths, joined by `/`."""

Scheme = TypeVar("Scheme")

_LEAVES = {"kernel": "weight", "scale": "weight", "bias": "bias"}
"""Names of arrays in the network, and in PyTorch's words."""

_MOST_SHOWN = 3

_WHOLE = "give a file of one of the networks that docs/weights.md names, whole"


@dataclasses.dataclass(frozen=True)
class Naming:
    """A scheme of names.

    Attributes:
        title: whose names they are.
        marks: a tensor that gives the scheme away, and others of which it has at least one.
        table: see the top of this file.
        inside: what begins the names of the backbone's parts; others are left out.
        unused: tensors inside that no forward pass reads.
    """

    title: str
    marks: tuple[str, tuple[str, ...]]
    table: str
    inside: re.Pattern[str]
    unused: re.Pattern[str] = re.compile(r"(bias_mask|periods|mask_token|position_ids)$")

    @functools.cached_property
    def _patterns(self) -> list[tuple[re.Pattern[str], str]]:
        found = []
        for line in filter(None, map(str.split, self.table.splitlines())):
            ours, *theirs = line
            for name in theirs:
                text = re.escape(name).replace(r"\*", r"(\d+)")
                found.append((re.compile(text + r"(?:[._](weight|bias))?"), ours))
        return found

    def own_name(self, name: str) -> str | None:
        """The network's name of a tensor, in PyTorch's words; None if the table has none."""
        for pattern, ours in self._patterns:
            match = pattern.fullmatch(name)
            if match is not None:
                *numbers, word = match.groups()
                for number in numbers:
                    ours = ours.replace("*", str(int(number) + 1), 1)
                return f"{ours}.{word}" if word else ours
        return None


@dataclasses.dataclass(frozen=True)
class NamedTensors:
    """A network that was found in a file.

    Attributes:
        title: whose names the file has; `mtl_face` of an export.
        tensors: by the network's names in PyTorch's words.
        left_out: the file's others by its own names.
        own: whether kernels lie as the network has them, [H, W, I, O] and [I, O].
    """

    title: str
    tensors: dict[str, Entry]
    left_out: dict[str, Entry]
    own: bool = False


IMAGENET = ((123.675, 116.28, 103.53), (58.395, 57.12, 57.375))
"""Mean and deviation of R, G, B in 0..255."""


DINOV3_LICENCE = "DINOv3 License: redistribution under its terms, with an acknowledgement"


class Known(NamedTuple):
    """What is known of a family of networks and is in no tensor.

    `licence` is as those who published the weights state it, `trained_on` names data sets.
    """

    family: str
    colours: tuple[tuple[float, float, float], tuple[float, float, float]] = IMAGENET
    norm_epsilon: float = 1e-6
    activation: str = "gelu"
    licence: str | None = None
    trained_on: tuple[str, ...] = ()
    note: str | None = None


Size = TypeVar("Size")


@dataclasses.dataclass(frozen=True)
class InFile(Generic[Size]):
    """A network that was found: its tensors, its size, and what is known of its family."""

    found: NamedTensors
    size: Size
    known: Known


def find(
    content: FileContent, namings: tuple[Naming, ...], path: Path, prefix: str | None
) -> NamedTensors:
    """Finds the network that one of the schemes names, or that of an export.

    `prefix` chooses one of several, by what stands before its names; `.` is the one without.

    Raises:
        WeightsError: it holds several without a prefix, or tensors that no table knows.
    """
    if content.card is not None:
        tensors = {
            name.removeprefix("backbone."): entry
            for name, entry in content.tensors.items()
            if name.startswith("backbone.")
        }
        others = {n: e for n, e in content.tensors.items() if not n.startswith("backbone.")}
        return NamedTensors("mtl_face", tensors, others, own=True)
    naming, start = choose(networks(content.tensors, namings), path, prefix)
    tensors, left_out, unknown = {}, {}, []
    for name, entry in content.tensors.items():
        inner = name.removeprefix(start)
        ours = naming.own_name(inner) if name.startswith(start) else None
        if ours is not None and ours not in tensors:  # of two by one name, the first
            tensors[ours] = entry
        elif name.startswith(start) and naming.inside.match(inner):
            if naming.unused.search(inner):
                left_out[name] = entry
            else:
                unknown.append(entry.shown)
        else:
            left_out[name] = entry
    if unknown:
        raise WeightsError(
            f"has {len(unknown)} tensors in its blocks that this network has no use for: "
            + ", ".join(shortened(unknown, _MOST_SHOWN)),
            path=path,
            remedy="it is another network; docs/weights.md names those that are read",
        )
    return NamedTensors(naming.title, tensors, left_out)


def networks(names: Mapping[str, Any], namings: tuple[Naming, ...]) -> list[tuple[Naming, str]]:
    """Scheme and prefix of each network among the names of tensors, the shortest prefix first."""
    found = []
    for naming in namings:
        mark, others = naming.marks
        for name in names:
            start = name.removesuffix(mark)
            begins = start != name and (not start or start.endswith("."))
            if begins and any(start + other in names for other in others):
                found.append((naming, start))
    return sorted(found, key=lambda item: (len(item[1]), item[1]))


def choose(found: list[tuple[Scheme, str]], path: Path, prefix: str | None) -> tuple[Scheme, str]:
    """The network under a prefix, or the only one.

    Raises:
        WeightsError: there are several, or none under the prefix.
    """
    prefixes = [repr(start or ".") for _, start in found]
    if prefix is not None:
        asked = prefix.rstrip(".")
        found = [network for network in found if network[1].rstrip(".") == asked]
    if len(found) == 1:
        return found[0]
    problem = f"holds {len(prefixes)} networks, under {', '.join(shortened(prefixes, 8))}"
    if prefix is not None:
        problem = f"holds no network under {prefix!r}, but under {', '.join(prefixes[:8])}"
    raise WeightsError(
        problem,
        path=path,
        remedy=f"choose one, as --prefix={prefixes[0]} for run.py weights, "
        f"--config.model.backbone.init_prefix={prefixes[0]} for run.py train",
    )


def read(
    found: NamedTensors, expected: Shapes, path: Path, *, zero: frozenset[str] = frozenset()
) -> dict[str, NDArray[np.float32]]:
    """Reads all arrays of a network.

    Those of `zero` that the file lacks are 0. Axes of length 1 make no difference to arrays that
    are no kernels.

    Returns:
        Arrays by the network's names, as `params/block1/attention/query/kernel`, float32.

    Raises:
        WeightsError: a tensor is missing, one too many, of another shape, or cannot be read.
    """
    names = {own: _word(own) for own in expected}
    missing = [
        names[own] for own in expected if names[own] not in found.tensors and own not in zero
    ]
    surplus = [e.shown for name, e in found.tensors.items() if name not in names.values()]
    wrong = [
        f"{entry.shown} has shape {shape_text(entry.shape)}, not {shape_text(stored)}"
        for own, shape in expected.items()
        if (entry := found.tensors.get(names[own])) is not None
        and not _fits(entry.shape, stored := _stored(own, shape, found), own)
    ]
    faults = [
        *(
            [f"lacks {', '.join(shortened(missing, _MOST_SHOWN))}, by its name here"]
            if missing
            else []
        ),
        *([f"has no use for {', '.join(shortened(surplus, _MOST_SHOWN))}"] if surplus else []),
        *shortened(wrong, _MOST_SHOWN),
    ]
    if faults:
        raise WeightsError(
            f"does not hold a whole network (names of {found.title}): " + "; ".join(faults),
            path=path,
            remedy=_WHOLE,
        )
    arrays = {}
    for own, shape in expected.items():
        entry = found.tensors.get(names[own])
        values = np.zeros(shape, np.float32) if entry is None else read_tensor(entry, path)
        if entry is not None and not found.own and own.endswith("/kernel"):
            values = values.T if values.ndim == 2 else values.transpose(2, 3, 1, 0)
        arrays[f"params/{own}"] = np.array(values.reshape(shape), order="C")
    return arrays


def side(tensors: Mapping[str, Entry], name: str, axis: int) -> int:
    """The length of an axis of a tensor; ValueError if it has none, or there is no such tensor."""
    entry = tensors.get(name)
    if entry is None:
        raise ValueError(f"it lacks {name}, by its name here")
    if len(entry.shape) <= axis or not entry.shape[axis]:
        raise ValueError(f"{entry.shown} has shape {shape_text(entry.shape)}")
    return entry.shape[axis]


def read_tensor(entry: Entry, path: Path) -> NDArray[np.float32]:
    """A tensor as finite float32; it can be a view of what others are read from.

    Raises:
        WeightsError: it cannot be read, is not of floating point, or is not finite.
    """
    try:
        values = np.asarray(entry.read())
    except WeightsError:
        raise
    except Exception as error:  # a damaged file fails in whatever its reader meets
        raise WeightsError(
            f"{entry.shown} cannot be read: {reason(error)}",
            path=path,
            remedy="copy or download the file again",
        ) from error
    if not np.issubdtype(values.dtype, np.floating) and values.dtype.name != "bfloat16":
        raise WeightsError(
            f"{entry.shown} is of type {values.dtype}, not floating point",
            path=path,
            remedy="give weights that are not quantised",
        )
    with np.errstate(over="ignore"):
        single = np.asarray(values, np.float32)
    wrong = single.size - np.count_nonzero(np.isfinite(single))
    if wrong:
        raise WeightsError(
            f"{entry.shown} holds {wrong} values that are NaN or infinite, of {single.size}",
            path=path,
            remedy="the training that made the file diverged, or it is damaged: take another",
        )
    return single


def refused(kind: str, found: NamedTensors, error: ValueError, path: Path) -> WeightsError:
    """The error for a network whose size cannot be told."""
    return WeightsError(
        f"is no {kind} that is read here (names of {found.title}): {error}",
        path=path,
        remedy=_WHOLE,
    )


def parts(entry: Entry, count: int) -> Iterator[Entry]:
    """The equal parts of a tensor along its first axis, in their order."""
    rows = entry.shape[0] // count
    for number in range(count):
        yield rows_of(entry, number * rows, (number + 1) * rows)


def rows_of(entry: Entry, start: int, stop: int) -> Entry:
    """Some rows of a tensor."""
    return Entry(entry.name, (stop - start, *entry.shape[1:]), lambda: entry.read()[start:stop])


def _word(own: str) -> str:
    """A path of the network's in PyTorch's words."""
    *parents, leaf = own.split("/")
    return ".".join([*parents, _LEAVES.get(leaf, leaf)])


def _stored(own: str, shape: tuple[int, ...], found: NamedTensors) -> tuple[int, ...]:
    """The shape in the file of an array of the network's."""
    if found.own or not own.endswith("/kernel"):
        return shape
    return shape[::-1] if len(shape) == 2 else (shape[3], shape[2], *shape[:2])


def _fits(shape: tuple[int, ...], stored: tuple[int, ...], own: str) -> bool:
    if own.endswith("/kernel"):
        return shape == stored
    return [side for side in shape if side != 1] == [side for side in stored if side != 1]
