"""Settings of the uncertainty that would change nothing are refused, with the remedy."""

import pytest

from mtl_face import config
from mtl_face.errors import ConfigError


def validate(**changes):
    return config.validate({"data": {"root": "/data"}} | changes)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"uncertainty": {"beta_nll": 0.5}}, "va_variance=per_example"),
        ({"evaluation": {"mc_dropout_samples": 1}}, "no spread"),
        ({"evaluation": {"mc_dropout_samples": 20}, "model": {"dropout": 0.0}}, "dropout is 0"),
        ({"model": {"va_variance": "each"}}, "one of shared, per_example"),
        (
            {"model": {"va_variance": "per_example"}, "uncertainty": {"beta_nll": 2.0}},
            "at most 1",
        ),
        ({"data": {"kind": "rendered_faces", "rendered_faces": {"va_noise": "pitch"}}}, "yaw"),
    ],
)
def test_mistakes(changes, words):
    with pytest.raises(ConfigError) as raised:
        validate(**changes)
    assert words in str(raised.value)


def test_settings_that_go_together():
    made = validate(
        model={"va_variance": "per_example"},
        uncertainty={"beta_nll": 0.5, "kind": "learned"},
        evaluation={"mc_dropout_samples": 20},
    )
    assert made.uncertainty.beta_nll == 0.5
    assert validate().model.va_variance == "shared"
