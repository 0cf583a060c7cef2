"""Names of tensors by which networks that are no plain ResNet give themselves away."""

import re
from collections.abc import Iterable
from pathlib import Path

from mtl_face.errors import WeightsError
from mtl_face.weights.file_content import shown

_FAMILIES = tuple(
    (family, re.compile(rf"(?:^|\.){pattern}"))
    for family, pattern in (
        ("a Swin transformer", r"relative_position_bias_table$"),
        ("a ConvNeXt", r"(stages\.\d+\.blocks\.\d+\.conv_dw|downsample_layers\.\d+)\."),
        (
            "a ViT",
            r"(cls_token|class_token|class_embedding|patch_embed\.proj\.weight|conv_proj\.weight"
            r"|patch_embeddings\.projection\.weight|embeds\.proj\.weight)$",
        ),
        (
            "an EfficientNet or a MobileNet",
            r"(conv_stem\.weight$|_conv_stem\.weight$|blocks\.\d+\.\d+\.conv_dw\."
            r"|_blocks\.\d+\._depthwise_conv\.)",
        ),
        ("an EfficientNet", r"features\.\d+\.\d+\.block\.\d+\."),
        ("a MobileNet", r"features\.\d+\.(conv|block)\.\d+\."),
        ("an IResNet (ArcFace)", r"(layer\d+\.\d+\.prelu\.weight|body\.\d+\.res_layer\.)"),
        ("an Inception-ResNet (FaceNet)", r"(conv2d_1a\.conv|repeat_\d\.\d+\.branch0)\."),
        ("a DenseNet", r"denseblock\d+\."),
        ("a VGG network", r"(conv5_3|classifier\.6)\.weight$"),
        (
            "a ResNet with squeeze-and-excitation (SENet)",
            r"(conv\d+_\d+_1x1_(down|up)|layer\d+\.\d+\.se(_module)?)\.",
        ),
        ("parts of a transformer", r"(qkv|query|q_proj|in_proj)[._]weight$"),
    )
)


_READ = ("a ViT", "a ConvNeXt", "parts of a transformer")

_WHOLE = (
    "no file of this kind is read but of a whole network that docs/weights.md names: of one in "
    "several files give the folder with config.json, or the .json that lists them"
)
_OTHER = (
    "no weights of this kind are read: give those of a whole network that docs/weights.md names, "
    "as a ResNet50's (VGGFace2, torchvision, timm) or a ViT's, or start from random weights"
)


def refuse(names: Iterable[str], path: Path) -> None:
    """Raises WeightsError if tensors of the file `path` have names of another family."""
    names = list(names)
    for family, pattern in _FAMILIES:
        telling = next(filter(pattern.search, names), None)
        if telling is not None:
            raise WeightsError(
                f"holds {family}, as {shown(telling)} shows",
                path=path,
                remedy=_WHOLE if family in _READ else _OTHER,
            )
