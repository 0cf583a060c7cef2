"""A MobileNet-v1 as a graph model of TensorFlow.js, with the names of the published one."""

import json
from pathlib import Path
from typing import Any

import numpy as np

from mtl_face.model.geometry import MOBILENET_PAIRS

WIDTH = 4


def random_tensors(width: int = WIDTH, pairs: int = 13, seed: int = 0) -> dict[str, np.ndarray]:
    """Tensors by the graph's names, in an order of its own; values that keep maps within 0..6."""
    random = np.random.default_rng(seed)

    def bias(size: int) -> np.ndarray:
        return random.uniform(0, 1, size)

    def kernel(*shape: int) -> np.ndarray:
        return random.normal(0, 1.4 / np.sqrt(np.prod(shape[:3])), shape)

    tensors = {
        "age_pred/kernel": random.normal(size=(7, 3)),
        "conv1/convolution/merged_input": kernel(3, 3, 3, width) / 60,
        "conv1_bn/batchnorm_1/sub": bias(width),
        "conv1_relu/Cast": np.asarray(6.0),
    }
    channels = width
    for pair, (_, factor) in enumerate(MOBILENET_PAIRS[:pairs], start=1):
        name = f"conv_dw_{pair}"
        tensors |= {
            f"{name}/depthwise_kernel": random.normal(0, 0.5, (3, 3, channels, 1)),
            f"{name}_bn/batchnorm_1/mul": random.uniform(0.5, 1.5, channels),
            f"{name}_bn/batchnorm_1/sub": bias(channels),
            f"conv_pw_{pair}/convolution/merged_input": kernel(1, 1, channels, factor * width),
            f"conv_pw_{pair}_bn/batchnorm_1/sub": bias(factor * width),
        }
        channels = factor * width
    return {name: array.astype(np.float32) for name, array in tensors.items()}


def write(folder: Path, tensors: dict[str, np.ndarray], *, dtype: str = "float32") -> Path:
    """Writes the JSON and two files of bytes, cut within a tensor; returns the JSON's path."""
    folder.mkdir(parents=True, exist_ok=True)
    listed = []
    for name, array in tensors.items():
        one: dict[str, Any] = {"name": name, "shape": list(array.shape), "dtype": "float32"}
        if dtype != "float32":
            one["quantization"] = {"dtype": dtype}
        listed.append(one)
    data = b"".join(array.astype(dtype).tobytes() for array in tensors.values())
    for name, part in (("one.bin", data[:1001]), ("two.bin", data[1001:])):
        (folder / name).write_bytes(part)
    manifest = [{"paths": ["one.bin", "two.bin"], "weights": listed}]
    path = folder / "model.json"
    path.write_text(json.dumps({"format": "graph-model", "weightsManifest": manifest}))
    return path
