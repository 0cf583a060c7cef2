"""The mesh, and where everything lies on it. All placement decisions are made here.

The mesh has two axes. A batch is split over both. Parameters and optimizer state are whole on every
device along `data`; rules say which of them are split along `fsdp`, when that axis is longer than
1.

A rule is `PATTERN=WHERE`. The pattern is a regular expression, looked for in an array's name; the
first rule that fits decides, and an array that none fits is whole on every device. WHERE is one of

| where    | the array is                                                                       |
|----------|------------------------------------------------------------------------------------|
| `large`  | split along its longest axis that divides, if it has `SMALLEST_SPLIT` elements     |
| `whole`  | whole on every device                                                              |
| 0, -1... | split along this axis, whatever its size                                           |

A parameter's name is `params/` and its path, as in `params/network/encoder/layer1/mlp_out/kernel`.
What an optimizer keeps for a parameter is `moments/` and the parameter's path: so both can lie
alike (a pattern without these words), or differently. Scalars have no name and are whole.
"""

import difflib
import math
import re
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from mtl_face.errors import ConfigError

BATCH_AXES = ("data", "fsdp")

DEFAULT_RULES = (".=large",)

LARGE = "large"
WHOLE = "whole"

SMALLEST_SPLIT = 2**14
"""Arrays with fewer elements stay whole: gathering them costs more than holding them."""

_FIELD = "mesh.rules"
_REMEDY = "a rule is PATTERN=large, PATTERN=whole or PATTERN=AXIS, as params/.*kernel=large"


def make_mesh(*, data: int = -1, fsdp: int = 1, devices: list[jax.Device] | None = None) -> Mesh:
    """Arranges devices as a `data x fsdp` grid, whose axes are of type Auto.

    `data=-1` takes all devices that `fsdp` leaves; `devices=None` are all, over all processes.
    ConfigError if they do not fill the grid.
    """
    devices = jax.devices() if devices is None else devices
    if data == -1:
        data = len(devices) // fsdp
    if data * fsdp != len(devices) or data < 1:
        raise ConfigError(
            f"a mesh of {max(data, 1)} x {fsdp} does not fit {len(devices)} devices",
            remedy="change mesh.data and mesh.fsdp so that their product is the device count",
        )
    axis_types = (AxisType.Auto, AxisType.Auto)
    mesh = jax.make_mesh((data, fsdp), BATCH_AXES, axis_types=axis_types, devices=devices)
    # Each process loads one contiguous part of a batch, so its devices must be neighbours.
    numbers = [device.process_index for device in mesh.devices.flat]
    if numbers == sorted(numbers):
        return mesh
    # The layout that suits a TPU's wires best can scatter a host's devices over the batch.
    ordered = np.array(sorted(devices, key=lambda device: (device.process_index, device.id)))
    return Mesh(ordered.reshape(data, fsdp), BATCH_AXES, axis_types=axis_types)


def replicated(mesh: Mesh) -> NamedSharding:
    """Whole on every device."""
    return NamedSharding(mesh, P())


def by_example(mesh: Mesh) -> NamedSharding:
    """First axis (examples) split over all devices."""
    return NamedSharding(mesh, P(BATCH_AXES))


def whole(tree: Any, mesh: Mesh) -> Any:
    """Global arrays as NumPy arrays on the host of each process; every process must call."""
    leaves = jax.tree.leaves(tree)
    if not all(leaf.is_fully_addressable or leaf.is_fully_replicated for leaf in leaves):
        tree = jax.jit(lambda tree: tree, out_shardings=replicated(mesh))(tree)
    return jax.device_get(tree)


def check_batch(
    batch_size: int, mesh: Mesh, *, name: str, even: bool = False, microbatches: int = 1
) -> None:
    """Checks that a global batch, of examples over all devices, splits evenly over them.

    `even` asks for an even share of each device (MixUp pairs neighbours), `microbatches` for parts
    that the share splits into. ConfigError if it does not; `name` is the config field.
    """
    unit = mesh.size * math.lcm(2 if even else 1, microbatches)
    if batch_size % unit:
        below, above = batch_size // unit * unit, (batch_size // unit + 1) * unit
        why = f"{mesh.size} devices" + (" with an even number each, for MixUp" if even else "")
        if microbatches > 1:
            why += f", and into {microbatches} microbatches on each"
        near = f"{below} or {above}" if below else f"{above}"
        raise ConfigError(f"{name} {batch_size} does not split over {why}", remedy=f"use {near}")


def state_shardings(mesh: Mesh, abstract: Any, rules: Sequence[str] = DEFAULT_RULES) -> Any:
    """NamedSharding of each array of a train state (arrays or ShapeDtypeStructs), as a pytree.

    The rules say which arrays are split along `fsdp`; all others are replicated. ConfigError for a
    text that is no rule, and, on one device along `fsdp` too, for a rule that fits no array or
    names an axis that is absent or does not divide.
    """
    parts = mesh.shape["fsdp"]
    parsed = [(text, *_parse(text)) for text in rules]
    names = array_names(abstract)
    named = {name for name in names if name is not None}
    for text, pattern, _ in parsed:
        if named and not any(map(pattern.search, named)):
            nearest = difflib.get_close_matches(pattern.pattern, named, cutoff=0)
            raise ConfigError(
                f"{_FIELD} holds {text!r}, which fits no array of this network",
                remedy="the nearest names are " + ", ".join(nearest),
            )
    leaves, structure = jax.tree.flatten(abstract)
    placements = []
    for name, leaf in zip(names, leaves, strict=True):
        fitting = (rule for rule in parsed if name is not None and rule[1].search(name))
        text, _, where = next(fitting, ("", None, WHOLE))
        axis = _axis(text, where, name or "", leaf.shape, parts)
        spec = P() if axis is None or parts == 1 else P(*([None] * axis), "fsdp")
        placements.append(NamedSharding(mesh, spec))
    return jax.tree.unflatten(structure, placements)


def _parse(text: str) -> tuple[re.Pattern[str], str | int]:
    """The pattern of a rule, and `large`, `whole` or an axis."""
    pattern, equals, where = text.strip().rpartition("=")
    number = re.fullmatch(r"-?\d+", where)
    if not equals or not (number or where in (LARGE, WHOLE)):
        raise ConfigError(f"{_FIELD} holds {text!r}, which is no rule", remedy=_REMEDY)
    try:
        return re.compile(pattern), int(where) if number else where
    except re.error as error:
        raise ConfigError(
            f"{_FIELD} holds {text!r}, whose pattern is no regular expression: {error}",
            remedy=_REMEDY,
        ) from error


def array_names(abstract: Any) -> list[str | None]:
    """Names of a state's leaves in their order; None for scalars."""
    flat = jax.tree_util.tree_flatten_with_path(abstract)[0]
    paths = [(tuple(path_keys(path)), leaf) for path, leaf in flat]
    parameters = {path[1:] for path, _ in paths if path[0] == "params"}
    found: list[str | None] = []
    for path, leaf in paths:
        if leaf.ndim == 0:
            found.append(None)
            continue
        if path[0] == "opt_state":
            of = next((path[i:] for i in range(1, len(path)) if path[i:] in parameters), None)
            path = path if of is None else ("moments", *of)
        found.append("/".join(path))
    return found


def _axis(text: str, where: str | int, name: str, shape: tuple[int, ...], parts: int) -> int | None:
    """The axis along which a rule splits an array; None: the array is whole."""
    if where == WHOLE:
        return None
    if isinstance(where, str):
        dividing = [axis for axis, length in enumerate(shape) if length % parts == 0]
        if math.prod(shape) < SMALLEST_SPLIT or not dividing:
            return None
        return max(dividing, key=lambda axis: shape[axis])
    if not -len(shape) <= where < len(shape):
        raise ConfigError(
            f"{_FIELD} holds {text!r}, but {name} has the shape {shape}, without that axis",
            remedy="put a rule for such arrays before it, as bias=whole",
        )
    axis = where % len(shape)
    if shape[axis] % parts:
        raise ConfigError(
            f"{_FIELD} holds {text!r}, but {parts} devices along fsdp do not divide the axis "
            f"{axis} of {name}, of shape {shape}",
            remedy="choose another axis, or PATTERN=large, which takes one that divides",
        )
    return axis


def path_keys(path: tuple[Any, ...]) -> list[str]:
    """The keys, names and numbers on the way to a leaf of a pytree."""
    return [jax.tree_util.keystr((part,), simple=True) for part in path]
