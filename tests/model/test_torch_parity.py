"""Our network and loss against the paper's in PyTorch: outputs, attention and every gradient."""

from typing import Any

import drawn_weights
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
import torch_reference
from model_settings import PAPER, changed

from mtl_face.config import ModelConfig
from mtl_face.config.schema import ConvNextConfig, VitConfig
from mtl_face.model.network import MtlFace
from mtl_face.objective.losses import multi_task_loss

TEMPERATURES = {"va": 1.0, "au": 1.0, "expr": 5.0}
MOMENTUM = 0.9

SMALL = changed(
    PAPER,
    input_size=40,  # maps of 20, 10 and 5 pixels: even and odd at the strides
    input_mean=(131.0, 104.0, 91.0),
    input_std=(60.0, 50.0, 40.0),
    stage_sizes=(1, 2),
    width=4,
    expansion=2,
    embed_dim=16,
    num_heads=2,
    mlp_ratio=2,
    head_layers=3,
    head_width=12,
    dropout=0.0,
)
SHALLOW = changed(SMALL, stage_sizes=(1, 1), encoder_layers=1, decoder_modules=1, head_layers=2)
OTHER_BACKBONES: dict[str, dict[str, Any]] = {
    "vit": {"vit": VitConfig(patch=8, width=12, depth=2, num_heads=3, mlp_width=20)},
    "convnext": {"convnext": ConvNextConfig(depths=(1, 2), widths=(6, 10))},
}
PLACES = [
    {"norm": norm, "decoder_mlp": mlp, "position": position}
    for norm in ("post", "pre")
    for mlp in ("each", "last")
    for position in ("2d", "1d")
]

RELATIVE = {jnp.float32: 1e-4, jnp.float64: 3e-6}
"""Largest difference allowed, over the largest element of the same array. The loss is float32."""


def draw_variables(network: Any) -> Any:
    """Random variables of unit gain; scales and variances near 1, none of them 0 or 1."""
    size = network.settings.input_size
    image = jax.ShapeDtypeStruct((1, size, size, 3), jnp.float32)
    shapes = jax.eval_shape(lambda x: network.init(jax.random.key(0), x, train=False), image)
    return jax.tree.map(jnp.asarray, drawn_weights.drawn(shapes))


def draw_batch(size: int, count: int, masks: str) -> tuple[np.ndarray, dict, dict]:
    """Images, targets and masks: all labels, or some of each kind and one example with none."""
    rng = np.random.default_rng(5)
    image_BHWC = rng.integers(0, 256, (count, size, size, 3)).astype(np.float32)
    targets = {
        "va": rng.uniform(-1, 1, (count, 2)),
        "au": rng.integers(0, 2, (count, 12)).astype(float),
        "expr": np.eye(8)[rng.integers(0, 8, count)],
    }
    present = {
        "va": np.ones(count, bool),
        "au": np.ones((count, 12), bool),
        "expr": np.ones(count, bool),
    }
    if masks == "partial":
        present["va"] = np.arange(count) % 2 == 0
        present["au"] = rng.uniform(size=(count, 12)) < 0.5
        present["au"][1] = False
        present["expr"] = np.arange(count) % 3 == 0
        for mask in present.values():
            mask[-1] = False
        assert present["au"][0].any()
        assert not present["au"][0].all()
        for task, target in targets.items():
            mask = present[task]
            target[~mask] = np.nan
    return image_BHWC, targets, present


def by_path(tree: Any) -> dict[tuple[str, ...], np.ndarray]:
    leaves = jax.tree_util.tree_flatten_with_path(tree)[0]
    return {tuple(part.key for part in path): np.asarray(leaf) for path, leaf in leaves}


def make_ours(network: Any) -> Any:
    """Jitted (variables, image, targets, weights) -> loss, outputs, statistics, gradients."""

    @jax.jit
    def step(variables: Any, image_BHWC: Any, targets: Any, weights: Any) -> Any:
        def loss_of(params: Any) -> Any:
            outputs, updated = network.apply(
                variables | {"params": params},
                image_BHWC,
                train=True,
                mutable=["batch_stats"],
                return_attention=True,
            )
            result = multi_task_loss(outputs, targets, weights, temperatures=TEMPERATURES)
            return result.total, (outputs, updated.get("batch_stats", {}))

        (loss, (outputs, statistics)), gradients = jax.value_and_grad(loss_of, has_aux=True)(
            variables["params"]
        )
        return loss, outputs, statistics, gradients

    return step


def run_reference(settings: ModelConfig, variables: Any, batch: Any, batch_norm: str) -> Any:
    """(loss, outputs, network after the backward pass) of the PyTorch network, in float64."""
    reference = torch_reference.PaperNetwork(settings).double().train()
    torch_reference.load(
        reference, by_path(variables["params"]) | by_path(variables.get("batch_stats", {}))
    )
    for module in reference.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.momentum = 1 - MOMENTUM
            module.train(batch_norm == "batch")
            module.register_forward_pre_hook(remember_count)
    image_BHWC, targets, present = batch
    outputs = reference(torch.tensor(image_BHWC, dtype=torch.float64))
    loss = torch_reference.paper_loss(
        outputs,
        {task: torch.tensor(value) for task, value in targets.items()},
        {task: torch.tensor(value) for task, value in present.items()},
        TEMPERATURES,
    )
    loss.backward()
    return loss.item(), outputs, reference


def remember_count(module: Any, inputs: Any) -> None:
    """Notes how many values a channel's statistics are taken over."""
    module.count = inputs[0].numel() // inputs[0].shape[1]


def assert_near(found: Any, expected: Any, name: str, relative: float) -> None:
    found, expected = np.asarray(found, np.float64), np.asarray(expected, np.float64)
    assert found.shape == expected.shape, name
    difference, largest = np.abs(found - expected).max(), np.abs(expected).max()
    assert largest > 0, name
    assert difference <= relative * largest, f"{name}: {difference:.3g} of {largest:.3g}"


def assert_same_outputs(found: Any, expected: Any, relative: float) -> None:
    assert set(found) == set(expected) == {"va", "au", "expr", "attention"}
    for name, value in found.items():
        assert_near(value, expected[name].detach(), name, relative)


def assert_same_gradients(found: Any, reference: Any, relative: float) -> None:
    parameters = dict(reference.named_parameters())
    gradients = by_path(found)
    largest = max(np.abs(leaf).max() for leaf in gradients.values())
    for path, leaf in gradients.items():
        gradient = torch_reference.as_ours(path, lambda name: parameters[name].grad).numpy()
        if path[-2:] == ("key", "bias"):
            # A constant added to a row of scores, which the softmax takes away: exactly 0.
            assert np.abs(leaf).max() < 1e-6 * largest, path
            assert np.abs(gradient).max() < 1e-12 * largest, path
        else:
            assert_near(leaf, gradient, "/".join(path), relative)


def assert_same_statistics(
    found: Any, before: Any, reference: Any, batch_norm: str, relative: float
) -> None:
    """Running statistics; PyTorch's variance is the unbiased one, ours the batch's own."""
    buffers, before = dict(reference.named_buffers()), by_path(before)
    for path, leaf in by_path(found).items():
        value = torch_reference.as_ours(path, buffers.__getitem__).numpy()
        if batch_norm == "batch" and path[-1] == "var":
            count = reference.get_submodule(".".join(path[:-1])).count
            kept = MOMENTUM * before[path]
            value = kept + (value - kept) * (count - 1) / count
        assert_near(leaf, value, "/".join(path), relative)


def check(
    settings: ModelConfig,
    dtype: Any = jnp.float64,
    *,
    batch_norm: str = "batch",
    convolution: str = "xla",
    count: int = 4,
    masks: tuple[str, ...] = ("full", "partial"),
) -> None:
    """Compares a step of both, with all labels and with some, in training mode."""
    with jax.enable_x64(dtype == jnp.float64):
        network: Any = MtlFace(
            changed(
                settings,
                compute_dtype=jnp.dtype(dtype).name,
                batch_norm=batch_norm,
                convolution=convolution,
            )
        )
        variables = jax.tree.map(lambda leaf: leaf.astype(dtype), draw_variables(network))
        ours, relative = make_ours(network), RELATIVE[dtype]
        for mask in masks:
            batch = draw_batch(settings.input_size, count, mask)
            image_BHWC, targets, present = batch
            loss, outputs, statistics, gradients = jax.device_get(
                ours(
                    variables,
                    image_BHWC,
                    {task: value.astype(np.float32) for task, value in targets.items()},
                    {task: value.astype(np.float32) for task, value in present.items()},
                )
            )
            expected_loss, expected, reference = run_reference(
                settings, variables, batch, batch_norm
            )
            assert_near(loss, expected_loss, "loss", relative)
            assert_same_outputs(outputs, expected, relative)
            assert_same_gradients(gradients, reference, relative)
            before = variables.get("batch_stats", {})
            assert_same_statistics(statistics, before, reference, batch_norm, relative)


def test_paper_arrangement_in_float32():
    """As it trains on a CPU."""
    check(changed(SHALLOW, **PLACES[0]), jnp.float32, convolution="matmul")


@pytest.mark.parametrize(("kind", "convolution"), [("vit", "xla"), ("convnext", "matmul")])
def test_other_backbones(kind, convolution):
    settings = changed(SHALLOW, **PLACES[0], kind=kind, **OTHER_BACKBONES[kind])
    check(settings, convolution=convolution, masks=("full",))


def test_a_form_that_is_not_written_in_pytorch_is_refused():
    settings = changed(SHALLOW, kind="vit", vit=VitConfig(registers=2))
    with pytest.raises(ValueError, match="this form of vit"):
        torch_reference.PaperNetwork(settings)


@pytest.mark.slow
def test_frozen_statistics():
    check(changed(SHALLOW, **PLACES[-1], variant="torchvision"), batch_norm="frozen")


@pytest.mark.slow
@pytest.mark.parametrize("index", range(len(PLACES)), ids=["-".join(p.values()) for p in PLACES])
def test_every_arrangement(index):
    """At full depth, the geometries in turn."""
    variant = ("caffe", "keras", "torchvision")[index % 3]
    check(changed(SMALL, **PLACES[index], variant=variant))


@pytest.mark.slow
def test_paper_preset():
    """Every one of the 72.9 million gradients."""
    check(changed(PAPER, dropout=0.0), count=3, masks=("partial",))


@pytest.mark.parametrize("change", [{"position": "1d"}, {"variant": "torchvision"}])
def test_a_small_difference_is_noticed(change):
    """The comparison has eyes: the same weights in another position code, another geometry."""
    settings = changed(SHALLOW, **PLACES[0])
    network: Any = MtlFace(settings)
    variables, batch = draw_variables(network), draw_batch(40, 4, "full")
    _, right, reference = run_reference(settings, variables, batch, "batch")
    _, wrong, other = run_reference(changed(settings, **change), variables, batch, "batch")
    wrong = {name: value.detach() for name, value in wrong.items()}
    with pytest.raises(AssertionError, match=r"^va: .* of "):
        assert_same_outputs(wrong, right, RELATIVE[jnp.float32])
    bias = {"head_va": {"dense1": {"bias": other.head_va.dense1.bias.grad.numpy()}}}
    with pytest.raises(AssertionError, match="head_va/dense1/bias: "):
        assert_same_gradients(bias, reference, RELATIVE[jnp.float32])
