"""A training step and a forward pass beside PyTorch: same network, optimizer and data in memory.

    python -m benchmarks.train_step --output=docs/benchmarks/train_step.json
    python -m benchmarks.train_step --experiments rendered_faces --batch-sizes 16

Float32 on the default device's processor cores. Both sides take the paper's masked loss of the
same labels and one AdamW step over all parameters; augmentation and dropout are off. PyTorch runs
as written, in channels-last layout, and compiled (`torch.compile`, channels-last). Its network is
the one of the tests, which has our weights' outputs and gradients.
"""

import argparse
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import torch
from torch.nn import functional

import mtl_face
from benchmarks import comparison
from mtl_face.config import Config
from mtl_face.training import experiment, step
from tests.torch_reference import PaperNetwork

Batch = dict[str, Any]


def main() -> None:
    """Prints one table for each experiment, batch size and kind of pass."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    comparison.add_arguments(parser, rounds=9)
    parser.add_argument("--experiments", nargs="+", default=["paper", "rendered_faces"])
    parser.add_argument("--batch-sizes", type=int, nargs="+", default=[8, 32])
    parser.add_argument("--no-compiled", action="store_true", help="without torch.compile")
    options = parser.parse_args()
    groups = []
    for name in options.experiments:
        settings = mtl_face.load_config(name, **{"data.root": ".", "model.dropout": 0.0})
        for batch_size in options.batch_sizes:
            batch = make_batch(settings.model.input_size, batch_size)
            ways = {"mtl_face": our_ways(settings, batch)}
            network = PaperNetwork(settings.model, attention=False)
            for label, compiled, layout in torch_layouts(compiled=not options.no_compiled):
                ways[label] = torch_ways(network, batch, compiled=compiled, layout=layout)
            for kind in ("train step", "forward"):
                seconds = comparison.time_in_turn(
                    {label: pair[kind] for label, pair in ways.items()}, rounds=options.rounds
                )
                times = {
                    label: [1e3 * value / batch_size for value in values]
                    for label, values in seconds.items()
                }
                title = f"{name}, {kind}, batch {batch_size}"
                groups.append(comparison.Group(title, best_of_torch(times), "ms an image", times))
                print(f"done: {title}", flush=True)
    comparison.report("Training step and forward pass", groups, options.output)


def best_of_torch(times: dict[str, list[float]]) -> str:
    """The fastest way that is not ours."""
    others = [label for label in times if label != "mtl_face"]
    return min(others, key=lambda label: comparison.spread(times[label]).median)


def make_batch(size: int, count: int) -> Batch:
    """A fully labelled batch of noise, uint8 [count, size, size, 3] and float32 labels."""
    rng = np.random.default_rng(0)
    targets = {
        "va": rng.uniform(-1, 1, (count, 2)),
        "au": rng.integers(0, 2, (count, 12)),
        "expr": np.eye(8)[rng.integers(0, 8, count)],
    }
    shapes = {"va": (count,), "au": (count, 12), "expr": (count,)}
    return {
        "image": rng.integers(0, 256, (count, size, size, 3), dtype=np.uint8),
        "targets": {task: value.astype(np.float32) for task, value in targets.items()},
        "weights": {task: np.ones(shape, np.float32) for task, shape in shapes.items()},
    }


def our_ways(settings: Config, batch: Batch) -> dict[str, Callable[[], object]]:
    """The jitted step of `training`, without its augmentation, and the network's prediction."""
    parts = experiment.Experiment(settings, devices=jax.devices()[:1])

    def as_float(key: Any, image: jax.Array, targets: Any, weights: Any) -> Any:
        del key
        return image.astype(jnp.float32), targets, weights

    train_step = step.make_train_step(
        parts.network,
        parts.optimizer,
        parts.mesh,
        parts.state_shardings,
        augment=as_float,
        objective=parts.objective,
    )
    state = parts.make_state()
    data = jax.device_put(batch)
    predict = jax.jit(lambda variables, image: parts.network.apply(variables, image, train=False))
    held = {"params": state.params["network"], "batch_stats": state.batch_stats}
    variables = jax.tree.map(jnp.copy, held)
    image = data["image"].astype(jnp.float32)

    def train() -> None:
        nonlocal state
        state, _ = train_step(state, data)
        jax.block_until_ready(state)

    return {
        "train step": train,
        "forward": lambda: jax.block_until_ready(predict(variables, image)),
    }


def torch_layouts(*, compiled: bool) -> list[tuple[str, bool, torch.memory_format]]:
    """Ways to run PyTorch: its name, whether compiled, and the layout."""
    ways = [
        ("PyTorch", False, torch.contiguous_format),
        ("PyTorch, channels-last", False, torch.channels_last),
    ]
    if compiled:
        ways.append(("PyTorch, compiled, channels-last", True, torch.channels_last))
    return ways


def torch_ways(
    network: PaperNetwork, batch: Batch, *, compiled: bool, layout: torch.memory_format
) -> dict[str, Callable[[], object]]:
    """The same step and prediction in PyTorch."""
    network = network.to(memory_format=layout)
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-4, fused=True)
    image = torch.from_numpy(batch["image"]).float()
    targets = {task: torch.from_numpy(value) for task, value in batch["targets"].items()}
    weights = {task: torch.from_numpy(value) for task, value in batch["weights"].items()}

    def loss_of(image: torch.Tensor) -> torch.Tensor:
        outputs = network(image)
        va = (outputs["va"] - targets["va"]).square().mean(1) / 2
        au = functional.binary_cross_entropy_with_logits(
            outputs["au"], targets["au"], reduction="none"
        )
        au = (au * weights["au"]).sum(1) / weights["au"].sum(1) / 2
        expr = functional.cross_entropy(outputs["expr"], targets["expr"], reduction="none")
        tasks = torch.stack([va, au, expr], dim=1)
        masks = torch.stack([weights["va"], weights["au"].amax(1), weights["expr"]], dim=1)
        return ((tasks * masks).sum(1) / masks.sum(1)).mean()

    forward: Callable[..., Any] = network
    if compiled:
        loss_of = torch.compile(loss_of)
        forward = torch.compile(network)

    def train() -> None:
        network.train()
        optimizer.zero_grad(set_to_none=True)
        loss_of(image).backward()
        optimizer.step()

    def predict() -> None:
        network.eval()
        with torch.inference_mode():
            forward(image)

    return {"train step": train, "forward": predict}


if __name__ == "__main__":
    main()
