"""Networks over time: they start from given answers, and see what they may see."""

import flax.linen as nn
import jax
import numpy as np
import pytest

from mtl_face.config.schema import TemporalConfig
from mtl_face.inputs import answer, windows
from mtl_face.model.conventions import MAX_LOG_RATIO
from mtl_face.model.temporal import TemporalNetwork

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


def test_the_convolution_is_the_one_of_numpy():
    """One group of dilated convolutions, spelt out."""
    network = Drawn("convolution", causal=True)
    params = network.variables["params"]
    inputs = drawn()

    def norm(x, name):
        mean, var = x.mean(-1, keepdims=True), x.var(-1, keepdims=True)
        return (x - mean) / np.sqrt(var + 1e-6) * params[name]["scale"] + params[name]["bias"]

    tokens = norm(inputs["tokens"].astype(np.float32), "token_norm").reshape(2, LENGTH, -1)
    answers = [inputs[answer(task)] for task in ("va", "au", "expr")]
    features = np.concatenate([tokens, *answers, np.log1p(inputs["gaps"])[..., None]], axis=-1)

    def gelu(x):
        return np.asarray(nn.gelu(x))

    hidden = gelu(features @ params["read"]["kernel"] + params["read"]["bias"])
    for dilation in (1, 2, 4, 8):
        layer, given = params[f"convolution1_{dilation}"], norm(hidden, f"norm1_{dilation}")
        branch = np.tile(layer["bias"], (2, LENGTH, 1))
        for tap in range(5):
            back = (4 - tap) * dilation
            if back < LENGTH:
                branch[:, back:] += given[:, : LENGTH - back] @ layer["kernel"][tap]
        hidden = hidden + gelu(branch)
    last = norm(hidden, "final_norm") @ params["correction"]["kernel"]
    expected = np.concatenate(answers, axis=-1) + last + params["correction"]["bias"]
    np.testing.assert_allclose(network(inputs), expected, rtol=1e-3, atol=1e-3)


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
