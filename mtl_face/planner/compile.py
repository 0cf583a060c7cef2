"""Compiles the train step of a config, without data or weights, and tells what the compiler says.

    python -m mtl_face.planner.compile < request.json > answer.json

`run.py plan` runs it in a process of its own where a TPU's compiler is to be loaded: beside that
library some of JAX fails on a machine without a TPU.
"""

import contextlib
import gzip
import json
import resource
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import topologies

from data_pipeline.batch import expand_labels
from mtl_face import config as config_lib
from mtl_face.errors import ConfigError
from mtl_face.model.geometry import stage_of
from mtl_face.planner.chips import LOCAL
from mtl_face.tasks import AU, EXPR, OUTPUT_SIZES, VA
from mtl_face.training import sharding
from mtl_face.training.experiment import Experiment
from mtl_face.training.state import TrainState

Answer = dict[str, Any]


def compile_step(
    config: config_lib.Config,
    *,
    topology: str,
    batch_size: int,
    effort: str = "full",
    hlo_file: Path | None = None,
) -> Answer:
    """Compiles one step ahead of time.

    Args:
        config: the settings; only those of the step matter.
        topology: `local`, or the name of a TPU topology.
        batch_size: examples over all devices.
        effort: `full`, or `low` for less of the compiler's search.
        hlo_file: where the compiled program's text goes, compressed; None: nowhere.

    Returns:
        Plain values. `fits`: False if the compiler found no way to fit the step into memory; then
        there are only `message` and what describes the devices: `device_kind`, `devices`, `chips`,
        `hosts`. Else also, all of one device: `arguments` (bytes by kind), `memory` (the compiler's
        account, bytes), `flops`, `bytes_accessed`, and `seconds` and `peak_rss` of the compile.

    Raises:
        ConfigError: the batch or the mesh does not fit the devices.
    """
    begin = time.perf_counter()
    devices = _devices(topology)
    experiment = Experiment(config, steps_per_epoch=1000, devices=devices)
    mesh, state = experiment.mesh, experiment.state_like
    experiment.check_batch(batch_size, name="batch")
    batch = abstract_batch(batch_size, image_size=config.data.image_size, mesh=mesh)
    step: Any = experiment.train_step()
    held = jax.ShapeDtypeStruct((), jnp.float32, sharding=sharding.replicated(mesh))
    answer: Answer = {
        "platform": devices[0].platform,
        "device_kind": devices[0].device_kind,
        "devices": len(devices),
        "chips": _chips(devices),
        "hosts": len({device.process_index for device in devices}),
        "memory_limit": _memory_limit(devices[0]) if topology == LOCAL else None,
        "arguments": argument_bytes(state, batch),
        "parameter_sizes": trained_sizes(state.params, config.model.backbone.frozen_stages),
        "shards": config.mesh.fsdp,
        "parameters": sum(leaf.size for leaf in jax.tree.leaves(state.params)),
    }
    lowered = step.lower(state, batch, held)
    try:
        with _settings(effort):
            compiled = lowered.compile()
    except jax.errors.JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        return answer | {
            "fits": False,
            "message": str(error).splitlines()[0],
            "seconds": time.perf_counter() - begin,
        }
    text = compiled.as_text()
    if hlo_file is not None:
        hlo_file.write_bytes(gzip.compress(text.encode(), 6))
    memory, cost = compiled.memory_analysis(), compiled.cost_analysis()
    return answer | {
        "fits": True,
        "memory": {
            "arguments": memory.argument_size_in_bytes,
            "output": memory.output_size_in_bytes,
            "alias": memory.alias_size_in_bytes,
            "temporaries": memory.temp_size_in_bytes,
            "code": memory.generated_code_size_in_bytes,
            "peak": getattr(memory, "peak_memory_in_bytes", 0),
        },
        "flops": cost["flops"],
        "bytes_accessed": cost["bytes accessed"],
        "seconds": time.perf_counter() - begin,
        "peak_rss": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
    }


def abstract_batch(batch_size: int, *, image_size: int, mesh: jax.sharding.Mesh) -> dict[str, Any]:
    """Shapes, dtypes and places of a training batch, as `data_pipeline` hands it to the step."""
    place = sharding.by_example(mesh)

    def array(shape: tuple[int, ...], dtype: Any) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct((batch_size, *shape), dtype, sharding=place)

    annotated = {
        VA: array((2,), jnp.float32),
        AU: array((OUTPUT_SIZES[AU],), jnp.int8),
        EXPR: array((), jnp.int8),
    }
    targets, weights = jax.tree.map(
        lambda leaf: array(leaf.shape[1:], leaf.dtype), jax.eval_shape(expand_labels, annotated)
    )
    return {
        "image": array((image_size, image_size, 3), jnp.uint8),
        "targets": targets,
        "weights": weights,
    }


def argument_bytes(state: TrainState, batch: dict[str, Any]) -> dict[str, int]:
    """Bytes on one device, by kind: `parameters`, `optimizer`, `statistics`, `batch`, `other`."""

    def on_device(tree: Any) -> int:
        total = 0
        for leaf in jax.tree.leaves(tree):
            shape = leaf.sharding.shard_shape(leaf.shape)
            itemsize = getattr(leaf.dtype, "itemsize", 8)
            total += int(np.prod(shape, dtype=np.int64)) * itemsize
        return total

    return {
        "parameters": on_device(state.params),
        "optimizer": on_device(state.opt_state),
        "statistics": on_device(state.batch_stats),
        "batch": on_device(batch),
        "other": on_device((state.step, state.key)),
    }


def trained_sizes(params: Any, frozen_stages: int) -> list[int]:
    """Elements of each parameter that gets a gradient."""

    def trains(path: tuple[Any, ...]) -> bool:
        keys = [str(getattr(part, "key", part)) for part in path]
        return keys[:2] != ["network", "backbone"] or stage_of(keys[2]) > frozen_stages

    leaves = jax.tree_util.tree_flatten_with_path(params)[0]
    return [leaf.size for path, leaf in leaves if trains(path)]


def _devices(topology: str) -> list[jax.Device]:
    if topology == LOCAL:
        return jax.devices()
    return topologies.get_topology_desc(platform="tpu", topology_name=topology).devices


def _memory_limit(device: jax.Device) -> int | None:
    """What the runtime has of a device's memory; a CPU does not say."""
    return (device.memory_stats() or {}).get("bytes_limit")


def _chips(devices: list[jax.Device]) -> int:
    """A chip of some TPUs is two devices; they share its place in the slice."""
    places = [getattr(device, "coords", None) for device in devices]
    if any(place is None for place in places):
        return len(devices)
    return len({tuple(place) for place in places if place is not None})


@contextlib.contextmanager
def _settings(effort: str) -> Iterator[None]:
    """Of the compiler: its effort, and no program from a cache, which lacks part of the account."""
    wanted: dict[str, Any] = {"jax_enable_compilation_cache": False}
    if effort == "low":
        wanted |= {"jax_exec_time_optimization_effort": -1.0, "jax_memory_fitting_effort": -1.0}
    before = {name: getattr(jax.config, name) for name in wanted}
    try:
        for name, value in wanted.items():
            jax.config.update(name, value)
        yield
    finally:
        for name, value in before.items():
            jax.config.update(name, value)


def main() -> None:
    """One request from standard input, one answer to standard output."""
    request = json.load(sys.stdin)
    config = config_lib.load_values(request["config"], [], "the plan's settings")
    try:
        answer = compile_step(
            config,
            topology=request["topology"],
            batch_size=request["batch_size"],
            effort=request["effort"],
            hlo_file=Path(request["hlo_file"]),
        )
    except ConfigError as error:
        answer = {"error": error.problem, "remedy": error.remedy}
    json.dump(answer, sys.stdout)


if __name__ == "__main__":
    main()
