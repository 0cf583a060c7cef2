"""The configs and the presets of the network say the same."""

from pathlib import Path

import pytest

from mtl_face import config
from mtl_face.model.network import MtlFace
from mtl_face.model.presets import PAPER, TINY
from mtl_face.training import experiment

CONFIGS = Path(__file__).parents[2] / "configs"


@pytest.mark.parametrize(
    ("name", "preset"),
    [("paper", PAPER), ("paper_mixup", PAPER), ("paper_ensemble", PAPER), ("rendered_faces", TINY)],
)
def test_config_builds_its_preset(name, preset):
    overrides = [] if name == "rendered_faces" else ["data.root=anywhere"]
    settings = config.load(CONFIGS / f"{name}.py", [*overrides, "model.backbone.convolution=xla"])
    assert experiment.network(settings.model) == MtlFace(**preset)
