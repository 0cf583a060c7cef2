"""Compiles the train step of a config, without data or weights, and reads the compiler's account.

    python -m mtl_face.planner.compile_step < request.json > answer.json

A plan for TPUs or GPUs that are not there runs it in a process of its own, which loads their
compiler: beside that library some of JAX fails on a machine without them.
"""

import contextlib
import gzip
import json
import math
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import jaxlib
import numpy as np
from flax import traverse_util
from jax.experimental import topologies
from jax.experimental.compilation_cache import compilation_cache

from mtl_face import config as config_lib
from mtl_face.errors import ConfigError
from mtl_face.inputs import specification
from mtl_face.model.network import blank_inputs
from mtl_face.objective.class_weights import ClassCounts
from mtl_face.planner import LOCAL, Target, chips, gpus
from mtl_face.tasks import AU, EXPR, OUTPUT_SIZES, VA, VA_RATER_VARIANCE
from mtl_face.training import adapters, sharding
from mtl_face.training.experiment import Experiment
from mtl_face.training.state import TrainState

Answer = dict[str, Any]


def compile_step(config: config_lib.Config, target: Target, hlo_file: Path) -> Answer:
    """Compiles one step ahead of time; its text goes compressed into `hlo_file` if it fits.

    Returns:
        Plain values. `fits`: False if the compiler found no way to fit the step into memory; then
        there are only `message` and what describes the devices and the state: `platform`,
        `device_kind`, `devices`, `chips`, `hosts`, `memory_limit` (bytes, or None), `parameters`,
        `parameter_sizes` (elements of each trained parameter), `learned` (names, see `learned`),
        `shards`, `arguments` (bytes by kind). Else also, all of one device: `memory` (the
        compiler's account, bytes), `flops`, `bytes_accessed`. `seconds` is the time of the compile.

    Raises:
        ConfigError: the batch or the mesh does not fit the devices.
    """
    begin = time.perf_counter()
    devices = _devices(target.topology)
    experiment = Experiment(
        config, steps_per_epoch=1000, devices=devices, class_counts=ClassCounts.equal()
    )
    experiment.check_batch(target.batch_size, name="batch")
    mesh, state = experiment.mesh, experiment.state_like
    batch = abstract_batch(target.batch_size, config, mesh=mesh)
    held = jax.ShapeDtypeStruct((), jnp.float32, sharding=sharding.replicated(mesh))
    answer: Answer = {
        "platform": devices[0].platform,
        "device_kind": devices[0].device_kind,
        "devices": len(devices),
        "chips": _chips(devices),
        "hosts": len({device.process_index for device in devices}),
        # A CPU does not say.
        "memory_limit": (devices[0].memory_stats() or {}).get("bytes_limit")
        if target.topology == LOCAL
        else None,
        "arguments": argument_bytes(state, batch),
        "parameter_sizes": trained_sizes(state.params, experiment.trains(state.params)),
        "learned": learned(state.params, experiment.trains(state.params)),
        "shards": config.mesh.fsdp,
        "parameters": sum(leaf.size for leaf in jax.tree.leaves(state.params)),
    }
    step: Any = experiment.train_step()
    lowered = step.lower(state, batch, held)
    try:
        with _settings(target.effort):
            compiled = lowered.compile()
    except jax.errors.JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        return answer | {
            "fits": False,
            "message": str(error).splitlines()[0],
            "seconds": time.perf_counter() - begin,
        }
    hlo_file.write_bytes(gzip.compress(compiled.as_text().encode(), 6))
    memory, cost = compiled.memory_analysis(), _cost(compiled)
    return answer | {
        "fits": True,
        "memory": {
            "arguments": memory.argument_size_in_bytes,
            "output": memory.output_size_in_bytes,
            "alias": memory.alias_size_in_bytes,
            "temporaries": memory.temp_size_in_bytes,
            "code": memory.generated_code_size_in_bytes,
            "peak": memory.peak_memory_in_bytes,
        },
        "flops": cost["flops"],
        "bytes_accessed": cost["bytes accessed"],
        "seconds": time.perf_counter() - begin,
    }


def abstract_batch(
    batch_size: int, config: config_lib.Config, *, mesh: jax.sharding.Mesh
) -> dict[str, Any]:
    """Shapes, dtypes and places of a training batch, as the input hands it to the step.

    Of a network over time it holds `batch_size` windows, with labels for each of their frames.
    """
    place = sharding.by_example(mesh)
    rows = batch_size * (config.temporal.window if config.is_over_time else 1)

    def array(*shape: int, dtype: Any = jnp.float32) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct((rows, *shape), dtype, sharding=place)

    targets = {task: array(size) for task, size in OUTPUT_SIZES.items()}
    if config.loss.va.spread:
        targets[VA_RATER_VARIANCE] = array(OUTPUT_SIZES[VA])
    return {
        **{
            name: jax.ShapeDtypeStruct((batch_size, *shape), dtype, sharding=place)
            for name, (dtype, shape) in _inputs(config).items()
        },
        "targets": targets,
        "weights": {VA: array(), AU: array(OUTPUT_SIZES[AU]), EXPR: array()},
    }


def _inputs(config: config_lib.Config) -> dict[str, tuple[np.dtype, tuple[int, ...]]]:
    """Dtype and shape by name of what the network takes of an image or window in training."""
    if config.is_over_time:
        return {name: (one.dtype, one.shape[1:]) for name, one in blank_inputs(config).items()}
    return specification(
        config.model.inputs, config.data.image_size, baselines=len(config.data.baseline)
    )


def argument_bytes(state: TrainState, batch: dict[str, Any]) -> dict[str, int]:
    """Bytes on one device, by kind: `parameters`, `optimizer`, `statistics`, `batch`, `other`.

    Averages of parameters count as the optimizer's.
    """

    def on_device(tree: Any) -> int:
        return sum(
            math.prod(leaf.sharding.shard_shape(leaf.shape)) * getattr(leaf.dtype, "itemsize", 8)
            for leaf in jax.tree.leaves(tree)
        )

    return {
        "parameters": on_device(state.params),
        "optimizer": on_device((state.opt_state, getattr(state, "average", {}))),
        "statistics": on_device(state.batch_stats),
        "batch": on_device(batch),
        "other": on_device((state.step, state.key)),
    }


def trained_sizes(params: Any, trains: Any) -> list[int]:
    """Elements of each parameter that gets a gradient; `trains` says so of each."""
    leaves = zip(jax.tree.leaves(trains), jax.tree.leaves(params), strict=True)
    return [leaf.size for trains_it, leaf in leaves if trains_it]


def learned(params: Any, trains: Any) -> list[str]:
    """Names of the network's arrays that have a gradient, kernels with an adapter among them.

    `trains` says of each parameter whether it learns. Names are as in `backbone/patch/kernel`.
    """
    paths = {path for path, it in traverse_util.flatten_dict(trains["network"]).items() if it}
    adapters_of = traverse_util.flatten_dict(params.get(adapters.ADAPTERS, {}))
    return sorted("/".join(path) for path in paths | {path[:-1] for path in adapters_of})


def _devices(topology: str) -> list[jax.Device]:
    if topology == LOCAL:
        return jax.devices()
    cards = chips.gpu_topology(topology)
    if cards is not None:
        kind, hosts, gpus_per_host = cards
        return topologies.get_topology_desc(
            platform="cuda",
            target_config=gpus.target_config(kind),
            # Of one partition: hosts, and GPUs of each.
            topology=f"1x{hosts}x{gpus_per_host}",
        ).devices
    return topologies.get_topology_desc(platform="tpu", topology_name=topology).devices


def _cost(compiled: jax.stages.Compiled) -> dict[str, float]:
    """The compiler's count of operations and bytes of one device.

    A compiler for GPUs that are not there gives none; then JAX's own analysis of the program, which
    has nothing of library calls.
    """
    cost = compiled.cost_analysis()
    if cost is None:
        executable: Any = compiled.runtime_executable()
        (module,) = executable.hlo_modules()
        cost = jaxlib._jax.hlo_module_cost_analysis(jax.devices("cpu")[0].client, module)
    return cost


def _chips(devices: list[jax.Device]) -> int:
    """A chip of some TPUs is two devices; they share its place in the slice."""
    places = [getattr(device, "coords", None) for device in devices]
    if devices[0].platform != "tpu" or any(place is None for place in places):
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
        compilation_cache.reset_cache()  # JAX asks once whether there is one
        yield
    finally:
        for name, value in before.items():
            jax.config.update(name, value)
        compilation_cache.reset_cache()


def main() -> None:
    """One request from standard input, one answer to standard output."""
    request = json.load(sys.stdin)
    config = config_lib.load_values(request["config"], [], "the plan's settings", reads_data=False)
    try:
        answer = compile_step(config, Target(**request["target"]), Path(request["hlo_file"]))
    except ConfigError as error:
        answer = {"error": error.problem, "remedy": error.remedy}
    json.dump(answer, sys.stdout)


if __name__ == "__main__":
    main()
