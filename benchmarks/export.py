"""Our ONNX beside PyTorch's export of the same network, both in ONNX Runtime, and beside our jit.

    python -m benchmarks.export --output=docs/benchmarks/export.json
    python -m benchmarks.export --parts precisions --experiments paper rendered_faces

- forms: all three have the same weights and take uint8 crops of the network's size; their outputs
  are compared first. The goal is a ratio of 1 between the two files.
- precisions: files of float32, float16 and int8 from crops to answers, of drawn weights, whose
  ranges are measured on noise. The goal of int8 is a ratio of 1.8 where the processor has products
  of int8. What the scores lose, `run.py evaluate --against` says.

All ways of a part run in one process, in turn.
"""

import argparse
import functools
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
import onnxruntime
from numpy.typing import NDArray
from PIL import Image

import mtl_face
from benchmarks import comparison
from benchmarks.predict_crops import OURS, OUTPUTS, same_networks, timed
from mtl_face.config import Config
from mtl_face.export.onnx_graph import to_onnx
from mtl_face.export.onnx_precision import PRECISIONS
from mtl_face.inference.predictor import Predictor
from mtl_face.inputs import IMAGE
from mtl_face.model.network import MtlFace, for_platform
from mtl_face.run.smaller import write_smaller
from mtl_face.weights.programs.interface import CROP

PARTS = ("forms", "precisions")

JIT = OURS
_RANGES = 8  # pictures that ranges are measured on

OWN_ONNX, TORCH_ONNX = "mtl_face, ONNX Runtime", "PyTorch's export, ONNX Runtime"


def main() -> None:
    """Prints times and ratios for each size of a batch."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    comparison.add_arguments(parser, rounds=7)
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=["forms"])
    parser.add_argument("--experiments", nargs="+", default=["paper"])
    parser.add_argument("--batch-sizes", type=int, nargs="+", default=[1, 16])
    options = parser.parse_args()
    groups: list[comparison.Group] = []
    with tempfile.TemporaryDirectory() as folder:
        for name in options.experiments:
            settings = mtl_face.load_config(name, **{"data.root": "."})
            if "forms" in options.parts:
                groups += compared(settings, options.batch_sizes, options.rounds, Path(folder))
            if "precisions" in options.parts:
                groups += precisions(settings, options.batch_sizes, options.rounds, Path(folder))
    comparison.report("Export", groups, options.output)


def compared(
    settings: Config, batch_sizes: Sequence[int], rounds: int, folder: Path
) -> list[comparison.Group]:
    """Milliseconds a face of the three ways, a group for each size of a batch."""
    groups = []

    def ways(predictor: Predictor, _: Any, theirs: onnxruntime.InferenceSession) -> Any:
        return functools.partial(ways_of, predictor, session(predictor), theirs)

    for batch_size, times in timed(settings, batch_sizes, rounds, folder, ways):
        title = f"{settings.name}, batch {batch_size}"
        groups.append(comparison.Group(title, TORCH_ONNX, "ms a face", times))
        print(f"done: {title}", flush=True)
    return groups


def precisions(
    settings: Config, batch_sizes: Sequence[int], rounds: int, folder: Path
) -> list[comparison.Group]:
    """Milliseconds a face of each precision, a group for each size of a batch."""
    predictor, _ = same_networks(settings)
    size = predictor.crop_size
    rng = np.random.default_rng(0)
    crops = folder / "crops"
    crops.mkdir(exist_ok=True)
    for number in range(_RANGES):
        noise = rng.integers(0, 256, (size, size, 3), np.uint8)
        Image.fromarray(noise).save(crops / f"{number}.png")
    files = {each: folder / f"{settings.name}_{each}.onnx" for each in PRECISIONS}
    predictor.export(files["float32"])
    for each in PRECISIONS[1:]:
        write_smaller(files["float32"], files[each], precision=each, crops=crops)
    sessions = {
        each: onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
        for each, path in files.items()
    }
    groups = []
    for batch_size in batch_sizes:
        crop_BSS3 = rng.integers(0, 256, (batch_size, size, size, 3), np.uint8)
        calls = {
            each: functools.partial(one.run, None, {CROP: crop_BSS3})
            for each, one in sessions.items()
        }
        seconds = comparison.time_in_turn(calls, rounds=rounds, calls=max(1, 16 // batch_size))
        times = {each: [1e3 * one / batch_size for one in found] for each, found in seconds.items()}
        title = f"{settings.name}, precisions, batch {batch_size}"
        groups.append(comparison.Group(title, "float32", "ms a face", times))
        print(f"done: {title}", flush=True)
    return groups


def session(predictor: Predictor) -> onnxruntime.InferenceSession:
    """The predictor's network in ONNX Runtime on this CPU; it takes images as PyTorch's does."""
    settings = for_platform(predictor.config.model, "tpu")  # XLA's own convolutions
    network = MtlFace(settings)

    def outputs(inputs: Mapping[str, jax.Array]) -> dict[str, jax.Array]:
        return network.apply(predictor.variables, inputs, train=False)  # type: ignore[return-value]

    size = settings.input_size
    model = to_onnx(outputs, {IMAGE: (np.float32, (size, size, 3))}, OUTPUTS)
    return onnxruntime.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )


def ways_of(
    predictor: Predictor,
    own: onnxruntime.InferenceSession,
    theirs: onnxruntime.InferenceSession,
    crop_BSS3: NDArray[np.uint8],
) -> dict[str, Callable[[], Any]]:
    """Calls that answer the crops; each gives the outputs in the order of `OUTPUTS`."""

    def by_jit() -> Sequence[NDArray[Any]]:
        table = predictor.predict_arrays({IMAGE: crop_BSS3})
        return table.va, table.au_logits, table.expression_logits

    def by(run: onnxruntime.InferenceSession) -> Callable[[], Any]:
        return lambda: run.run(list(OUTPUTS), {"image": crop_BSS3.astype(np.float32)})

    return {JIT: by_jit, OWN_ONNX: by(own), TORCH_ONNX: by(theirs)}


if __name__ == "__main__":
    main()
