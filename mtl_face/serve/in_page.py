"""A page that answers by itself: no picture leaves it, and the server only hands out files.

The page runs the networks with ONNX Runtime Web, from a folder of the user's: the package
onnxruntime-web of npm. Nothing is downloaded here.
"""

import dataclasses
import json
import os
from collections.abc import Mapping
from pathlib import Path

from mtl_face import files
from mtl_face.errors import UserError
from mtl_face.inference.predictor import Predictor
from mtl_face.inference.stream import check_crops
from mtl_face.run import page_networks
from mtl_face.run.page_networks import Networks

PACKAGE = "onnxruntime-web"

OLDEST = (1, 19)
"""Version of the package from which on it has the files below."""

RUNTIME = ("ort.wasm.min.mjs", "ort-wasm-simd-threaded.mjs", "ort-wasm-simd-threaded.wasm")
"""Files of the package that the page loads: for WebAssembly, in one thread or several."""

_PLACES = (".", "package", PACKAGE, f"node_modules/{PACKAGE}")
HOW_TO_MAKE = (
    f"npm install --prefix=FOLDER {PACKAGE}, and give that FOLDER as --runtime; or unpack what "
    f"npm pack {PACKAGE} downloads"
)
"""Remedy where the folder is missing or holds something else."""


class RuntimeFolderError(UserError):
    """A folder that does not hold ONNX Runtime Web."""


@dataclasses.dataclass(frozen=True, eq=False)
class InPage:
    """What the page is given.

    Attributes:
        name: what the page calls the model.
        networks: the models of ONNX.
        runtime: the content of the files of `RUNTIME` by name.
    """

    name: str
    networks: Networks
    runtime: Mapping[str, bytes]


def load(predictor: Predictor, name: str, runtime: Mapping[str, bytes]) -> InPage:
    """Writes the networks of a predictor for the page.

    Raises:
        ConfigError: its crops were cut in another way than faces are cut here.
        ExportError: no browser can run it.
    """
    check_crops(predictor)
    return InPage(name, page_networks.networks_of(predictor), runtime)


def read_runtime(folder: Path) -> dict[str, bytes]:
    """The files of `RUNTIME` from the unpacked package, or a folder in which npm put it.

    RuntimeFolderError if they are not there, or of another package or an older version.
    """
    folder = folder.expanduser()
    if os.path.isfile(folder):
        raise RuntimeFolderError(
            f"is a file, and not a folder with {PACKAGE}", path=folder, remedy=HOW_TO_MAKE
        )
    try:
        if not any(folder.iterdir()):
            raise RuntimeFolderError("is empty", path=folder, remedy=HOW_TO_MAKE)
        package = next(
            (folder / place for place in _PLACES if _is_package(folder / place / "package.json")),
            None,
        )
        if package is None:
            raise RuntimeFolderError(f"does not hold {PACKAGE}", path=folder, remedy=HOW_TO_MAKE)
        return {name: (package / "dist" / name).read_bytes() for name in RUNTIME}
    except OSError as error:
        problem, _ = files.unreadable(error, "folder" if error.filename == str(folder) else "file")
        raise RuntimeFolderError(problem, path=error.filename, remedy=HOW_TO_MAKE) from error


def _is_package(description: Path) -> bool:
    """Whether a file describes the package; RuntimeFolderError for an older version."""
    if not description.is_file():
        return False
    try:
        values = json.loads(description.read_bytes())
        if values.get("name") != PACKAGE:
            return False
        version = values["version"]
        is_old = tuple(int(part) for part in version.split(".")[:2]) < OLDEST
    except (ValueError, KeyError, AttributeError, RecursionError) as error:
        raise RuntimeFolderError(
            f"is damaged ({error})", path=description, remedy=f"download it again: {HOW_TO_MAKE}"
        ) from error
    if is_old:
        oldest = ".".join(map(str, OLDEST))
        raise RuntimeFolderError(
            f"is {PACKAGE} {version}, and {oldest} or later is needed",
            path=description,
            remedy=HOW_TO_MAKE,
        )
    return True
