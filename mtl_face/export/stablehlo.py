"""A program from crops to answers as StableHLO: one zip file, to be run with JAX alone.

    model.stablehlo   what `jax.export` serialises, for CPU, CUDA and TPU and batches of any size
    model.json        the card, see `whole_way`; `program` in it says which versions read the other

JAX promises that a version reads what others wrote up to six months before it, and up to three
weeks after. Reading needs `jax`, `numpy` and `flatbuffers`; docs/export.md has the lines.
"""

import contextlib
import json
import os
import zipfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import jax
from jax import export

from mtl_face import files
from mtl_face.export.whole_way import BATCH, WholeWay
from mtl_face.weights import card as cards
from mtl_face.weights.card import ExportError
from mtl_face.weights.programs import stablehlo_file
from mtl_face.weights.programs.stablehlo_file import PROGRAM

PLATFORMS = ("cpu", "cuda", "tpu")

KEY = "program"
"""Key of the card under which stands how the program was serialised."""

_TIME = (1980, 1, 1, 0, 0, 0)  # the same program is the same bytes

_GIVE = "give a file that `run.py export --format=stablehlo` wrote"

Answers = Callable[[Mapping[str, Any]], dict[str, jax.Array]]


def write(path: Path, whole: WholeWay) -> None:
    """Writes the program, traced for a batch of any size; raises OSError where that fails."""
    (batch,) = export.symbolic_shape(BATCH)
    arrays = {
        name: jax.ShapeDtypeStruct((batch, *one.shape_of_one), one.dtype)
        for name, one in whole.inputs.items()
    }
    with _without_places():
        program = export.export(jax.jit(whole.function), platforms=PLATFORMS)(arrays)
    card = cards.sealed(
        {
            **whole.card,
            KEY: {
                "serialised_by": f"jax {jax.__version__}",
                "calling_convention_version": program.calling_convention_version,
                "platforms": list(program.platforms),
            },
        }
    )
    # Weights do not get smaller: nothing is compressed.
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as file:
        file.writestr(zipfile.ZipInfo(cards.FILE, _TIME), json.dumps(card, indent=2) + "\n")
        file.writestr(zipfile.ZipInfo(PROGRAM, _TIME), bytes(program.serialize()))


@contextlib.contextmanager
def _without_places() -> Iterator[None]:
    """Keeps out of programs traced inside where in which file of this machine they come from."""
    name = "jax_traceback_in_locations_limit"
    before = getattr(jax.config, name)
    jax.config.update(name, 0)
    try:
        yield
    finally:
        jax.config.update(name, before)


def read(path: str | os.PathLike[str]) -> tuple[Answers, dict[str, Any]]:
    """Reads a program and its card.

    Returns:
        A jitted function from arrays by name to arrays by name, and the card.

    Raises:
        ExportError: the file is none of this form, is damaged, or was serialised by a version of
            JAX that the installed one does not read.
    """
    path = Path(path)
    data, card = stablehlo_file.read(path)
    if not isinstance(stated := card.get(KEY), dict):
        raise ExportError("its card does not speak of a program", path=path, remedy=_GIVE)
    least = export.minimum_supported_calling_convention_version
    most = export.maximum_supported_calling_convention_version
    version = stated.get("calling_convention_version")
    if not isinstance(version, int) or not least <= version <= most:
        raise ExportError(
            f"was serialised with version {version!r:.20} of the calling convention, by "
            f"{stated.get('serialised_by')!s:.40}; jax {jax.__version__} reads {least} to {most}",
            path=path,
            remedy="install a jax from about the time of the export, or export again",
        )
    try:
        program = export.deserialize(bytearray(data))
    except Exception as error:  # flatbuffers and MLIR fail in whatever part meets the damage
        raise ExportError(
            f"its program cannot be read by jax {jax.__version__}: {files.first_words(error)}",
            path=path,
            remedy=f"copy the file again, or install {stated.get('serialised_by')!s:.40}",
        ) from error
    return jax.jit(program.call), card
