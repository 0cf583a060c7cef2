"""Checks a written program: a fresh process runs the file alone, and its answers are compared.

Dimension letters: N crops, S side of a crop.
"""

import dataclasses
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal

import jax
import numpy as np
from numpy.typing import NDArray

from mtl_face.evaluation.calibration import Calibration
from mtl_face.export import whole_way
from mtl_face.export.whole_way import BASELINE_INPUT, CROP, WholeWay
from mtl_face.inference.predictor import Predictor
from mtl_face.model.convolution import compiler_options
from mtl_face.weights.card import ExportError

Program = Literal["stablehlo", "onnx"]

TOLERANCE = 1e-4
"""Largest difference of an answer from that of the program in this process."""

SIZES = (1, 16)
"""Sizes of the batches that are timed."""

_LOADING = {
    "stablehlo": """
import zipfile
import jax, jax.export
with zipfile.ZipFile(sys.argv[1]) as file:
    program = jax.export.deserialize(bytearray(file.read("model.stablehlo")))
call = jax.jit(program.call)
def answer(arrays):
    return jax.device_get(call(arrays))
""",
    "onnx": """
import onnxruntime
session = onnxruntime.InferenceSession(sys.argv[1], providers=["CPUExecutionProvider"])
names = [output.name for output in session.get_outputs()]
def answer(arrays):
    return dict(zip(names, session.run(names, arrays)))
""",
}

_RUNNING = """
arrays = dict(numpy.load(sys.argv[2]))
numpy.savez(sys.argv[3], **answer(arrays))
milliseconds = {}
for size in map(int, sys.argv[4:]):
    batch = {name: numpy.resize(array, (size, *array.shape[1:])) for name, array in arrays.items()}
    answer(batch)
    took = []
    while len(took) < 3 or (len(took) < 50 and sum(took) < 1):
        begin = time.perf_counter()
        answer(batch)
        took.append(time.perf_counter() - begin)
    milliseconds[size] = 1000 * statistics.median(took) / size
print(json.dumps(milliseconds))
"""

_BEGINNING = """
import json, statistics, sys, time
import numpy
sys.modules["mtl_face"] = sys.modules["flax"] = None  # the file is enough
"""


@dataclasses.dataclass(frozen=True)
class Check:
    """What a check found.

    Attributes:
        differences: the largest of each output from the program in this process, by name.
        from_predictor: the same from `Predictor.predict_crops`.
        megabytes: size of the file.
        milliseconds: for a crop, on the CPU, by the size of the batch.
    """

    differences: dict[str, float]
    from_predictor: dict[str, float]
    megabytes: float
    milliseconds: dict[int, float]

    def lines(self) -> list[str]:
        """What the user is told."""
        width = max(map(len, self.differences))
        table = [
            f"  {name:{width}}  {difference:9.1e}  {self.from_predictor.get(name, 0):9.1e}"
            for name, difference in self.differences.items()
        ]
        times = ", ".join(
            f"{milliseconds:.1f} ms a face in batches of {size}"
            for size, milliseconds in self.milliseconds.items()
        )
        return [
            f"checked in a process of its own: {self.megabytes:.1f} MB; on the CPU {times}",
            "largest differences, from the program here and from predict_crops:",
            *table,
        ]


def check(
    path: Path,
    form: Program,
    whole: WholeWay,
    predictor: Predictor,
    crop_NSS3: NDArray[np.uint8],
    *,
    calibration: Calibration | None = None,
    say: Callable[[str], None] = lambda line: None,
) -> Check:
    """Runs the program in `path` in a fresh process without mtl_face, on the CPU.

    Args:
        path: the file.
        form: what it is.
        whole: what it was written from.
        predictor: the network, to compare with too.
        crop_NSS3: crops to compare on; for a network of points, of faces.
        calibration: the one in the program.
        say: called with a line before each step that takes long.

    Raises:
        ExportError: the file does not run, or answers otherwise than `whole`.
    """
    arrays: dict[str, NDArray[Any]] = {CROP: crop_NSS3}
    if BASELINE_INPUT in whole.inputs:
        shape = whole.inputs[BASELINE_INPUT].shape_of_one
        arrays[BASELINE_INPUT] = np.zeros((len(crop_NSS3), *shape), np.float32)
    say("trying and timing the file in a process of its own ...")
    found, milliseconds = _in_a_fresh_process(path, form, arrays)
    say("compiling the program here, to compare the answers ...")
    expected = _here(whole, arrays)
    differences = {
        name: _difference(name, found, expected, whole, calibration) for name in whole.outputs
    }
    wrong = [f"{name} by {size:.2g}" for name, size in differences.items() if size > TOLERANCE]
    if wrong:
        raise ExportError(
            f"what was written as {form} answers otherwise than the network: {', '.join(wrong)} "
            f"(allowed: {TOLERANCE:g}); nothing was kept",
            remedy="report it with the versions of the card; another format may do",
        )
    say("asking predict_crops ...")
    table = predictor.predict_crops(crop_NSS3)
    of_table = whole_way.answers_of_table(table, calibration)
    return Check(
        differences=differences,
        from_predictor={
            name: _difference(name, found, {**expected, **of_table}, whole, calibration)
            for name in whole.outputs
        },
        megabytes=path.stat().st_size / 1e6,
        milliseconds=milliseconds,
    )


def _in_a_fresh_process(
    path: Path, form: Program, arrays: Mapping[str, NDArray[Any]]
) -> tuple[dict[str, NDArray[Any]], dict[int, float]]:
    """The file's answers by name, and milliseconds for a crop by the size of the batch."""
    with tempfile.TemporaryDirectory() as folder:
        given, answered = Path(folder) / "given.npz", Path(folder) / "answered.npz"
        np.savez(given, **arrays)  # type: ignore[arg-type]
        code = _BEGINNING + _LOADING[form] + _RUNNING
        words = [str(path.absolute()), str(given), str(answered), *map(str, SIZES)]
        result = subprocess.run(
            [sys.executable, "-c", code, *words],
            cwd=folder,
            env={**os.environ, "JAX_PLATFORMS": "cpu"},
            capture_output=True,
            text=True,
            check=False,
        )
        if result.returncode != 0:
            last = (result.stderr.strip().splitlines() or [f"status {result.returncode}"])[-1]
            raise ExportError(
                f"what was written as {form} does not run by itself: {last:.300}; nothing was kept",
                remedy="the extra onnx brings onnxruntime: python -m pip install 'mtl_face[onnx]'"
                if "onnxruntime" in last
                else "report it with the versions of the card; another format may do",
            )
        with np.load(answered) as file:
            found = dict(file)
    timed = json.loads(result.stdout.splitlines()[-1])
    return found, {int(size): float(number) for size, number in timed.items()}


def _here(whole: WholeWay, arrays: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
    """The program's answers in this process, on the CPU too where JAX may use it."""
    try:
        device = jax.local_devices(backend="cpu")[0]
    except RuntimeError:  # JAX_PLATFORMS names others alone
        device = jax.local_devices()[0]
    run = jax.jit(whole.function, compiler_options=compiler_options(device.platform))
    with jax.default_device(device), jax.default_matmul_precision("highest"):
        return jax.device_get(run(dict(arrays)))


def _difference(
    name: str,
    found: Mapping[str, NDArray[Any]],
    expected: Mapping[str, NDArray[Any]],
    whole: WholeWay,
    calibration: Calibration | None,
) -> float:
    """The largest difference of an output; of a decision, by how much the other was missed."""
    one, other = found[name], np.asarray(expected[name])
    if one.shape != other.shape or one.dtype != whole.outputs[name].dtype:
        return np.inf
    if one.dtype.kind == "f":
        gaps = np.where(np.isnan(one) & np.isnan(other), 0.0, np.abs(one - other))
        return float(np.where(np.isnan(gaps), np.inf, gaps).max(initial=0.0))
    if name == "found":
        return 0.0 if (one == other).all() else np.inf
    au_NA, biased_NE = whole_way.deciding(expected, calibration)
    if name == "au_present":
        return float(np.abs(np.where(one != other, au_NA, 0)).max(initial=0.0))
    missed = [
        abs(row[a] - row[b]) if a >= 0 and b >= 0 else np.inf
        for row, a, b in zip(biased_NE, one, other, strict=True)
        if a != b
    ]
    return float(max(missed, default=0.0))
