"""Which network the settings of an experiment describe: one of frames, or one over time."""

import flax.linen as nn
import jax

from mtl_face.config import Config
from mtl_face.model import network, temporal


def is_over_time(config: Config) -> bool:
    """Whether the network reads windows of frames, see `temporal`."""
    return config.temporal.kind != "none"


def network_of(config: Config, *, platform: str, devices: int = 1) -> nn.Module:
    """The network, for a platform (cpu, gpu, tpu) and devices that share a training batch."""
    if is_over_time(config):
        return temporal.TemporalNetwork(config.temporal, config.model.va_variance)
    return network.MtlFace(network.for_platform(config.model, platform), devices=devices)


def network_inputs(config: Config) -> dict[str, jax.Array]:
    """An example that is all 0, [1, ...] by name, as the network takes it."""
    if is_over_time(config):
        return temporal.network_inputs(config)
    return network.network_inputs(config.model)
