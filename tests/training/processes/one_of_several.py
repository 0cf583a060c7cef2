"""A program: one process of several takes training steps. And the steps, for one process alone.

python one_of_several.py PORT PROCESSES PROCESS DEVICES FSDP OUTPUT [leave|fail|killed0|killed1]
"""

import json
import os
import signal
import sys
import time
from pathlib import Path

import jax
import numpy as np
import optax
import tiny_network

from data_pipeline import order
from data_pipeline.batch import to_devices
from mtl_face.errors import UserError
from mtl_face.training import sharding, state, step
from mtl_face.training.processes import distributed
from mtl_face.training.stop import AgreedStop, StopRequest

SGD = optax.sgd(0.05, momentum=0.9)
STEPS = 3


def filled(like):
    """A state of NumPy's random numbers: drawing them by JAX would take the longest of all."""
    random = np.random.default_rng(0)

    def fill(path, leaf):
        if jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key):
            return jax.jit(lambda: jax.random.key(0), out_shardings=leaf.sharding)()
        values = np.zeros(leaf.shape, leaf.dtype)
        if "params" in str(path[0]) and leaf.ndim > 1:
            values = 0.1 * random.standard_normal(leaf.shape).astype(np.float32)
        if "var" in str(path[-1]) or "scale" in str(path[-1]):
            values = np.ones(leaf.shape, leaf.dtype)
        return jax.make_array_from_callback(leaf.shape, leaf.sharding, lambda i: values[i])

    return jax.tree_util.tree_map_with_path(fill, like)


def local_batches():
    """This process's parts of the global batches."""
    process = order.Process(jax.process_index(), jax.process_count())
    part = process.part(tiny_network.BATCH)
    for index in range(STEPS * 4):
        yield jax.tree.map(lambda leaf: leaf[part], tiny_network.batch(index))


def train(mesh, *, steps=STEPS, after_step=lambda taken: False):
    """(losses, parameters on the host) after some steps."""
    network = tiny_network.TinyNetwork()
    like = state.abstract_state(tiny_network.initial(network, SGD), mesh)
    current = filled(like)
    train_step = step.make_train_step(
        network,
        SGD,
        mesh,
        jax.tree.map(lambda leaf: leaf.sharding, like),
        augment=tiny_network.plain,
        objective=tiny_network.objective,
    )
    losses = []
    for taken, batch in enumerate(to_devices(local_batches(), sharding.by_example(mesh)), 1):
        current, numbers = train_step(current, batch)
        losses.append(float(numbers["loss"]))
        if after_step(taken) or taken == steps:
            break
    return losses, sharding.whole(current.params, mesh)


def main(port, processes, process, devices, fsdp, output, mode="stay"):
    jax.config.update("jax_platforms", "cpu")
    jax.config.update("jax_num_cpu_devices", int(devices))
    jax.config.update("jax_disable_most_optimizations", True)
    process = int(process)
    place = distributed.Place(f"127.0.0.1:{port}", int(processes), process)
    output = Path(output)
    with (
        distributed.joined(place, settings="x", timeout_seconds=180),
        StopRequest() as own,
    ):

        def prepare():
            time.sleep(0.5)
            (output / "data").write_text("made by process 0")

        distributed.first(prepare)
        assert (output / "data").exists()
        mesh = sharding.make_mesh(fsdp=int(fsdp))
        if mode == "fail":
            if process == 1:
                raise UserError("the disk is on fire", remedy="put it out")
            time.sleep(60)
        stop = AgreedStop(own, mesh)

        def after_step(taken):
            if mode == "leave" and process == 1 and taken == 2:
                os.kill(os.getpid(), signal.SIGTERM)
                time.sleep(0.2)
            if mode == f"killed{process}":
                os.kill(os.getpid(), signal.SIGKILL)
            return stop.requested

        losses, params = train(mesh, after_step=after_step, steps=10 if mode == "leave" else STEPS)
        stopped_by = stop.conclude()
        (output / f"{process}.json").write_text(
            json.dumps({"losses": losses, "signal": stopped_by and stopped_by.name})
        )
        if distributed.is_writer():
            np.savez(output / "params.npz", *jax.tree.leaves(params))


if __name__ == "__main__":
    main(*sys.argv[1:])
