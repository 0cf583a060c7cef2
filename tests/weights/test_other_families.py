"""Networks of other families are refused by name, with what to do."""

import pytest
import torch
from weight_faults import problem_of

from mtl_face.errors import WeightsError
from mtl_face.weights import load_backbone

NAMES = {
    "a ResNet with squeeze-and-excitation": ["layer1.0.se.fc.0.weight", "conv2_1_1x1_down.weight"],
    "an IResNet": ["layer1.0.prelu.weight", "body.0.res_layer.0.weight"],
    "a ViT": [
        "cls_token",
        "class_token",
        "vit.embeddings.cls_token",
        "backbone.patch_embed.proj.weight",
        "vit.embeddings.patch_embeddings.projection.weight",
        "embeds.proj.weight",
    ],
    "a Swin": ["layers.0.blocks.0.attn.relative_position_bias_table"],
    "an EfficientNet or a MobileNet": [
        "conv_stem.weight",
        "blocks.0.0.conv_dw.weight",
        "_conv_stem.weight",
    ],
    "an EfficientNet, as": ["features.1.0.block.0.0.weight"],
    "a MobileNet": ["features.1.conv.0.0.weight", "features.1.block.0.0.weight"],
    "a ConvNeXt": ["stages.0.blocks.0.conv_dw.weight", "downsample_layers.0.0.weight"],
    "an Inception-ResNet": ["conv2d_1a.conv.weight"],
    "a DenseNet": ["features.denseblock1.denselayer1.norm1.weight"],
    "parts of a transformer": ["layer.7.attention.q_proj.weight", "blocks.3.attn.qkv.weight"],
    "a VGG network": ["classifier.6.weight", "conv5_3.weight"],
}


@pytest.mark.parametrize(
    ("family", "name"), [(family, name) for family, names in NAMES.items() for name in names]
)
def test_named(path, network, family, name):
    for state in ({name: torch.ones(2)}, {f"state_dict.module.{name}": torch.ones(2)}):
        torch.save(state, path)
        assert problem_of(path).startswith(f"holds {family}")
        with pytest.raises(WeightsError) as raised:
            load_backbone(path)
        read = family in ("a ViT", "a ConvNeXt", "parts of a transformer")
        assert ("the folder with config.json" if read else "ResNet50") in raised.value.remedy


@pytest.mark.parametrize("name", ["layer1.0.prelu.weight", "layer1.0.se.fc.0.weight"])
def test_with_the_names_of_a_resnet(path, network, name):
    state = dict(network.state_dict()) | {name: torch.ones(2)}
    torch.save(state, path)
    assert problem_of(path).endswith(f"as {name} shows")
    del state["layer1.0.conv3.weight"]
    torch.save(state, path)
    assert problem_of(path).endswith(f"as {name} shows")


def test_a_resnet_is_none_of_them(path, network):
    torch.save(network.state_dict(), path)
    with pytest.raises(WeightsError, match="not ResNet50"):  # it is a small one
        load_backbone(path)
