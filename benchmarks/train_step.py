"""A training step and a forward pass beside PyTorch: same network, optimizer and data in memory.

    python -m benchmarks.train_step --output=docs/benchmarks/train_step.json
    python -m benchmarks.train_step --experiments rendered_faces --batch-sizes 16

Float32 on the default device's processor cores. Both sides take the paper's masked loss of the
same labels and one AdamW step over all parameters; augmentation and dropout are off. PyTorch runs
as written, in channels-last layout, and compiled (`torch.compile`, channels-last). Its network is
the one of the tests, which has our weights' outputs and gradients.
"""

import argparse
import copy
from collections.abc import Callable
from typing import Any

import torch
from torch.nn import functional

import mtl_face
from benchmarks import comparison, jax_step
from benchmarks.jax_step import Batch, Way
from mtl_face.run import environment
from tests.torch_reference import PaperNetwork


def main() -> None:
    """Prints one table for each experiment, batch size and kind of pass."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    comparison.add_arguments(parser, rounds=9)
    parser.add_argument("--experiments", nargs="+", default=["paper", "rendered_faces"])
    parser.add_argument("--batch-sizes", type=int, nargs="+", default=[8, 32])
    parser.add_argument("--no-compiled", action="store_true", help="without torch.compile")
    options = parser.parse_args()
    environment.keep_freed_memory()  # as `run.py train` does; it holds for both sides
    groups = []
    for name in options.experiments:
        settings = mtl_face.load_config(name, **{"data.root": ".", "model.dropout": 0.0})
        for batch_size in options.batch_sizes:
            batch = jax_step.make_batch(settings.model.input_size, batch_size)
            ways = {"mtl_face": jax_step.ways(settings, batch)}
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

    def train(calls: int = 1) -> None:
        network.train()
        for _ in range(calls):
            optimizer.zero_grad(set_to_none=True)
            with narrow():
                loss = loss_of(image)
            loss.backward()
            optimizer.step()
        wait()

    def predict(calls: int = 1) -> None:
        network.eval()
        with torch.inference_mode(), narrow():
            for _ in range(calls):
                forward(image)
        wait()

    return {"train step": train, "forward": predict}


if __name__ == "__main__":
    main()
