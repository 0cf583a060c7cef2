"""What a training step takes on hardware that is not at hand, from its compiler alone."""

import dataclasses

LOCAL = "local"
"""The devices of this machine, in place of the name of TPUs or GPUs."""


@dataclasses.dataclass(frozen=True)
class Target:
    """What a step is compiled for.

    Attributes:
        topology: `local`, or the name of a slice of TPUs or of GPUs, see `chips.check_topology`.
        batch_size: examples over all devices.
        effort: `full`, or `low` for less of the compiler's search.
    """

    topology: str
    batch_size: int
    effort: str = "full"
