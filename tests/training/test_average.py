"""Moving averages of weights, against the recursion written out."""

import jax
import jax.numpy as jnp
import numpy as np
import optax

from mtl_face.training import average
from mtl_face.training.state import TrainState

DECAY = 0.3
"""Below what the warm-up gives after a few steps."""


def state(random):
    def draw(*shape):
        return jnp.asarray(random.normal(size=shape), jnp.float32)

    params = {
        "network": {"backbone": {"kernel": draw(3, 4)}, "head_va": {"kernel": draw(4, 2)}},
        "uncertainty": {},
    }
    return TrainState(
        step=jnp.int32(0),
        params=params,
        batch_stats={"norm": {"mean": draw(4)}},
        opt_state=optax.sgd(0.1).init(params),
        key=jax.random.key(0),
    )


TRAINS = {
    "network": {"backbone": {"kernel": False}, "head_va": {"kernel": True}},
    "uncertainty": {},
}


def test_the_recursion():
    """Parameters that train, and statistics; decays 2/11, 3/12, then 0.3."""
    random = np.random.default_rng(0)
    current = average.begun(state(random), TRAINS)
    expected = [np.asarray(leaf, np.float64) for leaf in jax.tree.leaves(current.average)]
    assert len(expected) == 2
    for step in range(1, 6):
        new = state(random)
        current = average.updated(
            current.replace(step=jnp.int32(step), params=new.params, batch_stats=new.batch_stats),
            DECAY,
        )
        decay = min(DECAY, (1 + step) / (10 + step))
        assert (decay == DECAY) == (step > 2)
        now = {
            "params": {"network": {"head_va": new.params["network"]["head_va"]}},
            "batch_stats": new.batch_stats,
        }
        assert jax.tree.structure(now) == jax.tree.structure(current.average)
        expected = [
            decay * old + (1 - decay) * np.asarray(leaf, np.float64)
            for old, leaf in zip(expected, jax.tree.leaves(now), strict=True)
        ]
        for leaf, value in zip(jax.tree.leaves(current.average), expected, strict=True):
            np.testing.assert_allclose(leaf, value, rtol=1e-5, atol=1e-6)


def test_what_does_not_change_stays_to_the_bit():
    first = average.begun(state(np.random.default_rng(1)), TRAINS)
    later = first
    for step in range(1, 30):
        later = average.updated(later.replace(step=jnp.int32(step)), 0.9)
    jax.tree.map(np.testing.assert_array_equal, later.average, first.average)


def test_what_predicts():
    """Averages where there are some, and all else as it is."""
    random = np.random.default_rng(2)
    plain = state(random)
    params, statistics = average.predicting(plain)
    assert params is plain.params
    assert statistics is plain.batch_stats
    kept = average.begun(plain, TRAINS).replace(params=state(random).params)
    params, statistics = average.predicting(kept)
    assert jax.tree.structure(params) == jax.tree.structure(plain.params)
    assert params["network"]["backbone"] == kept.params["network"]["backbone"]
    np.testing.assert_array_equal(
        params["network"]["head_va"]["kernel"], plain.params["network"]["head_va"]["kernel"]
    )
    np.testing.assert_array_equal(statistics["norm"]["mean"], plain.batch_stats["norm"]["mean"])
    restarted = average.restarted(kept)
    params, _ = average.predicting(restarted)
    jax.tree.map(np.testing.assert_array_equal, params, kept.params)
    assert average.restarted(plain) is plain
