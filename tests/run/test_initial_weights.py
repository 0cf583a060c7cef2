"""A run that starts from the weights of a whole network."""

import types

import jax
import pytest

from mtl_face.config.load import load_config
from mtl_face.errors import ConfigError, WeightsError
from mtl_face.run import workdir as workdirs
from mtl_face.run.train import _start, initial_weights
from mtl_face.training.experiment import Experiment
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
