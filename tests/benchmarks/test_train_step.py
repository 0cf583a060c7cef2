"""The benchmark of a train step: both networks are one, and a difference is noticed."""

import numpy as np
import pytest
import small_experiment

import mtl_face

pytestmark = pytest.mark.torch

TINY = {
    "vit": {"patch": 16, "width": 12, "depth": 1, "num_heads": 2, "mlp_width": 8},
    "convnext": {"depths": (1, 1), "widths": (4, 8)},
}


@pytest.fixture
def train_step():
    pytest.importorskip("torch")
    from benchmarks import train_step

    return train_step


@pytest.mark.slow  # tests/model/test_torch_parity.py compares the networks in the quick suite
@pytest.mark.parametrize("kind", TINY)
def test_both_sides_agree_and_have_times(train_step, tmp_path, kind):
    config = small_experiment.write_config(tmp_path)
    changes = {f"model.backbone.{kind}.{name}": value for name, value in TINY[kind].items()}
    changes["model.backbone.kind"] = kind
    settings = mtl_face.load_config(config, **train_step.FIXED, **changes)
    groups = train_step.compare(settings, kind, 2, rounds=2, compiled=False)
    assert [group.name for group in groups] == [
        f"{kind}, train step, batch 2",
        f"{kind}, forward, batch 2",
    ]
    for group in groups:
        assert list(group.times) == ["mtl_face", "PyTorch", "PyTorch, channels-last"]
        assert group.reference.startswith("PyTorch")
        assert all(len(times) == 2 and min(times) > 0 for times in group.times.values())


@pytest.mark.parametrize("part", ["au", "loss"])
def test_another_network_is_noticed(train_step, part):
    def values():
        return {task: np.ones((2, 3)) for task in ("va", "au", "expr")}, np.ones(())

    train_step.check_equal({"mtl_face": values(), "other": values()})
    outputs, loss = values()
    if part == "loss":
        loss = loss * 1.01
    else:
        outputs[part][1, 2] = 1.01
    with pytest.raises(ValueError, match=rf"other, {part}: differs by 0\.01 of 1"):
        train_step.check_equal({"mtl_face": values(), "other": (outputs, loss)})
