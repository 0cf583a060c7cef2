"""Crops answered by a predictor, by PyTorch and by ONNX Runtime, with the same weights."""

import dataclasses
import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import flax.traverse_util
import jax
import numpy as np
import onnxruntime
import torch
from numpy.typing import NDArray

from benchmarks import comparison
from mtl_face.config import Config
from mtl_face.inference.predictor import Forward, Predictor
from tests.torch_reference import PaperNetwork, load

OURS, TORCH, ONNX = "mtl_face", "PyTorch, channels-last", "ONNX Runtime, PyTorch's export"

OUTPUTS = ("va", "au", "expr")

MOST_DIFFERENT = 1e-3
"""Difference of outputs at most, as a share of the largest."""


Ways = Callable[[Predictor, PaperNetwork, onnxruntime.InferenceSession], Any]
"""From the same network three times to a function: from crops to calls that answer them."""


def crops(
    settings: Config, batch_sizes: Sequence[int], rounds: int, folder: Path
) -> list[comparison.Group]:
    """Milliseconds a face of the three ways, a group for each size of a batch."""
    groups = []

    def ways(*networks: Any) -> Any:
        return functools.partial(crop_ways, *networks)

    for batch_size, times in timed(settings, batch_sizes, rounds, folder, ways):
        fastest = min((TORCH, ONNX), key=lambda way: comparison.spread(times[way]).median)
        rate = comparison.spread([1e3 / one for one in times[OURS]])
        title = f"{settings.name}, batch {batch_size}: {rate} faces/s"
        groups.append(comparison.Group(title, fastest, "ms a face", times))
        print(f"done: {title}", flush=True)
    return groups


def timed(
    settings: Config, batch_sizes: Sequence[int], rounds: int, folder: Path, ways: Ways
) -> Iterator[tuple[int, dict[str, list[float]]]]:
    """Milliseconds a face by way, for each size of a batch; answers are compared first."""
    size = settings.model.input_size
    settings = dataclasses.replace(
        settings,
        data=dataclasses.replace(settings.data, image_size=size),
        evaluation=dataclasses.replace(settings.evaluation, batch_size=max(batch_sizes)),
    )
    predictor, network = same_networks(settings)
    calls_of = ways(predictor, network, exported(network, size, folder / f"{settings.name}.onnx"))
    for batch_size in batch_sizes:
        rng = np.random.default_rng(batch_size)
        calls = calls_of(rng.integers(0, 256, (batch_size, size, size, 3), dtype=np.uint8))
        check_equal({label: call() for label, call in calls.items()})
        seconds = comparison.time_in_turn(calls, rounds=rounds, calls=max(1, 16 // batch_size))
        yield (
            batch_size,
            {way: [1e3 * one / batch_size for one in found] for way, found in seconds.items()},
        )


def same_networks(settings: Config) -> tuple[Predictor, PaperNetwork]:
    """A predictor with random weights, and the PyTorch network with the same."""
    forward = Forward(settings)
    rng = np.random.default_rng(0)

    def draw(path: Any, leaf: Any) -> NDArray[np.float32]:
        name = path[-1].key
        if name in ("var", "scale"):
            values = rng.uniform(0.5, 1.5, leaf.shape)
        else:
            fan_in = max(1, int(np.prod(leaf.shape[:-1])))
            values = rng.normal(0, fan_in**-0.5 if name == "kernel" else 0.1, leaf.shape)
        return values.astype(np.float32)

    variables = jax.tree_util.tree_map_with_path(draw, forward.abstract_variables())
    network = PaperNetwork(settings.model, attention=False).eval()
    groups = (flax.traverse_util.flatten_dict(variables[name]) for name in variables)
    load(network, {path: value for group in groups for path, value in group.items()})
    temperatures = dict.fromkeys(OUTPUTS, 1.0)
    predictor = Predictor(forward, jax.device_put(variables), temperatures, 0)
    with torch.inference_mode():  # it keeps its position code from the first image on
        network(torch.zeros((1, *[settings.model.input_size] * 2, 3)))
    return predictor, network.to(memory_format=torch.channels_last)


class _Outputs(torch.nn.Module):
    """The network's outputs in the order of `OUTPUTS`."""

    def __init__(self, network: PaperNetwork) -> None:
        super().__init__()
        self.network = network

    def forward(self, image_BHWC: torch.Tensor) -> tuple[torch.Tensor, ...]:
        found = self.network(image_BHWC)
        return tuple(found[task] for task in OUTPUTS)


def exported(network: PaperNetwork, size: int, path: Path) -> onnxruntime.InferenceSession:
    """PyTorch's export of the network for any number of images, in ONNX Runtime on this CPU."""
    torch.onnx.export(
        _Outputs(network).eval(),
        (torch.zeros(2, size, size, 3),),
        str(path),
        input_names=["image"],
        output_names=list(OUTPUTS),
        dynamic_shapes=({0: torch.export.Dim("batch", max=1024)},),
        dynamo=True,
        external_data=True,
        verbose=False,
    )
    return onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])


def crop_ways(
    predictor: Predictor,
    network: PaperNetwork,
    session: onnxruntime.InferenceSession,
    crop_BSS3: NDArray[np.uint8],
) -> dict[str, Callable[[], Any]]:
    """Calls that answer the crops; each gives the outputs in the order of `OUTPUTS`."""

    def ours() -> Sequence[NDArray[Any]]:
        table = predictor.predict_arrays({"image": crop_BSS3})
        return table.va, table.au_logits, table.expression_logits

    def by_torch() -> Sequence[NDArray[Any]]:
        with torch.inference_mode():
            found = network(torch.from_numpy(crop_BSS3).float())
        return [found[task].numpy() for task in OUTPUTS]

    def by_onnx() -> Sequence[NDArray[Any]]:
        return session.run(list(OUTPUTS), {"image": crop_BSS3.astype(np.float32)})

    return {OURS: ours, TORCH: by_torch, ONNX: by_onnx}


def check_equal(outputs: Mapping[str, Sequence[NDArray[Any]]]) -> None:
    """ValueError if the outputs of a way differ from ours by more than rounding."""
    for way, found in outputs.items():
        for task, own, other in zip(OUTPUTS, outputs[OURS], found, strict=True):
            largest, difference = np.abs(own).max(), np.abs(own - other).max()
            if not difference <= MOST_DIFFERENT * largest:
                raise ValueError(f"{way}, {task}: differs by {difference:.3g} of {largest:.3g}")
