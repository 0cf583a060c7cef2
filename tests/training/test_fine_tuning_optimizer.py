"""The backbone's stages in the optimizer: frozen, or with a learning rate of their own."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import torch

from mtl_face import config
from mtl_face.config import BackboneConfig, OptimizerConfig
from mtl_face.errors import ConfigError
from mtl_face.model import backbones
from mtl_face.model.geometry import stage_of
from mtl_face.training import optimizer
from mtl_face.training.experiment import Experiment

BETA1, BETA2, EPSILON, DECAY = 0.8, 0.95, 1e-6, 0.1
BACKBONE_RATE, REST_RATE = 1e-2, 3e-2
PARTS = {"conv1": 0, "bn1": 0, "stage1_block1": 1, "stage1_block2": 1, "stage2_block1": 2}
BLOCKS = dict(zip(PARTS, (0, 0, 1, 2, 3), strict=True))
TWO = BackboneConfig(stage_sizes=(2, 1))


def parameters(random):
    def draw(*shape):
        return jnp.asarray(random.normal(size=shape), jnp.float32)

    backbone = {
        part: {"scale": draw(4)} if part == "bn1" else {"conv1": {"kernel": draw(1, 1, 3, 4)}}
        for part in PARTS
    }
    return {"network": {"backbone": backbone, "projection": {"kernel": draw(3, 2)}}}


def by_name(tree):
    leaves = jax.tree_util.tree_flatten_with_path(tree)[0]
    return {"/".join(part.key for part in path): leaf for path, leaf in leaves}


def stage(name):
    """Of a parameter of `parameters`; None outside the backbone."""
    keys = name.split("/")
    return PARTS[keys[2]] if keys[1] == "backbone" else None


RATES = {
    "backbone": lambda step: BACKBONE_RATE,
    "rest": lambda step: REST_RATE,
}


def make(*, rates=RATES, backbone=TWO, **changes):
    settings = OptimizerConfig(weight_decay=DECAY, beta1=BETA1, beta2=BETA2, epsilon=EPSILON)
    settings = dataclasses.replace(settings, **changes)
    return optimizer.make_optimizer(settings, rates, backbone=backbone)


def steps(ours, count=3):
    """Parameters before and after steps, the gradients, and the last state."""
    random = np.random.default_rng(0)
    first = params = parameters(random)
    state, gradients = ours.init(params), []
    for _ in range(count):
        gradients.append(
            jax.tree.map(
                lambda leaf: jnp.asarray(random.normal(size=leaf.shape), jnp.float32), params
            )
        )
        updates, state = ours.update(gradients[-1], state, params)
        params = optax.apply_updates(params, updates)
    return by_name(first), by_name(params), list(map(by_name, gradients)), state


@pytest.mark.parametrize("multipliers", [(0.1, 0.5, 2.0), (0.3,)], ids=["each", "all"])
def test_multipliers_against_pytorch(multipliers):
    """One AdamW of PyTorch's a stage, each with its own rate."""
    first, last, gradients, _ = steps(make(backbone_stage_multipliers=multipliers))
    tensors = {n: torch.nn.Parameter(torch.tensor(np.asarray(v))) for n, v in first.items()}
    groups = []
    for name, tensor in tensors.items():
        rate = REST_RATE
        if stage(name) is not None:
            rate = (
                BACKBONE_RATE
                * (multipliers * 3 if len(multipliers) == 1 else multipliers)[stage(name)]
            )
        decay = DECAY if name.endswith("kernel") else 0.0
        groups.append({"params": [tensor], "lr": rate, "weight_decay": decay})
    reference = torch.optim.AdamW(groups, betas=(BETA1, BETA2), eps=EPSILON)
    for row in gradients:
        for name, gradient in row.items():
            tensors[name].grad = torch.tensor(np.asarray(gradient))
        reference.step()
    for name, leaf in last.items():
        np.testing.assert_allclose(
            leaf, tensors[name].detach().numpy(), rtol=1e-5, atol=1e-6, err_msg=name
        )


def test_multipliers_of_one_change_nothing():
    plain = make()
    ones = make(backbone_stage_multipliers=(1.0, 1.0, 1.0), layer_decay=1.0)
    assert jax.tree.structure(steps(plain)[3]) == jax.tree.structure(steps(ones)[3])
    for name, leaf in steps(plain)[1].items():
        np.testing.assert_array_equal(leaf, steps(ones)[1][name])


@pytest.mark.parametrize("frozen_stages", [-1, 0, 1, 2])
@pytest.mark.parametrize("gradient_clip", [0.0, 0.5])
def test_frozen_stages(frozen_stages, gradient_clip):
    """No step, no decay, no moments; the others go on as they would alone."""
    first, last, gradients, state = steps(
        make(
            backbone=dataclasses.replace(TWO, frozen_stages=frozen_stages),
            gradient_clip=gradient_clip,
            backbone_stage_multipliers=(1.0, 0.5, 0.25),
        )
    )
    frozen = {name for name in first if stage(name) is not None and stage(name) <= frozen_stages}
    assert len(frozen) == {-1: 0, 0: 2, 1: 4, 2: 5}[frozen_stages]
    for name, leaf in last.items():
        assert np.array_equal(leaf, first[name]) == (name in frozen), name
    training = sum(leaf.size for name, leaf in first.items() if name not in frozen)
    moments = [leaf for leaf in jax.tree.leaves(state) if leaf.ndim > 0]
    assert sum(leaf.size for leaf in moments) == 2 * training

    if gradient_clip:
        # The limit holds for what trains: scaled by hand, the same steps come out.
        alone = make(backbone_stage_multipliers=(1.0, 0.5, 0.25))
        params = parameters(np.random.default_rng(0))
        state = alone.init(params)
        for row in gradients:
            norm = np.sqrt(sum(float(jnp.sum(g**2)) for n, g in row.items() if n not in frozen))
            factor = min(1.0, gradient_clip / norm)
            leaves = [factor * leaf for leaf in row.values()]
            clipped = jax.tree.unflatten(jax.tree.structure(params), leaves)
            updates, state = alone.update(clipped, state, params)
            params = optax.apply_updates(params, updates)
        for name, leaf in by_name(params).items():
            if name not in frozen:
                np.testing.assert_allclose(leaf, last[name], rtol=1e-5, atol=1e-7, err_msg=name)


@pytest.mark.parametrize("decay", [0.5, 0.9])
def test_layer_decay_by_hand(decay):
    """The first step of AdamW is rate * (g / (|g| + epsilon) + decay of weights)."""
    first, last, (gradient,), _ = steps(make(layer_decay=decay), 1)
    for name, leaf in first.items():
        block = BLOCKS[name.split("/")[2]] if stage(name) is not None else None
        rate = REST_RATE if block is None else BACKBONE_RATE * decay ** (3 + 1 - block)
        towards = np.sign(gradient[name]) + (DECAY * leaf if name.endswith("kernel") else 0)
        np.testing.assert_allclose(
            last[name] - leaf, -rate * towards, rtol=1e-3, atol=1e-6, err_msg=name
        )


@pytest.mark.parametrize("frozen_blocks", [0, 1, 2, 3])
def test_frozen_blocks(frozen_blocks):
    """As stages, but counted one by one over all of them."""
    first, last, _, _ = steps(
        make(backbone=dataclasses.replace(TWO, frozen_blocks=frozen_blocks), layer_decay=0.7)
    )
    for name, leaf in last.items():
        inside = stage(name) is not None
        frozen = inside and BLOCKS[name.split("/")[2]] <= frozen_blocks
        assert np.array_equal(leaf, first[name]) == frozen, name


def test_blocks_and_stages_freeze_alike():
    sizes = {"stage_sizes": (3, 4, 2)}
    for stages, blocks in ((-1, -1), (0, 0), (1, 3), (2, 7), (3, 9)):
        assert BackboneConfig(**sizes, frozen_stages=stages).last_frozen_block == blocks
        assert BackboneConfig(**sizes, frozen_blocks=blocks).last_frozen_block == blocks
    mobilenet = BackboneConfig(kind="mobilenet", end="pw11", frozen_stages=4)
    assert (mobilenet.num_stages, mobilenet.num_blocks, mobilenet.last_frozen_block) == (11, 11, 4)


@pytest.mark.parametrize("name", ["paper", "mobilenet"])
def test_every_parameter_of_a_backbone_has_a_block(name):
    """Numbers rise with the depth, from the stem's 0 to the last block's, and none is left out."""
    made = Experiment(config.load_config(name, **{"data.root": "/data"}))
    settings = made.config.model.backbone
    found = made.state_like.params["network"]["backbone"]
    numbers = {part: backbones.block_number(settings, (part, "kernel")) for part in found}
    assert set(numbers.values()) == set(range(settings.num_blocks + 1))
    assert numbers["conv1"] == 0
    if settings.kind == "resnet":
        assert numbers["stage2_block1"] == 4
        with pytest.raises(ValueError, match="stage5_block1"):
            backbones.block_number(settings, ("stage5_block1",))


def test_stages_of_parts():
    for part, expected in {**PARTS, "stage12_block10": 12}.items():
        assert stage_of(part) == expected
    for part in ("proj", "stage0_block1", "stage1", "stage1_block0", "xstage1_block1"):
        with pytest.raises(ValueError, match=part):
            stage_of(part)


def settings(backbone, **optimizer_settings):
    return config.validate(
        {
            "data": {"root": "/data"},
            "model": {"backbone": {"stage_sizes": (2, 1), **backbone}},
            "optimizer": optimizer_settings,
        }
    )


@pytest.mark.parametrize(
    ("backbone", "optimizer_settings", "expected"),
    [
        ({"frozen_stages": 3}, {}, "use 2 to freeze the whole backbone"),
        ({"frozen_stages": -2}, {}, "expected at least -1"),
        ({"batch_norm": "locale"}, {}, "did you mean local?"),
        ({"frozen_blocks": 4}, {}, "use 3 to freeze the whole backbone"),
        ({"frozen_blocks": 0, "frozen_stages": 0}, {}, "leave one out"),
        ({}, {"layer_decay": 0.9, "backbone_stage_multipliers": (0.5,)}, "leave one out"),
        ({}, {"layer_decay": 0.0}, "expected more than 0"),
        ({}, {"lora": {"alpha": 3.0}}, "set optimizer.lora.rank"),
        ({}, {"lora": {"rank": 2}, "layer_decay": 0.5}, "set optimizer.lora.trains=all"),
        ({}, {"lora": {"rank": 2, "trains": "head"}}, "did you mean heads?"),
        ({}, {"lora": {"rank": 2}, "trains": ("head_va",)}, "leave trains out"),
        ({"kind": "mobilenet", "drop_path": 0.1}, {}, "no residual branches"),
        ({}, {"backbone_stage_multipliers": (0.5, 1.0)}, "give 3 values, the stem's first"),
        ({}, {"backbone_stage_multipliers": (0.0,)}, "model.backbone.frozen_stages"),
    ],
)
def test_wrong_settings_are_explained(backbone, optimizer_settings, expected):
    with pytest.raises(ConfigError) as raised:
        settings(backbone, **optimizer_settings)
    assert expected in str(raised.value)


def test_only_what_is_named_learns():
    """The rest does not change at all, and has no moments."""
    first, last, _, state = steps(make(trains=("stage2", "projection/kernel")), 2)
    changed = {name for name in first if (first[name] != last[name]).any()}
    assert changed == {
        "network/backbone/stage2_block1/conv1/kernel",
        "network/projection/kernel",
    }
    plain = steps(make(), 2)[1]
    for name in changed:
        np.testing.assert_allclose(last[name], plain[name], rtol=1e-6)
    kept = sum(leaf.size for leaf in jax.tree.leaves(state))
    assert kept == 2 * sum(first[name].size for name in changed) + len(
        [leaf for leaf in jax.tree.leaves(state) if leaf.ndim == 0]
    )


@pytest.mark.parametrize(
    ("pattern", "expected"), [("head_vo", "head_va"), ("head_(", "no regular expression")]
)
def test_a_name_that_nothing_has(pattern, expected):
    made = Experiment(settings({}, trains=(pattern,)))
    with pytest.raises(ConfigError, match="trains holds") as raised:
        made.check_rules()
    assert expected in str(raised.value)


def test_settings_reach_the_optimizer():
    rates = {"backbone_learning_rate": 1.0, "learning_rate": 1.0, "warmup_epochs": 0.0}
    made = settings(
        {"frozen_stages": 1, "batch_norm": "local"},
        **rates,
        backbone_stage_multipliers=(0.5, 0.5, 2.0),
    )
    first, last, _, _ = steps(Experiment(made).optimizer, 1)
    _, plain_last, _, _ = steps(Experiment(settings({}, **rates)).optimizer, 1)
    for name, leaf in last.items():
        factor = {0: 0, 1: 0, 2: 2, None: 1}[stage(name)]
        expected = factor * (plain_last[name] - first[name])
        np.testing.assert_allclose(leaf - first[name], expected, rtol=1e-5, err_msg=name)


def test_an_experiment_counts_its_devices():
    network = Experiment(settings({"batch_norm": "local", "frozen_stages": 0})).network
    assert network.devices == len(jax.devices()) == 8
