"""What every reader of weights files returns: tensors by name, read when they are asked for.

Kernel letters: H W height and width, I O channels in and out.
"""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

from numpy.typing import NDArray

from mtl_face.errors import WeightsError
from mtl_face.model.geometry import ChannelOrder


@dataclasses.dataclass(frozen=True)
class Entry:
    """A tensor of a file, with its name and shape as stored.

    `read` is called only once the shape is known to be the right one, so that a file which claims a
    giant costs nothing.
    """

    name: str
    shape: tuple[int, ...]
    read: Callable[[], NDArray[Any]]

    @classmethod
    def of(cls, name: str, array: NDArray[Any]) -> "Entry":
        """The entry of an array that was read already."""
        return cls(name, array.shape, lambda: array)


@dataclasses.dataclass(frozen=True)
class FileContent:
    """The tensors of a weights file.

    Attributes:
        format: the format in words.
        family: what wrote it, of which geometry and channel order may follow: `keras`,
            `matconvnet`, `numpy` (a pickle of arrays), `torch` (safetensors too) or `ours`.
        tensors: by name in PyTorch's words: `LAYER.weight`, `.bias`, `.running_mean`,
            `.running_var`.
        kernel_layout: axes of a convolution's kernel.
        channel_order: of the first convolution's input, where the file says it.
        card: what an export of this program says of itself.
    """

    format: str
    family: Literal["keras", "matconvnet", "numpy", "torch", "ours"]
    tensors: dict[str, Entry]
    kernel_layout: Literal["HWIO", "OIHW"]
    channel_order: ChannelOrder | None = None
    card: dict[str, Any] | None = None


def damaged(path: Path, error: Exception) -> WeightsError:
    """The error for a file whose reader failed."""
    return WeightsError(
        f"is damaged or cut off: {error}", path=path, remedy="copy or download the file again"
    )
