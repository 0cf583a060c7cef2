"""Networks over time: they start from given answers, and see what they may see."""

import dataclasses

import jax
import numpy as np
import numpy_network
import pytest

from mtl_face.config.check import validate
from mtl_face.config.schema import TemporalConfig
from mtl_face.inputs import answer, windows
from mtl_face.model.conventions import MAX_LOG_RATIO
from mtl_face.model.temporal import TemporalNetwork
from mtl_face.weights import card_network, exported

LENGTH, WIDTH = 12, 4
KINDS = ("gru", "convolution", "attention")


def drawn(seed=0, batch=2, va_variance=False):
    random = np.random.default_rng(seed)
    inputs = {
        name: random.normal(size=(batch, *shape)).astype(dtype)
        for name, (dtype, shape) in windows(LENGTH, WIDTH, va_variance=va_variance).items()
    }
    inputs["gaps"] = random.integers(1, 5, (batch, LENGTH)).astype(np.int32)
    inputs["gaps"][:, 0] = 0
    return inputs


class Drawn:
    """A network whose weights are drawn, the correction's too, compiled once for all its tests."""

    def __init__(self, kind, causal):
        settings = TemporalConfig(kind=kind, causal=causal, window=LENGTH, layers=1, width=8)
        self.network = TemporalNetwork(settings)
        self.begin = jax.jit(
            lambda inputs: self.network.init(jax.random.key(0), inputs, train=False)
        )(drawn())
        random = np.random.default_rng(1)
        self.variables = jax.tree.map(
            lambda leaf: random.normal(0, 0.5, leaf.shape).astype(np.float32), self.begin
        )
        self._apply = jax.jit(
            lambda variables, inputs: self.network.apply(variables, inputs, train=False)
        )

    def __call__(self, inputs, variables=None):
        outputs = self._apply(self.variables if variables is None else variables, inputs)
        return np.concatenate([outputs[task] for task in ("va", "au", "expr")], axis=1).reshape(
            -1, LENGTH, 22
        )


@pytest.fixture(scope="module", params=[(kind, causal) for kind in KINDS for causal in (0, 1)])
def network(request):
    kind, causal = request.param
    return Drawn(kind, bool(causal))


def test_it_starts_from_the_given_answers_to_the_bit(network):
    inputs = drawn()
    given = np.concatenate([inputs[answer(task)] for task in ("va", "au", "expr")], axis=-1)
    np.testing.assert_array_equal(network(inputs, network.begin), given)
    assert np.abs(network(inputs) - given).max() > 0.1


def test_what_a_frame_sees(network):
    """All of its window, or with `causal` the frames up to it: to the bit."""
    inputs = drawn()
    before = network(inputs)
    later = {name: array.copy() for name, array in inputs.items()}
    for name, array in drawn(seed=5).items():
        later[name][:, 8:] = array[:, 8:]
    changed_2W = (network(later) != before).any(axis=-1)
    assert changed_2W[:, 8:].all()
    assert not (network.network.settings.causal and changed_2W[:, :8].any())
    assert network.network.settings.causal or changed_2W[:, 7].all()
    earlier = {name: array.copy() for name, array in inputs.items()}
    earlier["tokens"][:, 4] += 1
    assert (network(earlier) != before).any(axis=-1)[:, 5:].any()


def test_windows_are_apart_and_padding_is_not_seen(network):
    inputs = drawn()
    others = {name: array.copy() for name, array in inputs.items()}
    for name, array in drawn(seed=7).items():
        others[name][1] = array[1]
    np.testing.assert_array_equal(network(others)[0], network(inputs)[0])
    short = {name: array.copy() for name, array in inputs.items()}
    short["gaps"][:, 9:] = -1
    padded = network(short)[:, :9]
    for name, array in drawn(seed=6).items():
        if name != "gaps":
            short[name][:, 9:] = array[:, 9:]
    np.testing.assert_array_equal(network(short)[:, :9], padded)


def test_gaps_matter(network):
    inputs = drawn()
    wide = {**inputs, "gaps": inputs["gaps"] * 7}
    assert np.abs(network(wide) - network(inputs)).max() > 1e-3


def test_it_is_what_its_card_says(network):
    """Rebuilt by NumPy from the card's statement and the arrays, of a window with padding too."""
    settings = network.network.settings
    config = validate(
        {
            "data": {"root": "/x"},
            "model": {"embed_dim": WIDTH, "num_heads": 1},
            "temporal": {**dataclasses.asdict(settings), "frame_model": "/frames"},
        }
    )
    inputs = drawn()
    inputs["gaps"][1, 9:] = -1
    stated = card_network.over_time(config)["over_time"]
    found = numpy_network.over_time(stated, exported.flatten(network.variables), inputs)
    expected = network(inputs)
    for window, rows in ((0, LENGTH), (1, 9)):
        np.testing.assert_allclose(
            found[window], expected[window, :rows], rtol=1e-4, atol=1e-4, err_msg=str(window)
        )


@pytest.mark.parametrize("kind", ["per_example", "from_features"])
def test_predicted_variances_start_from_the_given_ones_and_are_bounded(kind):
    settings = TemporalConfig(kind="convolution", window=LENGTH, layers=1, width=8)
    network, inputs = TemporalNetwork(settings, kind), drawn(va_variance=True)

    @jax.jit
    def answers(inputs):
        start, variables = network.init_with_output(jax.random.key(0), inputs, train=False)
        variables["params"]["correction"]["bias"] += 1e3
        return start, network.apply(variables, inputs, train=False)

    start, moved = answers(inputs)
    given = inputs[answer("va_log_variance")].reshape(-1, 2)
    np.testing.assert_array_equal(start["va_log_variance"], given)
    np.testing.assert_array_equal(moved["va_log_variance"], MAX_LOG_RATIO)
