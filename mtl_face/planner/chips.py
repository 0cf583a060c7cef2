"""Published peaks of the chips that a run may be planned for, and the names of slices and hosts.

All figures are the vendors', none is measured: rates that no program exceeds. TPU: the
"system architecture" pages of Google's Cloud TPU documentation (v4, v5e, v5p, v6e), read in
November 2026. GPUs: NVIDIA's data sheets of the A100 80GB SXM, H100 SXM and H200 SXM, dense (not
sparse) rates; their network between hosts from the data sheets of DGX A100, DGX H100 and DGX H200,
which have one adapter a GPU (200 Gb/s, 400 Gb/s, 400 Gb/s).
"""

import dataclasses
import difflib
import re
from typing import Any

from mtl_face.errors import ConfigError
from mtl_face.planner import LOCAL

GIB = 2**30


@dataclasses.dataclass(frozen=True)
class Chip:
    """What one chip can do at most.

    Attributes:
        name: as in the names of slices.
        device_kind: start of what JAX calls it.
        bfloat16_flops: floating-point operations a second in matrix products of bfloat16.
        float32_flops: the same of float32 at JAX's default precision, which on a TPU rounds the
            factors to bfloat16 and on an NVIDIA GPU to TensorFloat32.
        memory_bytes: HBM.
        memory_bandwidth: of the HBM, bytes a second.
        link_bandwidth: to other chips, bytes a second that it can send (half of what is published
            for both directions; of v4, from 1.1 PB/s in an all-reduce of 4096 chips).
        source: where the figures stand.
        network_bandwidth: to other hosts, bytes a second that it can send by its own adapter; None
            where the links reach there.
    """

    name: str
    device_kind: str
    bfloat16_flops: float
    float32_flops: float
    memory_bytes: int
    memory_bandwidth: float
    link_bandwidth: float
    source: str
    network_bandwidth: float | None = None

    def flops(self, dtype: str) -> float:
        """Peak in products of a compute dtype."""
        return self.bfloat16_flops if dtype == "bfloat16" else self.float32_flops


_GPU = "NVIDIA data sheets, dense rates: "
_TPU = "Cloud TPU documentation, TPU"

_G = 10**9

# name, device_kind, FLOP/s in bfloat16 and in float32, HBM bytes and bytes/s, link bytes/s, source,
# network bytes/s
_ROWS: tuple[tuple[Any, ...], ...] = (
    ("v4", "TPU v4", 275e12, 275e12, 32 * GIB, 1200e9, 268e9, f"{_TPU} v4"),
    ("v5e", "TPU v5 lite", 197e12, 197e12, 16 * GIB, 819e9, 200e9, f"{_TPU} v5e"),
    ("v5p", "TPU v5", 459e12, 459e12, 95 * GIB, 2765e9, 600e9, f"{_TPU} v5p"),
    ("v6e", "TPU v6 lite", 918e12, 918e12, 32 * GIB, 1638e9, 400e9, f"{_TPU} v6e"),
    ("a100", "NVIDIA A100", 312e12, 156e12, 80 * _G, 2039e9, 300e9, f"{_GPU}A100 80GB SXM", 25e9),
    ("h100", "NVIDIA H100", 989.4e12, 494.7e12, 80 * _G, 3350e9, 450e9, f"{_GPU}H100 SXM", 50e9),
    ("h200", "NVIDIA H200", 989.4e12, 494.7e12, 141 * _G, 4800e9, 450e9, f"{_GPU}H200 SXM", 50e9),
)

CHIPS = {row[0]: Chip(*row) for row in _ROWS}
"""Chips by name."""

_PLANES = ("2x2", "2x4", "4x4", "4x8", "8x8", "8x16", "16x16")
_CUBOIDS = tuple(
    "2x2x1 2x2x2 2x2x4 2x4x4 4x4x4 4x4x8 4x8x8 8x8x8 8x8x16 8x16x16".split()  # noqa: SIM905
)

TOPOLOGIES = {"v4": _CUBOIDS, "v5e": _PLANES, "v5p": _CUBOIDS, "v6e": _PLANES}
"""Shapes of slices by kind of TPU; the compiler knows each of them."""

GPUS = ("a100", "h100", "h200")
"""Kinds of GPU that a step can be compiled for."""

_GPU_NAME = re.compile(rf"({'|'.join(GPUS)}):(?:([1-9]\d*)x)?([1-9]\d*)")

USABLE_OF_GPU = 0.75
"""Part of a GPU's memory that JAX takes at its start, unless XLA_PYTHON_CLIENT_MEM_FRACTION says
otherwise (JAX documentation, "GPU memory allocation")."""


def gpu_topology(name: str) -> tuple[str, int, int] | None:
    """Kind, hosts and GPUs a host of `h100:8` (one host) or `h100:2x8`; None for another name."""
    match = _GPU_NAME.fullmatch(name)
    return None if match is None else (match[1], int(match[2] or 1), int(match[3]))


def check_topology(name: str) -> None:
    """ConfigError with the names, unless this is `local`, TPUs as `v5e:4x4` or GPUs as `h100:8`."""
    known = [f"{kind}:{shape}" for kind, shapes in TOPOLOGIES.items() for shape in shapes]
    known += [f"{kind}:{shape}" for kind in GPUS for shape in ("8", "2x8")]
    if name in (*known, LOCAL) or gpu_topology(name):
        return
    near = difflib.get_close_matches(name, [*known, LOCAL], n=1)
    listing = "; ".join(f"{kind}: {', '.join(shapes)}" for kind, shapes in TOPOLOGIES.items())
    raise ConfigError(
        f"topology '{name}' is unknown" + (f", did you mean {near[0]}?" if near else ""),
        remedy=f"use local, or KIND:SHAPE of these: {listing}; or GPUs as KIND:GPUS or "
        f"KIND:HOSTSxGPUS, as h100:8 or h100:2x8, of {', '.join(GPUS)}",
    )


def of_device(device_kind: str) -> Chip | None:
    """The chip behind JAX's name of a device; None if it is not in the table."""
    fitting = [chip for chip in CHIPS.values() if device_kind.startswith(chip.device_kind)]
    return max(fitting, key=lambda chip: len(chip.device_kind), default=None)
