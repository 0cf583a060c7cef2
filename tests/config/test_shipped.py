"""The shipped experiments, and the two sizes of network that they train."""

from pathlib import Path

import pytest
from model_settings import changed

from configs.abaw11 import EDITION
from configs.frame_best import OPTIONS
from data_pipeline.formats.editions import MULTI_TASK, find_edition
from mtl_face import config
from mtl_face.config import ModelConfig
from mtl_face.config.dotted import flat

CONFIGS = Path(__file__).parents[2] / "configs"


@pytest.mark.parametrize("name", ["paper", "paper_mixup", "paper_ensemble"])
def test_the_defaults_of_the_network_are_the_papers(name):
    assert config.load(CONFIGS / f"{name}.py", ["data.root=anywhere"]).model == ModelConfig()


def test_the_networks_that_take_points():
    points = config.load(CONFIGS / "geometry.py").model
    assert points.inputs == ("points",)
    both = config.load(CONFIGS / "mobilenet.py").model
    assert both.inputs == ("image", "points")
    assert both.backbone.frozen_stages == both.backbone.num_stages == 11
    same = ("embed_dim", "num_heads", "encoder_layers", "head_width", "points", "dropout")
    assert all(getattr(points, name) == getattr(both, name) for name in same)


def test_the_network_to_learn_with():
    assert config.load(CONFIGS / "rendered_faces.py").model == changed(
        ModelConfig(),
        input_size=112,
        input_mean=(127.5, 127.5, 127.5),
        input_std=(64.0, 64.0, 64.0),
        stage_sizes=(1, 1, 1, 1),
        width=24,
        expansion=1,
        variant="torchvision",
        embed_dim=96,
        num_heads=8,
        encoder_layers=1,
        decoder_modules=1,
        decoder_mlp="last",
        head_layers=2,
        head_width=96,
        dropout=0.0,
        norm="pre",
        token_init_std=1.0,
    )


def test_options_of_the_recipe_are_off_in_the_paper():
    """Each differs from the paper's value, and all of them are in the recipe."""
    paper, recipe = (
        flat(config.load(CONFIGS / f"{name}.py", ["data.root=anywhere"]))
        for name in ("paper", "frame_best")
    )
    names = {name: value for options in OPTIONS.values() for name, value in options.items()}
    assert len(names) == sum(map(len, OPTIONS.values()))
    assert {name: recipe[name] for name in names} == names
    assert all(paper[name] != value for name, value in names.items())


def test_the_network_over_time_fits_the_recipe_of_frames():
    """It reads tokens of that width, and its answers are weighed as those that it corrects."""
    frames = config.load(CONFIGS / "frame_best.py", ["data.root=anywhere"])
    over_time = config.load(CONFIGS / "temporal_best.py", ["data.root=anywhere"])
    assert over_time.is_over_time
    assert over_time.model.embed_dim == frames.model.embed_dim
    assert over_time.model.va_variance == frames.model.va_variance
    assert over_time.loss == frames.loss
    assert over_time.uncertainty == frames.uncertainty


def test_the_challenge_is_the_recipe_of_frames_on_its_data():
    recipe, challenge = (
        flat(config.load(CONFIGS / f"{name}.py", ["data.root=anywhere"]))
        for name in ("frame_best", "abaw11")
    )
    names = {name for name in recipe if recipe[name] != challenge[name]}
    assert names <= {"name", "data.train_annotations", "data.validation_annotations"}
    assert find_edition(EDITION) is MULTI_TASK
