"""The paper's network and loss a second time, in PyTorch and from the paper, to compare with.

Written from the description of the method (arXiv 2208.03506, section 3; what it leaves open as the
docstrings of `mtl_face.model` state it) with PyTorch's own layers. Other backbones are ViT (arXiv
2010.11929) and ConvNeXt V1 (arXiv 2201.03545). Sub-modules bear the names of our parameters, so
that weights and gradients are carried over by name.

Shapes: B batch, N patches, D width, T tasks, H heads, M decoder modules.
"""

import dataclasses
import math
from collections.abc import Callable

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from mtl_face.config import BackboneConfig, ModelConfig

TASK_SIZES = {"va": 2, "au": 12, "expr": 8}


class Bottleneck(nn.Module):
    """ResNet's block: 1 x 1, 3 x 3, 1 x 1, and a shortcut."""

    def __init__(self, channels_in, inner, out, stride, *, projects, stride_in_3x3, eps):
        super().__init__()
        first, second = (1, stride) if stride_in_3x3 else (stride, 1)
        self.conv1 = nn.Conv2d(channels_in, inner, 1, stride=first, bias=False)
        self.bn1 = nn.BatchNorm2d(inner, eps=eps)
        self.conv2 = nn.Conv2d(inner, inner, 3, stride=second, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(inner, eps=eps)
        self.conv3 = nn.Conv2d(inner, out, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(out, eps=eps)
        self.proj = self.proj_bn = None
        if projects:
            self.proj = nn.Conv2d(channels_in, out, 1, stride=stride, bias=False)
            self.proj_bn = nn.BatchNorm2d(out, eps=eps)

    def forward(self, x):
        y = self.bn1(self.conv1(x)).relu()
        y = self.bn2(self.conv2(y)).relu()
        y = self.bn3(self.conv3(y))
        return (y + (x if self.proj is None else self.proj_bn(self.proj(x)))).relu()


class ResNet(nn.Module):
    """ResNet without its final pooling, in Caffe's, Keras' or torchvision's geometry."""

    def __init__(self, blocks, width, expansion, variant):
        super().__init__()
        self.variant = variant
        eps = 1e-3 if variant == "keras" else 1e-5
        self.conv1 = nn.Conv2d(3, width, 7, stride=2, padding=0, bias=False)
        self.bn1 = nn.BatchNorm2d(width, eps=eps)
        self.pool = {
            "caffe": nn.MaxPool2d(3, 2, ceil_mode=True),
            "keras": nn.MaxPool2d(3, 2),
            "torchvision": nn.MaxPool2d(3, 2, padding=1),
        }[variant]
        self.names = []
        channels = width
        for stage, count in enumerate(blocks, start=1):
            inner = width * 2 ** (stage - 1)
            for block in range(1, count + 1):
                name = f"stage{stage}_block{block}"
                first = block == 1
                module = Bottleneck(
                    channels,
                    inner,
                    inner * expansion,
                    2 if first and stage > 1 else 1,
                    projects=first,
                    stride_in_3x3=variant == "torchvision",
                    eps=eps,
                )
                self.add_module(name, module)
                self.names.append(name)
                channels = inner * expansion
        self.channels = channels

    def forward(self, image):
        if self.variant == "keras":
            # "same": as little as covers the image, the odd pixel right and below.
            pad = (math.ceil(image.shape[-1] / 2) - 1) * 2 + 7 - image.shape[-1]
            image = functional.pad(image, (pad // 2, pad - pad // 2) * 2)
        else:
            image = functional.pad(image, (3, 3, 3, 3))
        x = self.pool(self.bn1(self.conv1(image)).relu())
        for name in self.names:
            x = self.get_submodule(name)(x)
        return x


class SelfAttention(nn.Module):
    """Of all tokens, by PyTorch's fused kernel; queries, keys and values from one product."""

    def __init__(self, width, heads):
        super().__init__()
        self.heads = heads
        self.in_proj_weight = nn.Parameter(torch.empty(3 * width, width))
        self.in_proj_bias = nn.Parameter(torch.zeros(3 * width))
        self.out_proj = nn.Linear(width, width)
        nn.init.xavier_uniform_(self.in_proj_weight)

    def forward(self, x):
        packed = functional.linear(x, self.in_proj_weight, self.in_proj_bias)
        query, key, value = packed.unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        answer = functional.scaled_dot_product_attention(query, key, value)
        return self.out_proj(answer.transpose(1, 2).flatten(2))


class Perceptron(nn.Module):
    """Two layers with GELU between."""

    def __init__(self, width, hidden):
        super().__init__()
        self.hidden, self.out = nn.Linear(width, hidden), nn.Linear(hidden, width)

    def forward(self, x):
        return self.out(functional.gelu(self.hidden(x)))


class VisionBlock(nn.Module):
    """Attention and a perceptron, each behind a norm."""

    def __init__(self, width, heads, hidden, eps):
        super().__init__()
        self.attention_norm, self.mlp_norm = (nn.LayerNorm(width, eps=eps) for _ in range(2))
        self.attention = SelfAttention(width, heads)
        self.mlp = Perceptron(width, hidden)

    def forward(self, x):
        x = x + self.attention(self.attention_norm(x))
        return x + self.mlp(self.mlp_norm(x))


class VisionTransformer(nn.Module):
    """The patches' tokens of a ViT with a class token and learned positions, as a map."""

    def __init__(self, settings, input_size):
        super().__init__()
        s = settings
        self.grid = input_size // s.patch
        self.channels = s.width
        self.patch = nn.Conv2d(3, s.width, s.patch, stride=s.patch)
        self.class_token = nn.Parameter(torch.randn(1, s.width) * 0.02)
        self.position = nn.Parameter(torch.randn(self.grid**2, s.width) * 0.02)
        blocks = (s.width, s.num_heads, s.mlp_width, s.norm_epsilon)
        for index in range(1, s.depth + 1):
            self.add_module(f"block{index}", VisionBlock(*blocks))
        self.depth = s.depth
        self.norm = nn.LayerNorm(s.width, eps=s.norm_epsilon)

    def forward(self, image):
        x = self.patch(image).flatten(2).transpose(1, 2) + self.position
        x = torch.cat([self.class_token.expand(x.shape[0], -1, -1), x], dim=1)
        for index in range(1, self.depth + 1):
            x = self.get_submodule(f"block{index}")(x)
        return self.norm(x)[:, 1:].transpose(1, 2).unflatten(2, (self.grid, self.grid))


class ConvNextBlock(nn.Module):
    """A depthwise convolution, a norm and a scaled perceptron of each place."""

    def __init__(self, width):
        super().__init__()
        self.depthwise = nn.Conv2d(width, width, 7, padding=3, groups=width)
        self.norm = nn.LayerNorm(width, eps=1e-6)
        self.hidden, self.out = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)
        self.layer_scale = nn.Parameter(torch.full((width,), 1e-6))

    def forward(self, x):
        y = self.norm(self.depthwise(x).permute(0, 2, 3, 1))
        y = self.layer_scale * self.out(functional.gelu(self.hidden(y)))
        return x + y.permute(0, 3, 1, 2)


class ConvNext(nn.Module):
    """The map of a ConvNeXt, without the norm that follows its pooling."""

    def __init__(self, settings):
        super().__init__()
        self.names, before = [], 3
        for stage, depth in enumerate(settings.depths, start=1):
            width = settings.widths[stage - 1]
            smaller, size = (f"stage{stage}_downsample", 2) if stage > 1 else ("stem", 4)
            convolution = nn.Conv2d(before, width, size, stride=size)
            norm = nn.LayerNorm(before if stage > 1 else width, eps=1e-6)
            parts = [(f"{smaller}_norm", norm), (smaller, convolution)]
            parts = parts if stage > 1 else parts[::-1]
            parts += [(f"stage{stage}_block{n}", ConvNextBlock(width)) for n in range(1, depth + 1)]
            for name, module in parts:
                self.add_module(name, module)
                self.names.append(name)
            before = width
        self.channels = before

    def forward(self, x):
        for name in self.names:
            module = self.get_submodule(name)
            if isinstance(module, nn.LayerNorm):  # over the channels of [B, C, H, W]
                x = module(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
            else:
                x = module(x)
        return x


def backbone_of(settings: ModelConfig) -> nn.Module:
    """The backbone of the settings; ValueError where there is none in PyTorch."""
    s, plain = settings.backbone, BackboneConfig()
    if s.kind == "resnet":
        return ResNet(s.stage_sizes, s.width, s.expansion, s.variant)
    sizes = {
        "vit": ("patch", "width", "depth", "num_heads", "mlp_width", "norm_epsilon"),
        "convnext": ("depths", "widths"),
    }
    own, form = getattr(s, s.kind, None), getattr(plain, s.kind, None)
    if s.kind not in sizes or own != dataclasses.replace(
        form, **{name: getattr(own, name) for name in sizes[s.kind]}
    ):
        raise ValueError(f"this form of {s.kind} is not written in PyTorch")
    return VisionTransformer(own, settings.input_size) if s.kind == "vit" else ConvNext(own)


class Attending(nn.Module):
    """Attention with a residual, then perhaps a perceptron with one; LayerNorm after or before."""

    def __init__(self, width, heads, mlp_ratio, norm):
        super().__init__()
        self.pre = norm == "pre"
        self.weights = True
        self.attention = nn.MultiheadAttention(width, heads, batch_first=True)
        self.attention_norm = nn.LayerNorm(width, eps=1e-6)
        self.mlp_hidden = None
        if mlp_ratio:
            self.mlp_hidden = nn.Linear(width, mlp_ratio * width)
            self.mlp_out = nn.Linear(mlp_ratio * width, width)
            self.mlp_norm = nn.LayerNorm(width, eps=1e-6)

    def mlp(self, x):
        return self.mlp_out(functional.gelu(self.mlp_hidden(x)))

    def forward(self, query, memory=None):
        asking = self.attention_norm(query) if self.pre else query
        read = asking if memory is None else memory
        answer, weights = self.attention(
            asking, read, read, need_weights=self.weights, average_attn_weights=False
        )
        x = query + answer
        if not self.pre:
            x = self.attention_norm(x)
        if self.mlp_hidden is not None:
            x = x + self.mlp(self.mlp_norm(x)) if self.pre else self.mlp_norm(x + self.mlp(x))
        return x, weights


class PatchEncoder(nn.Module):
    """N_x layers of self-attention over patches that know their place."""

    def __init__(self, layers, width, heads, mlp_ratio, norm):
        super().__init__()
        for index in range(1, layers + 1):
            self.add_module(f"layer{index}", Attending(width, heads, mlp_ratio, norm))
        self.layers = layers
        self.final_norm = nn.LayerNorm(width, eps=1e-6) if norm == "pre" else None

    def forward(self, patches):
        for index in range(1, self.layers + 1):
            patches, _ = self.get_submodule(f"layer{index}")(patches)
        return patches if self.final_norm is None else self.final_norm(patches)


class TokenDecoder(nn.Module):
    """N_t modules: tokens look at each other, then at the patches."""

    def __init__(self, modules, width, heads, mlp_ratio, mlp_place, norm):
        super().__init__()
        self.tokens = nn.Parameter(torch.empty(len(TASK_SIZES), width))
        for index in range(1, modules + 1):
            own = mlp_ratio if mlp_place == "each" else 0
            self.add_module(f"module{index}_self", Attending(width, heads, own, norm))
            self.add_module(f"module{index}_cross", Attending(width, heads, mlp_ratio, norm))
        self.count = modules
        self.final_norm = nn.LayerNorm(width, eps=1e-6) if norm == "pre" else None

    def forward(self, patches):
        # The shape, not `len`, which an export takes for a constant.
        tokens, maps = self.tokens.expand(patches.shape[0], -1, -1), []
        for index in range(1, self.count + 1):
            tokens, _ = self.get_submodule(f"module{index}_self")(tokens)
            tokens, weights = self.get_submodule(f"module{index}_cross")(tokens, patches)
            maps.append(weights)
        if self.final_norm is not None:
            tokens = self.final_norm(tokens)
        return tokens, torch.stack(maps, dim=1) if maps[0] is not None else None


class Head(nn.Module):
    """N_d dense layers with ReLU between them."""

    def __init__(self, layers, width, hidden, out):
        super().__init__()
        sizes = [width, *[hidden] * (layers - 1), out]
        for index in range(layers):
            self.add_module(f"dense{index + 1}", nn.Linear(sizes[index], sizes[index + 1]))
        self.layers = layers

    def forward(self, x):
        for index in range(1, self.layers):
            x = self.get_submodule(f"dense{index}")(x).relu()
        return self.get_submodule(f"dense{self.layers}")(x)


class PaperNetwork(nn.Module):
    """The whole network without dropout, built from the settings of `MtlFace`.

    Without `attention` the maps are None, and PyTorch takes its faster kernels.
    """

    def __init__(self, settings: ModelConfig, *, attention: bool = True) -> None:
        super().__init__()
        s = settings
        width, shared = s.embed_dim, (s.num_heads, s.mlp_ratio)
        self.mean, self.std = s.input_mean, s.input_std
        self.position = s.position
        self.backbone = backbone_of(s)
        self.projection = nn.Conv2d(self.backbone.channels, width, 1)
        self.encoder = PatchEncoder(s.encoder_layers, width, *shared, s.norm)
        self.decoder = TokenDecoder(s.decoder_modules, width, *shared, s.decoder_mlp, s.norm)
        for task, out in TASK_SIZES.items():
            self.add_module(f"head_{task}", Head(s.head_layers, width, s.head_width, out))
        for module in self.modules():
            if isinstance(module, Attending):
                module.weights = attention
        self.code = None

    def forward(self, image_bhwc):
        """Image [B, H, W, 3] in 0..255 -> `va`, `au`, `expr` and `attention` [B, M, H, T, N]."""
        mean, std = (image_bhwc.new_tensor(values) for values in (self.mean, self.std))
        features = self.backbone(((image_bhwc - mean) / std).permute(0, 3, 1, 2))
        patches = self.projection(features)
        if self.code is None:
            self.code = position_code(*patches.shape[1:], place=self.position).to(patches)
        tokens, maps = self.decoder(self.encoder((patches + self.code).flatten(2).transpose(1, 2)))
        outputs = {
            task: self.get_submodule(f"head_{task}")(tokens[:, index])
            for index, task in enumerate(TASK_SIZES)
        }
        return {**outputs, "attention": maps}


def position_code(width: int, rows: int, columns: int, *, place: str) -> torch.Tensor:
    """Sines at even channels, cosines at odd ones, [width, rows, columns], channel by channel."""
    code = torch.empty(width, rows, columns, dtype=torch.float64)
    for row in range(rows):
        for column in range(columns):
            for channel in range(width):
                if place == "1d":
                    at, index, count = row * columns + column, channel, width
                else:
                    half = width // 2
                    at, index, count = (row if channel < half else column), channel % half, half
                angle = at / 10_000 ** (2 * (index // 2) / count)
                code[channel, row, column] = math.cos(angle) if index % 2 else math.sin(angle)
    return code


def paper_loss(outputs, targets, masks, temperatures):
    """Section 3.2, example after example: mean over its labelled tasks, then over the labelled.

    Args:
        outputs: of the network.
        targets: `va` [B, 2], `au` [B, 12], `expr` [B, 8] probabilities.
        masks: bool, `va` [B], `au` [B, 12], `expr` [B].
        temperatures: sigma_v^2, T_a, T_e by task.
    """
    losses = []
    for index in range(len(outputs["va"])):
        terms = []
        if masks["va"][index]:
            mse = functional.mse_loss(outputs["va"][index], targets["va"][index])
            terms.append(mse / (2 * temperatures["va"]))
        labelled = masks["au"][index]
        if labelled.any():
            bce = functional.binary_cross_entropy_with_logits(
                outputs["au"][index][labelled], targets["au"][index][labelled]
            )
            terms.append(bce / (2 * temperatures["au"]))
        if masks["expr"][index]:
            cce = functional.cross_entropy(outputs["expr"][index], targets["expr"][index])
            terms.append(cce / temperatures["expr"])
        if terms:
            losses.append(torch.stack(terms).sum() / len(terms))
    return torch.stack(losses).mean()


def as_ours(path: tuple[str, ...], find: Callable[[str], torch.Tensor]) -> torch.Tensor:
    """The view of a PyTorch tensor that is laid out as our array of this path.

    Args:
        path: of the array among our parameters or statistics.
        find: tensor by its name in `PaperNetwork`; a parameter, its gradient or a buffer.
    """
    *parents, leaf = path
    part = parents[-1] if parents else ""
    if part in ("query", "key", "value"):
        # PyTorch keeps the three projections in one matrix, in this order.
        attention = ".".join(parents[:-1])
        packed = find(f"{attention}.in_proj_{'weight' if leaf == 'kernel' else 'bias'}")
        third = packed.chunk(3)[("query", "key", "value").index(part)]
        return third.T if leaf == "kernel" else third
    if parents[-2:] == ["attention", "out"]:
        parents = [*parents[:-1], "out_proj"]
    names = {"kernel": "weight", "scale": "weight", "mean": "running_mean", "var": "running_var"}
    tensor = find(".".join([*parents, names.get(leaf, leaf)]))
    if leaf != "kernel":
        return tensor
    if part == "projection":
        return tensor[:, :, 0, 0].T
    return tensor.permute(2, 3, 1, 0) if tensor.ndim == 4 else tensor.T


def load(network: PaperNetwork, variables: dict[tuple[str, ...], np.ndarray]) -> None:
    """Fills every parameter and statistic, each element once, from ours by path."""
    tensors = {**dict(network.named_parameters()), **dict(network.named_buffers())}
    tensors = {n: t for n, t in tensors.items() if not n.endswith("num_batches_tracked")}
    with torch.no_grad():
        for tensor in tensors.values():
            tensor.fill_(torch.nan)
        for path, value in variables.items():
            view = as_ours(path, tensors.__getitem__)
            assert view.shape == value.shape, path
            assert bool(view.isnan().all()), f"{path} is filled twice"
            view.copy_(torch.tensor(value))
    empty = [name for name, tensor in tensors.items() if tensor.isnan().any()]
    assert not empty, f"nothing of ours fills {empty}"
