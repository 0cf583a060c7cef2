"""What every reader of a weights file hands on: tensors by name, read when they are asked for.

Kernel letters: H W height and width, I O channels in and out.
"""

import dataclasses
from collections.abc import Callable
from typing import Any, Literal

from numpy.typing import NDArray

from mtl_face.model.variants import ChannelOrder

KernelLayout = Literal["HWIO", "OIHW"]


@dataclasses.dataclass(frozen=True)
class Entry:
    """A tensor of a file.

    Attributes:
        name: as the file has it, for messages.
        shape: as stored.
        read: reads it; called only once the shape is known to be the right one, so that a file
            which claims a giant costs nothing.
    """

    name: str
    shape: tuple[int, ...]
    read: Callable[[], NDArray[Any]]


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
        card: what an export of ours says of itself.
    """

    format: str
    family: Literal["keras", "matconvnet", "numpy", "torch", "ours"]
    tensors: dict[str, Entry]
    kernel_layout: KernelLayout
    channel_order: ChannelOrder | None = None
    card: dict[str, Any] | None = None
