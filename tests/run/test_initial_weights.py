"""A run that starts from the weights of a whole network."""

import jax
import pytest

from mtl_face.config.load import load_config
from mtl_face.errors import ConfigError, WeightsError
from mtl_face.run import workdir as workdirs
from mtl_face.run.train import initial_weights
from mtl_face.training.experiment import Experiment
from mtl_face.training.state import with_network
from mtl_face.weights import exported


def test_a_whole_network_to_start_from():
    """The arrays of the bundled model, all of them, with where they come from."""
    config = load_config("geometry", training={"init_from": "geometry"})
    weights = initial_weights(config, lambda line: None)
    assert weights.whole
    variables, card = exported.load(workdirs.bundled()["geometry"])
    found = {"params": weights.params, "batch_stats": weights.batch_stats}
    assert exported.weights_sha256(found) == card["weights_sha256"] == weights.source["sha256"]
    state = with_network(Experiment(config).make_state(), weights.params, weights.batch_stats)
    network = jax.device_get(state.params["network"])
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
