"""Bottleneck ResNets in PyTorch, each geometry as its release states it, with random weights.

Written from the releases' own descriptions and with PyTorch's own layers and names; nothing of the
package is used here.
"""

import collections
import dataclasses

import numpy as np
import torch
from torch import nn


@dataclasses.dataclass(frozen=True)
class Size:
    blocks: tuple[int, ...] = (3, 4, 6, 3)
    width: int = 64
    expansion: int = 4


RESNET50 = Size()
SMALL = Size((2, 1), 4, 2)


class Bottleneck(nn.Module):
    """With the names of torchvision."""

    def __init__(self, channels, inner, expansion, stride, project, stride_in_first, epsilon):
        super().__init__()
        first, second = (stride, 1) if stride_in_first else (1, stride)
        self.conv1 = nn.Conv2d(channels, inner, 1, first, bias=False)
        self.bn1 = nn.BatchNorm2d(inner, eps=epsilon)
        self.conv2 = nn.Conv2d(inner, inner, 3, second, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(inner, eps=epsilon)
        self.conv3 = nn.Conv2d(inner, inner * expansion, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(inner * expansion, eps=epsilon)
        self.downsample = None
        if project:
            self.downsample = nn.Sequential(
                nn.Conv2d(channels, inner * expansion, 1, stride, bias=False),
                nn.BatchNorm2d(inner * expansion, eps=epsilon),
            )

    def forward(self, x):
        y = torch.relu(self.bn1(self.conv1(x)))
        y = torch.relu(self.bn2(self.conv2(y)))
        y = self.bn3(self.conv3(y))
        return torch.relu(y + (x if self.downsample is None else self.downsample(x)))


class ReferenceResNet(nn.Module):
    """Feature map of a normalised image; `geometry` is caffe, keras or torchvision."""

    def __init__(self, geometry, size=RESNET50, classes=None):
        super().__init__()
        epsilon = 1e-3 if geometry == "keras" else 1e-5
        stride_in_first = geometry != "torchvision"
        if geometry == "keras":  # 224 -> 112 wants 5 rows: 2 above and 3 below
            self.pad = nn.ZeroPad2d((2, 3, 2, 3))
            self.conv1 = nn.Conv2d(3, size.width, 7, 2, bias=False)
        else:
            self.pad = nn.Identity()
            self.conv1 = nn.Conv2d(3, size.width, 7, 2, 3, bias=False)
        self.bn1 = nn.BatchNorm2d(size.width, eps=epsilon)
        self.pool = {
            "caffe": nn.MaxPool2d(3, 2, ceil_mode=True),
            "keras": nn.MaxPool2d(3, 2),
            "torchvision": nn.MaxPool2d(3, 2, padding=1),
        }[geometry]
        channels = size.width
        self.stages = len(size.blocks)
        for stage, blocks in enumerate(size.blocks):
            inner = size.width * 2**stage
            modules = []
            for block in range(blocks):
                stride = 2 if block == 0 and stage > 0 else 1
                modules.append(
                    Bottleneck(
                        channels,
                        inner,
                        size.expansion,
                        stride,
                        block == 0,
                        stride_in_first,
                        epsilon,
                    )
                )
                channels = inner * size.expansion
            setattr(self, f"layer{stage + 1}", nn.Sequential(*modules))
        if classes is not None:
            self.fc = nn.Linear(channels, classes)

    def forward(self, x):
        x = self.pool(torch.relu(self.bn1(self.conv1(self.pad(x)))))
        for stage in range(self.stages):
            x = getattr(self, f"layer{stage + 1}")(x)
        return x


def make(geometry, size=RESNET50, classes=None, seed=0):
    """A network in evaluation mode whose every value matters and whose map stays near 1."""
    generator = torch.Generator().manual_seed(seed)
    network = ReferenceResNet(geometry, size, classes)
    with torch.no_grad():
        for module in network.modules():
            if isinstance(module, nn.Conv2d):
                spread = (2 / module.weight[0].numel()) ** 0.5
                module.weight.normal_(0, spread, generator=generator)
            elif isinstance(module, nn.BatchNorm2d):
                # A small variance shows the epsilon, unequal channels any confusion of them.
                module.running_var.uniform_(0.01, 1.5, generator=generator)
                module.running_mean.normal_(0, 0.2, generator=generator)
                module.weight.uniform_(0.3, 0.9, generator=generator)
                module.bias.normal_(0.05, 0.1, generator=generator)
    # the first normalisation meets values of 0..255
    if geometry != "torchvision":
        with torch.no_grad():
            network.bn1.running_var.mul_(60.0**2)
            network.bn1.running_mean.mul_(60.0)
    return network.eval()


def feature_map(network, image_HWC, *, order, mean_rgb, std_rgb):
    """[H, W, C] map of an RGB image in 0..255 that is fed in the order that the network takes."""
    x = (image_HWC.astype(np.float32) - np.float32(mean_rgb)) / np.float32(std_rgb)
    if order == "bgr":
        x = x[..., ::-1]
    with torch.no_grad():
        y = network(torch.from_numpy(np.ascontiguousarray(x)).permute(2, 0, 1)[None])
    return y[0].permute(1, 2, 0).numpy()


_PARTS = {
    "conv1": "1x1_reduce",
    "bn1": "1x1_reduce/bn",
    "conv2": "3x3",
    "bn2": "3x3/bn",
    "conv3": "1x1_increase",
    "bn3": "1x1_increase/bn",
    "downsample.0": "1x1_proj",
    "downsample.1": "1x1_proj/bn",
}


def caffe_name(name):
    """`layer1.0.bn1` -> `conv2_1_1x1_reduce/bn`, the name in the VGGFace2 release."""
    if name in ("conv1", "bn1"):
        return "conv1/7x7_s2" + ("/bn" if name == "bn1" else "")
    stage, block, part = name.removeprefix("layer").split(".", 2)
    return f"conv{int(stage) + 1}_{int(block) + 1}_{_PARTS[part]}"


def caffe_tensors(network):
    """(Caffe's layer, kind, values) of the backbone: kind is weight, bias, running_mean, ..."""
    for name, tensor in network.state_dict().items():
        layer, kind = name.rsplit(".", 1)
        if layer != "fc" and kind != "num_batches_tracked":
            yield caffe_name(layer), kind, tensor.numpy()


def state_dict(network):
    return collections.OrderedDict(network.state_dict())
