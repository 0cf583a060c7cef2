"""A run that starts from the weights of a whole network."""

import types

import jax
import numpy as np
import pytest

from mtl_face import export
from mtl_face.config.load import load_config
from mtl_face.errors import ConfigError, WeightsError
from mtl_face.faces import points
from mtl_face.run import workdir as workdirs
from mtl_face.run.train import _start, initial_weights
from mtl_face.training.experiment import Experiment
from mtl_face.training.state import with_network
from mtl_face.weights import card as cards
from mtl_face.weights import exported


def test_a_whole_network_to_start_from(tmp_path):
    """The arrays of the bundled model, all of them, with where they come from.

    The moving average of a run begins at them too, and not at the weights that they replace.
    """
    config = load_config("geometry", training={"init_from": "geometry", "ema_decay": 0.9})
    weights = initial_weights(config, lambda line: None)
    assert weights.whole
    variables, card = exported.load(workdirs.bundled()["geometry"])
    found = {"params": weights.params, "batch_stats": weights.batch_stats}
    assert exported.weights_sha256(found) == card["weights_sha256"] == weights.source["sha256"]
    trainer = types.SimpleNamespace(
        experiment=Experiment(config),
        checkpoints=types.SimpleNamespace(metadata={}, save=lambda step, state: None),
        say=print,
        workdir=tmp_path,
    )
    state = _start(trainer, None, weights, {"labels": {}})
    for params in (state.params, state.average["params"]):
        network = jax.device_get(params["network"])
        assert exported.weights_sha256({"params": network}) == exported.weights_sha256(
            {"params": variables["params"]}
        )
    assert "rendered faces" in weights.source["provenance"]["training_data"]


SHARED = {"model": {"va_variance": "shared"}, "uncertainty": {"beta_nll": 0.0}}


@pytest.fixture
def shared(tmp_path):
    """An export of a network without predicted variances, and its arrays."""
    config = load_config("geometry", **SHARED)
    network = jax.device_get(Experiment(config).make_state().params["network"])
    temperatures = dict.fromkeys(("va", "au", "expr"), 1.0)
    card = cards.make(config, temperatures=temperatures, crop={}, step=1)
    card["points"] = points.statement(["person"])
    export.save(tmp_path / "shared", {"params": network, "batch_stats": {}}, card, form="orbax")
    return tmp_path / "shared", network


def start_from(folder, **model):
    trains = ["head_va_variance"] if "va_variance" in model else None
    changes = {"training": {"init_from": str(folder)}, "optimizer": {"trains": trains}}
    return load_config("geometry", **changes, model=model)


def test_a_head_of_variances_can_be_new(shared):
    """It begins at 0, so that all variances are the shared one; the rest is the given network."""
    folder, given = shared
    config = start_from(folder, va_variance="from_features")
    said = []
    weights = initial_weights(config, said.append)
    assert said == [f"starting from the weights of {folder}, with a new head_va_variance"]
    state = with_network(Experiment(config).make_state(), weights.params, weights.batch_stats)
    network = jax.device_get(state.params["network"])
    head = network.pop("head_va_variance")
    assert head["dense1"]["kernel"].shape[0] > 1000
    assert not any(leaf.any() for leaf in jax.tree.leaves(head))
    jax.tree.map(np.testing.assert_array_equal, network, given)


def test_no_other_part_of_a_network_can_be_new(shared):
    folder, given = shared
    with pytest.raises(WeightsError, match=r"va_variance is 'shared' there, 'per_example' in"):
        initial_weights(start_from(folder, va_variance="per_example"), print)
    state = Experiment(load_config("geometry", **SHARED)).make_state()
    del given["decoder"]
    with pytest.raises(ValueError, match="decoder"):
        with_network(state, given, {})


def test_another_network_is_refused_as_a_start():
    config = load_config("geometry", training={"init_from": "geometry"}, model={"embed_dim": 32})
    with pytest.raises(WeightsError, match=r"model.embed_dim is 64 there, 32 in the config"):
        initial_weights(config, print)


def test_two_starts_are_refused():
    with pytest.raises(ConfigError, match="both set"):
        load_config(
            "paper",
            training={"init_from": "geometry"},
            model={"backbone": {"init_from": "x.h5"}},
        )
