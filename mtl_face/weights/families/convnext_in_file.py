"""A ConvNeXt in a file: its names in each scheme, its size, and its arrays.

| scheme | stem | in a block |
|---|---|---|
| timm | `stem.0` | `stages.0.blocks.0.conv_dw` |
| its makers (ConvNeXt, V2, DINOv3) | `downsample_layers.0.0` | `stages.0.0.dwconv` |
| Hugging Face | `embeddings.patch_embeddings` | `encoder.stages.0.layers.0.dwconv` |
| Hugging Face, DINOv3 | `stages.0.downsample_layers.0` | `stages.0.layers.0.depthwise_conv` |
| torchvision | `features.0.0` | `features.1.0.block.0` |
"""

import dataclasses
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mtl_face.config.schema import ConvNextConfig
from mtl_face.model.geometry import (
    CONVNEXT_KERNEL,
    CONVNEXT_MLP_RATIO,
    CONVNEXT_STEM,
    STAGE_STRIDE,
    convnext_blocks,
)
from mtl_face.weights.families import renaming
from mtl_face.weights.families.renaming import (
    DINOV3_LICENCE,
    IMAGENET,
    InFile,
    Known,
    NamedTensors,
    Naming,
    Shapes,
)
from mtl_face.weights.families.stated import ACTIVATION
from mtl_face.weights.file_content import FileContent, shown

TIMM = Naming(
    "timm",
    ("stem.0.weight", ("stages.0.blocks.0.conv_dw.weight",)),
    """
    stem                     stem.0
    stem_norm                stem.1
    stage*_downsample_norm   stages.*.downsample.0
    stage*_downsample        stages.*.downsample.1
    stage*_block*.depthwise  stages.*.blocks.*.conv_dw
    stage*_block*.norm       stages.*.blocks.*.norm
    stage*_block*.hidden     stages.*.blocks.*.mlp.fc1
    stage*_block*.grn        stages.*.blocks.*.mlp.grn
    stage*_block*.out        stages.*.blocks.*.mlp.fc2
    stage*_block*.layer_scale  stages.*.blocks.*.gamma
    norm                     head.norm norm_pre
    """,
    re.compile(r"(stem|stages)\."),
)

OWN = Naming(
    "its makers",
    ("downsample_layers.0.0.weight", ("stages.0.0.dwconv.weight",)),
    """
    stem                     downsample_layers.0.0
    stem_norm                downsample_layers.0.1
    stage*_downsample_norm   downsample_layers.*.0
    stage*_downsample        downsample_layers.*.1
    stage*_block*.depthwise  stages.*.*.dwconv
    stage*_block*.norm       stages.*.*.norm
    stage*_block*.hidden     stages.*.*.pwconv1
    stage*_block*.grn.weight  stages.*.*.grn.gamma
    stage*_block*.grn.bias   stages.*.*.grn.beta
    stage*_block*.out        stages.*.*.pwconv2
    stage*_block*.layer_scale  stages.*.*.gamma
    norm                     norm norms.3
    """,
    re.compile(r"(downsample_layers|stages)\."),
)

HUGGING_FACE = Naming(
    "Hugging Face",
    ("embeddings.patch_embeddings.weight", ("encoder.stages.0.layers.0.dwconv.weight",)),
    """
    stem                     embeddings.patch_embeddings
    stem_norm                embeddings.layernorm
    stage*_downsample_norm   encoder.stages.*.downsampling_layer.0
    stage*_downsample        encoder.stages.*.downsampling_layer.1
    """
    + """
    stage*_block*.depthwise  LAYER.dwconv
    stage*_block*.norm       LAYER.layernorm
    stage*_block*.hidden     LAYER.pwconv1
    stage*_block*.grn        LAYER.grn
    stage*_block*.out        LAYER.pwconv2
    stage*_block*.layer_scale  LAYER.layer_scale_parameter
    norm                     layernorm
    """.replace("LAYER", "encoder.stages.*.layers.*"),
    re.compile(r"(embeddings|encoder)\."),
)

HUGGING_FACE_DINOV3 = Naming(
    "Hugging Face, DINOv3",
    (
        "stages.0.downsample_layers.0.weight",
        ("stages.0.layers.0.depthwise_conv.weight",),
    ),
    """
    stem                     stages.0.downsample_layers.0
    stem_norm                stages.0.downsample_layers.1
    stage*_downsample_norm   stages.*.downsample_layers.0
    stage*_downsample        stages.*.downsample_layers.1
    stage*_block*.depthwise  stages.*.layers.*.depthwise_conv
    stage*_block*.norm       stages.*.layers.*.layer_norm
    stage*_block*.hidden     stages.*.layers.*.pointwise_conv1
    stage*_block*.out        stages.*.layers.*.pointwise_conv2
    stage*_block*.layer_scale  stages.*.layers.*.gamma
    norm                     layer_norm
    """,
    re.compile(r"stages\."),
)

TORCHVISION = Naming(
    "torchvision",
    ("features.0.0.weight", ("features.1.0.block.0.weight",)),
    """
    stem       features.0.0
    stem_norm  features.0.1
    norm       classifier.0
    """
    + "".join(
        f"""
    stage{stage}_downsample_norm   features.{2 * stage - 2}.0
    stage{stage}_downsample        features.{2 * stage - 2}.1
    stage{stage}_block*.depthwise  features.{2 * stage - 1}.*.block.0
    stage{stage}_block*.norm       features.{2 * stage - 1}.*.block.2
    stage{stage}_block*.hidden     features.{2 * stage - 1}.*.block.3
    stage{stage}_block*.out        features.{2 * stage - 1}.*.block.5
    stage{stage}_block*.layer_scale  features.{2 * stage - 1}.*.layer_scale
    """
        for stage in range(1, 5)
    ),
    re.compile(r"features\."),
)

NAMINGS = (TIMM, OWN, HUGGING_FACE, HUGGING_FACE_DINOV3, TORCHVISION)

FIRST_KERNEL = "stem/kernel"
"""Which sees the colours."""

UNTOLD = ()
"""Settings of `model` that no tensor shows."""

_SIZES: dict[tuple[tuple[int, ...], tuple[int, ...]], str] = {
    ((3, 3, 9, 3), (96, 192, 384, 768)): "ConvNeXt-T",
    ((3, 3, 27, 3), (96, 192, 384, 768)): "ConvNeXt-S",
    ((3, 3, 27, 3), (128, 256, 512, 1024)): "ConvNeXt-B",
    ((3, 3, 27, 3), (192, 384, 768, 1536)): "ConvNeXt-L",
}


@dataclasses.dataclass(frozen=True)
class ConvNextSize:
    """A ConvNeXt in a file."""

    convnext: ConvNextConfig

    def __str__(self) -> str:
        own = self.convnext
        name = _SIZES.get((own.depths, own.widths), "a ConvNeXt")
        version = " V2" if own.global_response_norm else ""
        blocks, widths = (", ".join(map(str, sizes)) for sizes in (own.depths, own.widths))
        return f"{name}{version} (stages of {blocks} blocks, {widths} channels)"

    @property
    def settings(self) -> dict[str, Any]:
        """The settings of `model` with which the network is built."""
        return {"backbone.kind": "convnext"} | {
            f"backbone.convnext.{name}": value
            for name, value in dataclasses.asdict(self.convnext).items()
        }


def holds_one(content: FileContent) -> bool:
    """Whether a file's tensors are those of a ConvNeXt."""
    if content.card is not None:
        return content.card["config"]["model"]["backbone"]["kind"] == "convnext"
    return bool(renaming.networks(content.tensors, NAMINGS))


def find(
    content: FileContent, path: Path, prefix: str | None, stated: dict[str, Any]
) -> InFile[ConvNextSize]:
    """Finds the network and its size; `stated` are settings that lie beside the weights.

    Raises:
        WeightsError: as `renaming.find`, or the size cannot be told.
    """
    found = renaming.find(content, NAMINGS, path, prefix)
    if content.card is not None:
        own = content.card["config"]["model"]["backbone"]["convnext"]
        sizes = {name: tuple(own[name]) for name in ("depths", "widths")}
        size = ConvNextSize(ConvNextConfig(**{**own, **sizes}))
        return InFile(found, size, Known("an export"))
    known = _known(found, content.tensors)
    tensors = dict(found.tensors)
    left_out = dict(found.left_out)
    final = known.family == "DINOv3"
    for name in ("norm.weight", "norm.bias"):
        if not final and name in tensors:
            entry = tensors.pop(name)
            left_out[entry.name] = entry
    found = dataclasses.replace(found, tensors=tensors, left_out=left_out)
    try:
        if stated.get(ACTIVATION, "gelu") != "gelu":
            raise ValueError(f"its activation is {shown(stated[ACTIVATION])}")
        size = _size(found, final=final)
    except ValueError as error:
        raise renaming.refused("ConvNeXt", found, error, path) from error
    return InFile(found, size, known)


def read(network: InFile[ConvNextSize], path: Path) -> dict[str, NDArray[np.float32]]:
    """The network's arrays by name, as `params/stem/kernel`, float32.

    Raises:
        WeightsError: as `renaming.read`.
    """
    return renaming.read(network.found, shapes(network.size.convnext), path)


def shapes(settings: ConvNextConfig) -> Shapes:
    """Shapes of the parameters of `mtl_face.model.backbones.convnext`, by path."""
    found: dict[str, tuple[int, ...]] = {}

    def layer(name: str, *kernel: int) -> None:
        found[f"{name}/kernel"] = kernel
        found[f"{name}/bias"] = kernel[-1:]

    def norm(name: str, channels: int) -> None:
        found.update({f"{name}/scale": (channels,), f"{name}/bias": (channels,)})

    channels = settings.widths[0]
    layer("stem", CONVNEXT_STEM, CONVNEXT_STEM, 3, channels)
    norm("stem_norm", channels)
    for block in convnext_blocks(settings):
        if block.downsamples:
            stage = f"stage{block.stage}_downsample"
            norm(f"{stage}_norm", channels)
            layer(stage, STAGE_STRIDE, STAGE_STRIDE, channels, block.channels)
            channels = block.channels
        hidden = CONVNEXT_MLP_RATIO * channels
        layer(f"{block.name}/depthwise", CONVNEXT_KERNEL, CONVNEXT_KERNEL, 1, channels)
        norm(f"{block.name}/norm", channels)
        layer(f"{block.name}/hidden", channels, hidden)
        if settings.global_response_norm:
            norm(f"{block.name}/grn", hidden)
        layer(f"{block.name}/out", hidden, channels)
        if settings.layer_scale:
            found[f"{block.name}/layer_scale"] = (channels,)
    if settings.final_norm:
        norm("norm", channels)
    return found


def _size(found: NamedTensors, *, final: bool) -> ConvNextSize:
    """The settings that the shapes show."""
    blocks: dict[int, int] = {}
    for name in found.tensors:
        match = re.match(r"stage(\d+)_block(\d+)\.", name)
        if match is not None:
            stage, block = map(int, match.groups())
            blocks[stage] = max(blocks.get(stage, 0), block)
    stages = range(1, len(blocks) + 1)
    if sorted(blocks) != list(stages):
        raise ValueError(f"it has the stages {', '.join(map(str, sorted(blocks)))}")
    return ConvNextSize(
        ConvNextConfig(
            depths=tuple(blocks[stage] for stage in stages),
            widths=tuple(
                renaming.side(found.tensors, f"stage{stage}_block1.depthwise.weight", 0)
                for stage in stages
            ),
            layer_scale="stage1_block1.layer_scale" in found.tensors,
            global_response_norm="stage1_block1.grn.weight" in found.tensors,
            final_norm=final,
        )
    )


def _known(found: NamedTensors, names: Iterable[str]) -> Known:
    """The family, by what its names and parts show."""
    if "stage1_block1.grn.weight" in found.tensors:
        return Known("ConvNeXt V2", IMAGENET, licence="CC BY-NC 4.0")
    is_own = found.title == OWN.title and any(name.endswith("norms.3.weight") for name in names)
    if is_own or found.title == HUGGING_FACE_DINOV3.title:
        return Known("DINOv3", IMAGENET, licence=DINOV3_LICENCE)
    note = (
        "names cannot tell a ConvNeXt trained on ImageNet from timm's copy of DINOv3's, whose "
        "licence binds: the folder's config.json may; its input is taken as ImageNet's"
        if found.title == TIMM.title
        else "the file does not say what it was trained on; its input is taken as ImageNet's"
    )
    return Known("a ConvNeXt", IMAGENET, note=note)
