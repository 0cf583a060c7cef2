"""ONNX files of less precision, tried beside those that they are made of.

Dimension letters: N crops, S side of a crop.
"""

import dataclasses
import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from mtl_face import files
from mtl_face.config import Config
from mtl_face.errors import ConfigError, shortened
from mtl_face.export import onnx_precision
from mtl_face.run import Say, show
from mtl_face.run.export import export
from mtl_face.weights.card import ExportError
from mtl_face.weights.programs import interface, onnx_file
from mtl_face.weights.programs.interface import CROP, WHOLE_WAY
from mtl_face.weights.programs.onnx_file import OnnxFile

if TYPE_CHECKING:
    import onnx

_NOISE = 16  # crops to try a file on where none are given
_TRIED = 16  # crops on which numbers may overflow


def export_smaller(
    model: str | Path,
    output: str | Path,
    config: Config | None = None,
    *,
    say: Say = show,
    precision: onnx_precision.Precision,
    crops: str | Path | None = None,
    **program: Any,
) -> Path:
    """Writes a model as an ONNX file of less precision, by way of one of float32.

    Args:
        model: as of `run.export.export`; or an ONNX file of float32, which is taken as it is.
        output: as of `write_smaller`.
        config: the settings of the model; None for its own.
        say: called with each line for the user.
        precision: as of `write_smaller`.
        crops: as of `write_smaller`.
        **program: `crop_size` and `calibration`, as of `run.export.export`.

    Raises:
        UserError: as `run.export.export` and `write_smaller`; or what a file was made with is to
            be changed.
    """
    check_asked(precision, crops)
    how: dict[str, Any] = {"precision": precision, "crops": crops, "say": say}
    if onnx_file.is_one(Path(model)):
        if changed := [f"--{name}" for name, value in program.items() if value is not None]:
            raise ConfigError(
                f"{model} was made with its own crops and calibration: {', '.join(changed)} would "
                "change nothing",
                remedy="leave them out, or name the run or export that the file was made of",
            )
        return write_smaller(model, output, **how)
    if crops is not None:
        onnx_precision.crops_of(Path(crops))  # whether there are any, before the long work
    with tempfile.TemporaryDirectory() as folder:
        whole = Path(folder) / "float32.onnx"

        def say_what_stays(line: str) -> None:
            if folder not in line:
                say(line)

        export(model, config, form="onnx", output=whole, say=say_what_stays, **program)
        return write_smaller(whole, output, **how)


def write_smaller(
    file: str | Path,
    output: str | Path,
    *,
    precision: onnx_precision.Precision,
    crops: str | Path | None = None,
    say: Say = show,
) -> Path:
    """Writes an ONNX file again in less precision, and says how far its answers are from the first.

    Args:
        file: what `run.py export --format=onnx` wrote.
        output: the file to write.
        precision: `float16` or `int8`, see `export.onnx_precision`.
        crops: a folder of aligned crops like those to come, which int8 needs: ranges are measured
            on them, and the answers compared. Without them, answers to noise are compared.
        say: called with each line for the user.

    Returns:
        The path that was written.

    Raises:
        ConfigError: int8 without crops, or a precision that is none of these.
        ExportError: the file cannot be read, or is of less precision already; or the numbers of
            the new one overflow, which is not kept.
        ImageError: a crop cannot be read.
        WorkdirError: the output cannot be written.
    """
    import onnx

    check_asked(precision, crops)
    read = onnx_file.read(Path(file))
    about = read.card[WHOLE_WAY]
    if onnx_precision.PRECISION in about:
        raise ExportError(
            f"is of precision {about[onnx_precision.PRECISION]['name']} already",
            path=file,
            remedy="give the file of float32 that it was made of",
        )
    output = files.require_writable_file(Path(output).expanduser())
    size = about["crop_size"]
    if crops is None:
        noise = np.random.default_rng(0)
        crop_NSS3 = noise.integers(0, 256, (_NOISE, size, size, 3), np.uint8)
    else:
        crop_NSS3 = onnx_precision.read_crops(onnx_precision.crops_of(Path(crops)), size)
    model = onnx.load_model_from_string(read.content)
    if precision == "int8":
        say(f"measuring the ranges of values on {len(crop_NSS3)} crops ...")
        model = onnx_precision.in_int8(model, crop_NSS3)
    else:
        model = onnx_precision.in_float16(model)
    with files.replacing(output) as part:
        part.write_bytes(model.SerializeToString())
        made = onnx_file.read(part)
        if precision == "float16" and (names := _overflowing(model, made, crop_NSS3)):
            raise ExportError(
                f"numbers overflow in float16: {', '.join(shortened(names, 3))}",
                path=output,
                remedy="take int8, or keep float32",
            )
        before, after = (_answers(each, crop_NSS3) for each in (read, made))
    what = "noise" if crops is None else f"{len(crop_NSS3)} crops"
    for name, answer in after.items():
        difference = np.abs(answer - before[name])
        say(
            f"{name}: on {what}, {np.nanmean(difference):.4f} from float32 on average, "
            f"{np.nanmax(difference):.4f} at most"
        )
    mega = [size / 1e6 for size in (len(read.content), os.path.getsize(output))]
    say(f"program: {output}  ({precision}: {mega[1]:.1f} MB, float32: {mega[0]:.1f} MB)")
    return output


def check_asked(precision: str, crops: str | Path | None) -> None:
    """Raises ConfigError if a file of this precision cannot be made, with these crops or none."""
    if precision not in ("float16", "int8"):
        raise ConfigError(f"precision is {precision!r}", remedy="give float16 or int8")
    if precision == "int8" and crops is None:
        raise ConfigError(
            "int8 needs crops to measure the ranges of values on",
            remedy="name a folder of aligned crops like those to come as crops (--crops)",
        )


def _overflowing(
    model: "onnx.ModelProto", file: OnnxFile, crop_NSS3: NDArray[np.uint8]
) -> list[str]:
    """Names of values in the network that are not finite in float16."""
    import onnx

    whole = onnx.ModelProto()
    whole.CopyFrom(model)
    inside = onnx_precision.inside(model)
    whole.graph.output.extend(onnx.helper.make_empty_tensor_value_info(name) for name in inside)
    content = whole.SerializeToString()
    session = onnx_file.session(dataclasses.replace(file, content=content))
    found: set[str] = set()
    for start in range(0, min(len(crop_NSS3), _TRIED), 2):
        values = session.run(inside, _arrays(file, crop_NSS3[start : start + 2]))
        found |= {
            name
            for name, value in zip(inside, values, strict=True)
            if value.dtype == np.float16 and not np.isfinite(value).all()
        }
    return sorted(found)


def _answers(file: OnnxFile, crop_NSS3: NDArray[np.uint8]) -> dict[str, NDArray[Any]]:
    """The answers of a file that tables are made of, by name."""
    session = onnx_file.session(file)
    names = list(interface.expected_outputs(file.card))
    parts = [
        session.run(names, _arrays(file, crop_NSS3[start : start + 8]))
        for start in range(0, len(crop_NSS3), 8)
    ]
    return {
        name: np.concatenate(part)
        for name, part in zip(names, zip(*parts, strict=True), strict=True)
    }


def _arrays(file: OnnxFile, crop_BSS3: NDArray[np.uint8]) -> dict[str, NDArray[Any]]:
    """What a file takes of crops, without a baseline."""
    return {
        name: crop_BSS3 if name == CROP else np.zeros((len(crop_BSS3), *shape), dtype)
        for name, (dtype, shape) in interface.expected_inputs(file.card).items()
    }
