"""ConvNeXts in every scheme of names: the map equals PyTorch's."""

import re

import numpy as np
import pytest
import safetensors.torch
import torch
from model_settings import changed
from torch import nn
from torch.nn import functional

from mtl_face.config import ModelConfig
from mtl_face.config.schema import ConvNextConfig
from mtl_face.errors import WeightsError
from mtl_face.model import backbones
from mtl_face.weights import load_backbone
from mtl_face.weights.backbone import check_settings

pytestmark = pytest.mark.torch

DEPTHS, WIDTHS = (1, 2), (6, 10)
IMAGE = np.random.default_rng(0).normal(size=(2, 24, 16, 3)).astype(np.float32)


class Norm(nn.LayerNorm):
    """Over the channels of [B, C, H, W]."""

    def __init__(self, channels):
        super().__init__(channels, eps=1e-6)

    def forward(self, x):
        return super().forward(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class Reference(nn.Module):
    """ConvNeXt with the names of its makers; `v2` has the norm of responses, and no scale."""

    def __init__(self, *, v2):
        super().__init__()
        self.v2 = v2
        self.downsample_layers, self.stages = nn.ModuleList(), nn.ModuleList()
        before = 3
        for stage, (depth, width) in enumerate(zip(DEPTHS, WIDTHS, strict=True)):
            size = 2 if stage else 4
            parts = [nn.Conv2d(before, width, size, stride=size), Norm(before if stage else width)]
            self.downsample_layers.append(nn.Sequential(*(parts[::-1] if stage else parts)))
            self.stages.append(nn.ModuleList([self.block(width) for _ in range(depth)]))
            before = width
        self.norm = Norm(before)
        generator = torch.Generator().manual_seed(3)
        with torch.no_grad():
            for name, tensor in self.named_parameters():
                gain = tensor[0].numel() ** -0.5 if tensor.ndim > 1 else 0.3
                flat = torch.randn(tensor.shape, generator=generator)
                tensor.copy_(flat * gain + (tensor.ndim == 1 and not name.endswith("bias")))

    def block(self, width):
        block = nn.Module()
        block.dwconv = nn.Conv2d(width, width, 7, padding=3, groups=width)
        block.norm = nn.LayerNorm(width, eps=1e-6)
        block.pwconv1, block.pwconv2 = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)
        if self.v2:
            block.grn = nn.Module()
            block.grn.gamma = nn.Parameter(torch.zeros(1, 1, 1, 4 * width))
            block.grn.beta = nn.Parameter(torch.zeros(1, 1, 1, 4 * width))
        else:
            block.gamma = nn.Parameter(torch.zeros(width))
        return block

    def forward(self, x, *, final):
        for smaller, stage in zip(self.downsample_layers, self.stages, strict=True):
            x = smaller(x)
            for block in stage:
                y = block.norm(block.dwconv(x).permute(0, 2, 3, 1))
                y = functional.gelu(block.pwconv1(y))
                if self.v2:
                    norm = torch.linalg.vector_norm(y, dim=(1, 2), keepdim=True)
                    ratio = norm / (norm.mean(-1, keepdim=True) + 1e-6)
                    y = y + block.grn.gamma * y * ratio + block.grn.beta
                y = block.pwconv2(y)
                x = x + (y if self.v2 else y * block.gamma).permute(0, 3, 1, 2)
        x = self.norm(x) if final else x
        return x.permute(0, 2, 3, 1)


def renamed(state, pairs):
    found = {}
    for name, tensor in state.items():
        for pattern, new in pairs:
            name, count = re.subn(f"^{pattern}", new, name)
            if count:
                break
        found[name] = tensor
    return found


def as_timm(state):
    return renamed(
        state,
        (
            (r"downsample_layers\.0", "stem"),
            (r"downsample_layers\.(\d)", r"stages.\1.downsample"),
            (r"stages\.(\d)\.(\d)\.dwconv", r"stages.\1.blocks.\2.conv_dw"),
            (r"stages\.(\d)\.(\d)\.pwconv", r"stages.\1.blocks.\2.mlp.fc"),
            (r"stages\.(\d)\.(\d)\.grn\.gamma", r"stages.\1.blocks.\2.mlp.grn.weight"),
            (r"stages\.(\d)\.(\d)\.grn\.beta", r"stages.\1.blocks.\2.mlp.grn.bias"),
            (r"stages\.(\d)\.(\d)\.", r"stages.\1.blocks.\2."),
            (r"norm\.", "head.norm."),
        ),
    ) | {"head.fc.weight": torch.ones(5, 10)}


def as_hugging_face(state):
    layer = r"encoder.stages.\1.layers.\2."
    return renamed(
        state,
        (
            (r"downsample_layers\.0\.0", "embeddings.patch_embeddings"),
            (r"downsample_layers\.0\.1", "embeddings.layernorm"),
            (r"downsample_layers\.(\d)", r"encoder.stages.\1.downsampling_layer"),
            (r"stages\.(\d)\.(\d)\.norm", layer + "layernorm"),
            (r"stages\.(\d)\.(\d)\.gamma", layer + "layer_scale_parameter"),
            (r"stages\.(\d)\.(\d)\.grn\.gamma", layer + "grn.weight"),
            (r"stages\.(\d)\.(\d)\.grn\.beta", layer + "grn.bias"),
            (r"stages\.(\d)\.(\d)\.", layer),
            (r"norm\.", "layernorm."),
        ),
    )


def as_dinov3(state):
    layer = r"stages.\1.layers.\2."
    return renamed(
        state,
        (
            (r"downsample_layers\.(\d)", r"stages.\1.downsample_layers"),
            (r"stages\.(\d)\.(\d)\.dwconv", layer + "depthwise_conv"),
            (r"stages\.(\d)\.(\d)\.pwconv", layer + "pointwise_conv"),
            (r"stages\.(\d)\.(\d)\.norm", layer + "layer_norm"),
            (r"stages\.(\d)\.(\d)\.", layer),
            (r"norm\.", "layer_norm."),
        ),
    )


def as_torchvision(state):
    found = {}
    for name, tensor in state.items():
        *parts, kind = name.split(".")
        if parts[0] == "downsample_layers":
            found[f"features.{2 * int(parts[1])}.{parts[2]}.{kind}"] = tensor
        elif parts[0] == "norm":
            found[f"classifier.0.{kind}"] = tensor
        elif kind == "gamma":
            place = f"features.{2 * int(parts[1]) + 1}.{parts[2]}.layer_scale"
            found[place] = tensor[:, None, None]
        else:
            number = {"dwconv": 0, "norm": 2, "pwconv1": 3, "pwconv2": 5}[parts[3]]
            place = f"features.{2 * int(parts[1]) + 1}.{parts[2]}.block.{number}.{kind}"
            found[place] = tensor
    return found


SCHEMES = {
    "timm": (False, as_timm, "a ConvNeXt"),
    "timm, V2": (True, as_timm, "ConvNeXt V2"),
    "its makers": (False, dict, "a ConvNeXt"),
    "its makers, V2": (True, dict, "ConvNeXt V2"),
    "Hugging Face": (False, as_hugging_face, "a ConvNeXt"),
    "Hugging Face, V2": (True, as_hugging_face, "ConvNeXt V2"),
    "DINOv3": (False, as_dinov3, "DINOv3"),
    "torchvision": (False, as_torchvision, "a ConvNeXt"),
}


def settings_of(loaded):
    own = {n.rpartition(".")[2]: v for n, v in loaded.architecture.settings.items() if "next." in n}
    return changed(
        ModelConfig(), kind="convnext", convnext=ConvNextConfig(**own), convolution="xla"
    )


@pytest.mark.parametrize("scheme", SCHEMES)
def test_equals_pytorch(tmp_path, scheme):
    v2, as_named, family = SCHEMES[scheme]
    network = Reference(v2=v2)
    state = {name: tensor.detach().contiguous() for name, tensor in network.state_dict().items()}
    named = {f"model.{name}": tensor.contiguous() for name, tensor in as_named(state).items()}
    safetensors.torch.save_file(named, tmp_path / "w")
    loaded = load_backbone(tmp_path / "w")
    own = backbones.make(settings_of(loaded), 1, name=None)
    found = np.asarray(own.apply({"params": loaded.params}, IMAGE, train=False))
    image = torch.from_numpy(IMAGE.transpose(0, 3, 1, 2).copy())
    with torch.no_grad():
        expected = network(image, final=family == "DINOv3").numpy()
    assert found.shape == expected.shape == (2, 3, 2, 10)
    assert expected.std() > 0.1
    assert np.abs(found - expected).max() < 1e-5 * np.abs(expected).max()
    assert loaded.source["family"] == family
    assert (loaded.architecture.convnext.depths, loaded.architecture.convnext.widths) == (
        DEPTHS,
        WIDTHS,
    )


def test_dinov3_s_own_names(tmp_path):
    """Its last norm has two names, and each place of the map is normalised."""
    tensors = {n: t.detach().clone() for n, t in Reference(v2=False).state_dict().items()}
    more = {f"norms.3.{kind}": tensors[f"norm.{kind}"].clone() for kind in ("weight", "bias")}
    safetensors.torch.save_file(tensors | more, tmp_path / "w")
    loaded = load_backbone(tmp_path / "w")
    assert loaded.source["licence"].startswith("DINOv3 License")
    assert loaded.architecture.convnext.final_norm
    np.testing.assert_array_equal(loaded.params["norm"]["scale"], tensors["norm.weight"].numpy())
    left_out = {name.rpartition(".")[0] for name, _ in loaded.left_out}
    assert len(left_out) == 1
    assert left_out < {"norm", "norms.3"}


def test_another_activation(tmp_path):
    tensors = {n: t.detach().clone() for n, t in Reference(v2=False).state_dict().items()}
    safetensors.torch.save_file(tensors, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text('{"hidden_act": "relu"}')
    with pytest.raises(WeightsError, match="its activation is relu"):
        load_backbone(tmp_path)


def test_files_that_do_not_fit(tmp_path):
    state = {n: t.detach().clone() for n, t in Reference(v2=False).state_dict().items()}
    safetensors.torch.save_file(state, tmp_path / "w")
    with pytest.raises(WeightsError, match=r"depths is 3,3,9,3, the weights need 1,2"):
        check_settings(load_backbone(tmp_path / "w"), changed(ModelConfig(), kind="convnext"), "w")
    for name, words in (
        ("stages.1.0.pwconv2.bias", "lacks stage2_block1.out.bias"),
        ("stages.1.0.dwconv.weight", "lacks stage2_block1.depthwise.weight"),
        ("stages.0.0.dwconv.weight", "holds no ResNet|holds a ConvNeXt"),
    ):
        rest = {key: tensor for key, tensor in state.items() if key != name}
        safetensors.torch.save_file(rest, tmp_path / "w")
        with pytest.raises(WeightsError, match=words):
            load_backbone(tmp_path / "w")
