"""Opens a weights file of any known format, which its content tells, never its name."""

import contextlib
import dataclasses
import os
from collections.abc import Iterator
from pathlib import Path

from mtl_face.errors import WeightsError
from mtl_face.weights import card as cards
from mtl_face.weights import (
    exported,
    keras_file,
    matlab_file,
    model_folder,
    safetensors_file,
    tfjs_file,
    torch_file,
)
from mtl_face.weights.file_content import RESAVE_NUMPY, FileContent, damaged, first_bytes, words_of
from mtl_face.weights.pickle_machine import RefusedNameError

FORMATS = (
    "Keras HDF5, PyTorch (zip or legacy), a pickle of NumPy arrays, safetensors, MatConvNet .mat, "
    "the .json of a TensorFlow.js graph, a folder with config.json and model.safetensors, or an "
    "export of run.py"
)

_HDF5 = b"\x89HDF\r\n\x1a\n"
_PROTOCOLS = (b"\x02", b"\x03", b"\x04", b"\x05")
_PICKLES = (b"(dp", b"(d", b"}q", b"ccollections\n", b"(lp", b"cnumpy")


@contextlib.contextmanager
def open_weights(path: Path) -> Iterator[FileContent]:
    """Opens a weights file, or the folder of an export, for as long as the block lasts.

    Raises:
        WeightsError: there is none, it cannot be read, is something else, or is damaged.
    """
    with contextlib.ExitStack() as stack:
        try:
            content = _open(path, stack)
        except WeightsError:
            raise
        except RefusedNameError as error:
            raise WeightsError(
                f"asks for {error.name}, which no weights need; nothing was run",
                path=path,
                remedy="don't trust the file; if it is your own, save its state dict alone "
                "(torch.save(model.state_dict(), FILE), or safetensors.torch.save_file)",
            ) from error
        except Exception as error:  # a damaged file fails in whatever its bytes happen to mean
            raise damaged(path, error) from error
        yield content


def _open(path: Path, stack: contextlib.ExitStack) -> FileContent:
    if os.path.isdir(path):  # `Path.is_dir` raises for names that are too long
        if not (path / cards.FILE).is_file():
            if (path / model_folder.CONFIG).is_file():
                return model_folder.open_folder(path, stack)
            raise WeightsError(
                f"is a folder without {cards.FILE} and without {model_folder.CONFIG}",
                path=path,
                remedy="give a weights file, the folder that run.py export wrote, or one of "
                "Hugging Face's",
            )
        return exported.content(path)
    start = first_bytes(path)
    if start.startswith((b"MATLAB 5.0", b"MATLAB 7.3")):
        return matlab_file.open_matlab(path, stack)
    if start.startswith(_HDF5):
        return keras_file.open_keras(path, stack)
    if start.startswith(b"PK\x03\x04"):
        return torch_file.open_zip(path, stack)
    if safetensors_file.begins_one(start):
        content, metadata = safetensors_file.open_tensors(path, stack)
        if cards.KEY in metadata:
            return exported.content(path)
        return dataclasses.replace(content, stated={"metadata": metadata})
    if model_folder.is_index(path, start):
        return model_folder.open_index(path, stack)
    if tfjs_file.is_one(path, start):
        return tfjs_file.open_model(path)
    if (start[0] == 0x80 and start[1:2] in _PROTOCOLS) or start.startswith(_PICKLES):
        return torch_file.open_pickle(path, stack)
    if start.startswith(b"\x93NUMPY"):
        raise WeightsError("is one NumPy array, not a network's", path=path, remedy=RESAVE_NUMPY)
    raise WeightsError(
        f"is of no known format; it begins with {words_of(start)}",
        path=path,
        remedy=f"give a file of one of these: {FORMATS}",
    )
