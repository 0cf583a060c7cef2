"""The mesh, and where everything lies on it. All placement decisions are made here.

The mesh has two axes. A batch is split over both; parameters and optimizer state are whole on every
device along `data`, and those that `rules` name are split along `fsdp` when that axis is longer
than 1.
"""

import math
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from mtl_face.errors import ConfigError
from mtl_face.training import rules

BATCH_AXES = ("data", "fsdp")


def make_mesh(*, data: int = -1, fsdp: int = 1, devices: list[jax.Device] | None = None) -> Mesh:
    """Arranges devices as a `data x fsdp` grid.

    Args:
        data: devices along `data`; -1 takes all that `fsdp` leaves.
        fsdp: devices along `fsdp`.
        devices: the devices to use; None for all, over all processes.

    Returns:
        The mesh. Its axes are of type Auto: the compiler places what we don't.

    Raises:
        ConfigError: if the devices don't fill the grid.
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
    if in_order_of_processes(list(mesh.devices.flat)):
        return mesh
    # The layout that suits a TPU's wires best can scatter a host's devices over the batch.
    ordered = np.array(sorted(devices, key=lambda device: (device.process_index, device.id)))
    return Mesh(ordered.reshape(data, fsdp), BATCH_AXES, axis_types=axis_types)


def in_order_of_processes(devices: Sequence[jax.Device]) -> bool:
    """Whether each process's devices are neighbours, and the processes in their order.

    So it has to be in a mesh, since each process loads one contiguous part of a batch.
    """
    numbers = [device.process_index for device in devices]
    return numbers == sorted(numbers)


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


def state_shardings(mesh: Mesh, abstract: Any, split_rules: Sequence[str] = rules.DEFAULT) -> Any:
    """Sharding of each array of a train state.

    Args:
        mesh: the mesh.
        abstract: pytree of arrays or ShapeDtypeStructs.
        split_rules: which arrays are split over `fsdp`, see `rules`; all others are replicated.

    Returns:
        Pytree of NamedSharding.

    Raises:
        ConfigError: a rule does not fit.
    """
    leaves, structure = jax.tree.flatten(abstract)
    axes = rules.split_axes(abstract, split_rules, parts=mesh.shape["fsdp"])
    placements = [
        replicated(mesh) if axis is None else NamedSharding(mesh, P(*([None] * axis), "fsdp"))
        for axis in axes
    ]
    assert len(placements) == len(leaves)
    return jax.tree.unflatten(structure, placements)


def check_batch(
    batch_size: int, mesh: Mesh, *, name: str, even: bool = False, microbatches: int = 1
) -> None:
    """Checks that a global batch splits evenly over the devices.

    Args:
        batch_size: examples over all devices.
        mesh: the mesh.
        name: config field, for the message.
        even: whether each device's share must be even (MixUp pairs neighbours).
        microbatches: parts that each device's share must split into.

    Raises:
        ConfigError: if it does not.
    """
    unit = mesh.size * math.lcm(2 if even else 1, microbatches)
    if batch_size % unit:
        below, above = batch_size // unit * unit, (batch_size // unit + 1) * unit
        why = f"{mesh.size} devices" + (" with an even number each, for MixUp" if even else "")
        if microbatches > 1:
            why += f", and into {microbatches} microbatches on each"
        near = f"{below} or {above}" if below else f"{above}"
        raise ConfigError(f"{name} {batch_size} does not split over {why}", remedy=f"use {near}")
