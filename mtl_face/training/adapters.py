"""Low-rank adapters of kernels (LoRA, Hu et al. 2022), outside of the network's modules.

A kernel W [I, O] that a rule names stays as it is. Beside it A [I, r] and B [r, O] train, and the
network computes with

    W + (alpha / r) A B.

B begins at 0, so that training begins at W. Of a convolution, I is all axes of the kernel but the
last. The sum is made before the network is applied, in float32, and again when it is exported or
predicts: no module knows of adapters, and weights that leave a run are those of a plain network.

In `TrainState.params`, `adapters` holds `{"a": A, "b": B}` at each kernel's path in `network`.
"""

import difflib
import math
import re
from collections.abc import Iterable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from flax import traverse_util

from mtl_face.config import LoraConfig
from mtl_face.errors import ConfigError

ADAPTERS = "adapters"
"""Key in `TrainState.params`."""

KERNELS = "optimizer.lora.kernels"

Path = tuple[str, ...]


def adapted(network: Any, patterns: Iterable[str]) -> list[Path]:
    """Paths of the kernels in the network's parameters in whose names one of the patterns is found.

    A name is the path's keys joined by `/`, as in `encoder/layer1/attention/query/kernel`. Raises
    ConfigError for a pattern that is no regular expression or that is found in no kernel's name.
    """
    kernels = [
        path
        for path, leaf in traverse_util.flatten_dict(network).items()
        if path[-1] == "kernel" and leaf.ndim > 1
    ]
    return fitting(kernels, patterns, setting=KERNELS, things="kernels")


def fitting(
    paths: Iterable[Path], patterns: Iterable[str], *, setting: str, things: str
) -> list[Path]:
    """Those of the paths in whose names, joined by `/`, one of the patterns is found.

    Raises ConfigError for a pattern of the setting that is no regular expression or is found in no
    name; `things` says what the paths are of.
    """
    names = {"/".join(path): path for path in paths}
    found: dict[Path, None] = {}
    for pattern in patterns:
        try:
            named = [path for name, path in names.items() if re.search(pattern, name)]
        except re.error as error:
            raise ConfigError(
                f"{setting} holds {pattern!r}, which is no regular expression: {error}",
                remedy=f"give parts of {things}' names, as attention/(query|value)/kernel",
            ) from error
        if not named:
            nearest = difflib.get_close_matches(pattern, names, n=5, cutoff=0)
            raise ConfigError(
                f"{setting} holds {pattern!r}, which fits none of the network's {len(names)} "
                f"{things}",
                remedy="the nearest names are " + ", ".join(nearest),
            )
        found |= dict.fromkeys(named)
    return list(found)


def initial(key: jax.Array, network: Any, settings: LoraConfig) -> dict[str, Any]:
    """Adapters of a network's parameters: A uniform in +- 1 / sqrt(I), B = 0; float32.

    Raises:
        ConfigError: as `adapted`.
    """
    kernels = traverse_util.flatten_dict(network)
    draw = jax.nn.initializers.variance_scaling(1 / 3, "fan_in", "uniform")
    made = {}
    for number, path in enumerate(sorted(adapted(network, settings.kernels))):
        *inside, out = kernels[path].shape
        made[path] = {
            "a": draw(jax.random.fold_in(key, number), (math.prod(inside), settings.rank)),
            "b": jnp.zeros((settings.rank, out)),
        }
    return traverse_util.unflatten_dict(made)


def merged(params: Mapping[str, Any], settings: LoraConfig) -> Any:
    """The parameters of the plain network that computes the same, from those of a train state.

    Where gradients are taken, none flow into a kernel that has an adapter.
    """
    network = traverse_util.flatten_dict(params["network"])
    pairs = traverse_util.flatten_dict(params[ADAPTERS])
    for path in {path[:-1] for path in pairs}:
        kernel = jax.lax.stop_gradient(network[path])
        change = jnp.matmul(
            pairs[(*path, "a")], pairs[(*path, "b")], precision=jax.lax.Precision.HIGHEST
        )
        scale = settings.alpha / settings.rank
        network[path] = kernel + scale * change.reshape(kernel.shape)
    return traverse_util.unflatten_dict(network)
