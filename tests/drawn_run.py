"""A run's folder whose weights are drawn, not trained, for tests of what is done with a run."""

import jax
import jax.numpy as jnp
import numpy as np

from mtl_face import config as config_lib
from mtl_face.run import provenance as lineage
from mtl_face.run import workdir as workdirs
from mtl_face.run.train import initial_weights
from mtl_face.training.checkpoint import Checkpoints
from mtl_face.training.experiment import Experiment

STEP = 5


def write(experiment, workdir, *overrides, labels=None, rows=None, score=0.5):
    """A folder as `train` leaves it after 5 steps, before its evaluation.

    Args:
        experiment: a `small_experiment.Experiment`.
        workdir: the folder.
        *overrides: settings, as `optimizer.epochs=1`.
        labels: numbers of labels that the checkpoint says training saw; None: it says nothing.
        rows: `rows.Rows` that the run keeps; None for none.
        score: of the checkpoint; None: it was not evaluated.
    """
    config = config_lib.load(experiment.config, [f"data.root={experiment.data}", *overrides])
    workdir = workdirs.open_for_training(workdir, config)
    like = Experiment(config).state_like
    random = np.random.default_rng(0)

    def draw(leaf, low, high):
        values = random.uniform(low, high, leaf.shape).astype(np.float32)
        return jax.device_put(values, leaf.sharding)

    def zeros(leaf):
        return jax.device_put(np.zeros(leaf.shape, leaf.dtype), leaf.sharding)

    state = jax.tree.map(lambda leaf: jnp.zeros((), jnp.int32), like).replace(
        step=jnp.int32(STEP),
        params=jax.tree.map(lambda leaf: draw(leaf, -0.2, 0.2), like.params),
        batch_stats=jax.tree.map(lambda leaf: draw(leaf, 0.5, 1.5), like.batch_stats),
        opt_state=jax.tree.map(zeros, like.opt_state),
        key=jax.device_put(jax.random.key(0), like.key.sharding),
    )
    backbone = initial_weights(config, lambda line: None)
    with Checkpoints(workdir / workdirs.CHECKPOINTS, keep=1) as checkpoints:
        source = None if backbone is None else backbone.source
        lineage.begin(config, workdir, checkpoints, source)
        if labels is not None:
            checkpoints.metadata["training"] = {"labels": labels}
        if rows is not None:
            checkpoints.metadata |= rows.metadata
            rows.write(workdir)
        checkpoints.save(STEP, state, score=score)
