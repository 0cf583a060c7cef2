"""A training step and a forward pass beside PyTorch: same network, optimizer and data in memory.

    python -m benchmarks.train_step --output=docs/benchmarks/train_step.json
    python -m benchmarks.train_step --experiments rendered_faces --batch-sizes 16
    python -m benchmarks.train_step --experiments=paper --backbones vit convnext --batch-sizes=8

Float32 on the default device's processor cores. Both sides take the paper's masked loss of the
same labels and one AdamW step over all parameters; augmentation and dropout are off. PyTorch runs
as written, in channels-last layout, and compiled (`torch.compile`, channels-last). Its network is
the one of the tests, with our weights; outputs and loss are compared before anything is timed.
"""

import argparse
import copy
import itertools
from collections.abc import Callable, Mapping
from typing import Any

import flax.traverse_util
import jax
import numpy as np
import torch
from torch.nn import functional

import mtl_face
from benchmarks import comparison, jax_step
from benchmarks.jax_step import Batch, Way
from mtl_face.config import Config
from mtl_face.run import environment
from mtl_face.tasks import TASKS
from mtl_face.training import experiment
from tests.torch_reference import PaperNetwork, load

OURS = "mtl_face"

FIXED: dict[str, Any] = {
    "data.root": ".",
    "optimizer.kind": "adamw",
    "model.dropout": 0.0,
    **{f"uncertainty.temperatures.{task}": 1.0 for task in TASKS},
}
"""Settings of every experiment: PyTorch's loss here has no temperatures, its network no dropout."""

MOST_DIFFERENT = 1e-3
"""Difference of outputs and of the loss at most, as a share of the largest."""


def main() -> None:
    """Prints one table for each experiment, batch size and kind of pass."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    comparison.add_arguments(parser, rounds=9)
    parser.add_argument("--experiments", nargs="+", default=["paper", "rendered_faces"])
    parser.add_argument("--backbones", nargs="+", choices=("resnet", "vit", "convnext"), default=[])
    parser.add_argument("--batch-sizes", type=int, nargs="+", default=[8, 32])
    parser.add_argument("--no-compiled", action="store_true", help="without torch.compile")
    options = parser.parse_args()
    environment.restart_with_huge_pages()
    environment.keep_freed_memory()  # as `run.py train` does; it holds for both sides
    groups = []
    for name, backbone in itertools.product(options.experiments, options.backbones or [""]):
        changes = {"model.backbone.kind": backbone} if backbone else {}
        settings = mtl_face.load_config(name, **FIXED, **changes)
        title = f"{name} with {backbone}" if backbone else name
        for batch_size in options.batch_sizes:
            groups += compare(
                settings, title, batch_size, rounds=options.rounds, compiled=not options.no_compiled
            )
    title = "Other backbones" if options.backbones else "Training step and forward pass"
    comparison.report(title, groups, options.output)


def compare(
    settings: Config, title: str, batch_size: int, *, rounds: int, compiled: bool
) -> list[comparison.Group]:
    """Times of a train step and of a forward pass; ValueError if the ways do not agree."""
    what = f"{title}, batch {batch_size}"
    print(f"compiling {what}, and comparing its ways: minutes ...", flush=True)
    batch = jax_step.make_batch(settings.model.input_size, batch_size)
    network = same_network(settings)
    ways = {OURS: jax_step.ways(settings, batch)}
    for label, *how in torch_layouts(compiled=compiled):
        ways[label] = torch_ways(network, batch, compiled=how[0], layout=how[1])
    check_equal({label: (pair["forward"](), pair["train step"]()) for label, pair in ways.items()})
    groups = []
    for kind in ("train step", "forward"):
        print(f"timing {what}: {kind}, {rounds} rounds ...", flush=True)
        seconds = comparison.time_in_turn(
            {label: pair[kind] for label, pair in ways.items()}, rounds=rounds
        )
        times = {
            label: [1e3 * value / batch_size for value in values]
            for label, values in seconds.items()
        }
        name = f"{title}, {kind}, batch {batch_size}"
        groups.append(comparison.Group(name, best_of_torch(times), "ms an image", times))
    return groups


def same_network(settings: Config) -> PaperNetwork:
    """PyTorch's network, with the weights with which `jax_step.ways` begins."""
    network = PaperNetwork(settings.model, attention=False)
    state = experiment.Experiment(settings, devices=jax.devices()[:1]).make_state()
    arrays = flax.traverse_util.flatten_dict(state.params["network"])
    arrays |= flax.traverse_util.flatten_dict(state.batch_stats)
    load(network, jax.device_get(arrays))
    return network


def check_equal(found: Mapping[str, tuple[Mapping[str, Any], Any]]) -> None:
    """ValueError if a way's outputs or loss differ from ours by more than rounding.

    `found` has, by way, the outputs before the first step, and the loss of that.
    """
    for way, (outputs, loss) in found.items():
        own_outputs, own_loss = found[OURS]
        pairs = {task: (own_outputs[task], outputs[task]) for task in TASKS}
        for name, pair in (pairs | {"loss": (own_loss, loss)}).items():
            own, other = (np.asarray(value, np.float64) for value in pair)
            largest, difference = np.abs(own).max(), np.abs(own - other).max()
            if not difference <= MOST_DIFFERENT * largest:
                raise ValueError(f"{way}, {name}: differs by {difference:.3g} of {largest:.3g}")


def best_of_torch(times: dict[str, list[float]]) -> str:
    """The fastest way that is not ours."""
    others = [label for label in times if label != OURS]
    return min(others, key=lambda label: comparison.spread(times[label]).median)


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
    network: PaperNetwork,
    batch: Batch,
    *,
    compiled: bool,
    layout: torch.memory_format,
    device: str = "cpu",
    bfloat16: bool = False,
) -> dict[str, Way]:
    """The same step and prediction in PyTorch, of a copy of the network on the device.

    With `bfloat16` PyTorch's autocast chooses what is computed in that type.
    """
    network = copy.deepcopy(network).to(device).to(memory_format=layout)
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-4, fused=True)
    image = torch.from_numpy(batch["image"]).to(device).float()
    targets, weights = (
        {task: torch.from_numpy(value).to(device) for task, value in batch[part].items()}
        for part in ("targets", "weights")
    )

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

    def narrow() -> torch.autocast:
        return torch.autocast(device, torch.bfloat16, enabled=bfloat16)

    # The network keeps its position code from the first image on, which would compile it twice.
    with torch.no_grad(), narrow():
        network.eval()(image[:1])

    def wait() -> None:
        if device == "cuda":
            torch.cuda.synchronize()

    def train(calls: int = 1) -> torch.Tensor:
        network.train()
        for _ in range(calls):
            optimizer.zero_grad(set_to_none=True)
            with narrow():
                loss = loss_of(image)
            loss.backward()
            optimizer.step()
        wait()
        return loss.detach()

    def predict(calls: int = 1) -> dict[str, torch.Tensor]:
        network.eval()
        with torch.inference_mode(), narrow():
            for _ in range(calls):
                outputs = forward(image)
        wait()
        return outputs

    return {"train step": train, "forward": predict}


if __name__ == "__main__":
    main()
