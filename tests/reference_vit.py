"""A vision transformer in PyTorch, from the papers, with timm's names; and the names of others."""

import dataclasses
import math
import re

import numpy as np
import torch
from torch import nn
from torch.nn import functional


@dataclasses.dataclass(frozen=True)
class Form:
    """What of a transformer differs from family to family."""

    width: int = 16
    heads: int = 1
    depth: int = 2
    patch: int = 4
    grid: int = 3
    hidden: int = 24
    class_token: bool = True
    registers: int = 0
    rotary: bool = False
    pre_norm: bool = False
    scaled: bool = False
    gated: bool = False
    bias: str = "qkv"
    activation: str = "gelu"
    epsilon: float = 1e-6
    class_position: bool = True


class ReferenceViT(nn.Module):
    def __init__(self, form):
        super().__init__()
        self.form = f = form
        width = f.width
        norm = lambda: nn.LayerNorm(width, eps=f.epsilon)  # noqa: E731
        self.patch_embed = nn.Module()
        self.patch_embed.proj = nn.Conv2d(3, width, f.patch, stride=f.patch)
        if f.class_token:
            self.cls_token = nn.Parameter(torch.zeros(1, 1, width))
        if f.registers:
            self.reg_token = nn.Parameter(torch.zeros(1, f.registers, width))
        if not f.rotary:
            rows = f.grid**2 + (f.class_token and f.class_position)
            self.pos_embed = nn.Parameter(torch.zeros(1, rows, width))
        if f.pre_norm:
            self.norm_pre = norm()
        self.blocks = nn.ModuleList()
        for _ in range(f.depth):
            block = nn.Module()
            block.norm1, block.norm2 = norm(), norm()
            block.attn, block.mlp = nn.Module(), nn.Module()
            block.attn.qkv = nn.Linear(width, 3 * width, bias=f.bias != "")
            block.attn.proj = nn.Linear(width, width)
            if f.gated:
                block.mlp.fc1_g = nn.Linear(width, f.hidden)
                block.mlp.fc1_x = nn.Linear(width, f.hidden)
            else:
                block.mlp.fc1 = nn.Linear(width, f.hidden)
            block.mlp.fc2 = nn.Linear(f.hidden, width)
            if f.scaled:
                for name in ("ls1", "ls2"):
                    scale = nn.Module()
                    scale.gamma = nn.Parameter(torch.zeros(width))
                    block.add_module(name, scale)
            self.blocks.append(block)
        self.norm = norm()
        generator = torch.Generator().manual_seed(3)
        with torch.no_grad():
            for name, tensor in self.named_parameters():
                flat = torch.randn(tensor.shape, generator=generator)
                gain = tensor[0].numel() ** -0.5 if tensor.ndim > 1 else 0.3
                tensor.copy_(flat * gain + (tensor.ndim == 1 and not name.endswith("bias")))
            if f.bias == "qv":
                for block in self.blocks:
                    block.attn.qkv.bias[width : 2 * width] = 0

    def forward(self, image_BCHW):
        f = self.form
        x = self.patch_embed.proj(image_BCHW)
        batch, width, rows, columns = x.shape
        x = x.flatten(2).transpose(1, 2)
        ahead = [self.cls_token.expand(batch, -1, -1)] if f.class_token else []
        if not f.rotary and f.class_token and f.class_position:
            x = torch.cat([*ahead, x], 1) + self.pos_embed
            ahead, x = [x[:, :1]], x[:, 1:]
        elif not f.rotary:
            x = x + self.pos_embed
        if f.registers:
            ahead.append(self.reg_token.expand(batch, -1, -1))
        x = torch.cat([*ahead, x], 1)
        prefix = x.shape[1] - rows * columns
        if f.pre_norm:
            x = self.norm_pre(x)
        for block in self.blocks:
            qkv = block.attn.qkv(block.norm1(x)).unflatten(-1, (3, f.heads, -1))
            query, key, value = qkv.permute(2, 0, 3, 1, 4)
            if f.rotary:
                query, key = (turned(each, rows, columns, prefix) for each in (query, key))
            weight = (query @ key.transpose(-1, -2) / math.sqrt(width / f.heads)).softmax(-1)
            y = block.attn.proj((weight @ value).transpose(1, 2).flatten(2))
            x = x + (y * block.ls1.gamma if f.scaled else y)
            y = block.norm2(x)
            if f.gated:
                y = functional.silu(block.mlp.fc1_g(y)) * block.mlp.fc1_x(y)
            else:
                y = {
                    "gelu": functional.gelu,
                    "quick_gelu": lambda z: z * torch.sigmoid(1.702 * z),
                    "gelu_tanh": lambda z: functional.gelu(z, approximate="tanh"),
                }[f.activation](block.mlp.fc1(y))
            y = block.mlp.fc2(y)
            x = x + (y * block.ls2.gamma if f.scaled else y)
        return self.norm(x)[:, prefix:].unflatten(1, (rows, columns))

    def map_of(self, image_BHWC):
        """The map [B, h, w, D] of an image, as arrays."""
        with torch.no_grad():
            return self(torch.from_numpy(image_BHWC.transpose(0, 3, 1, 2).copy())).numpy()


def turned(x, rows, columns, prefix, base=100.0):
    """DINOv3's rotation by complex numbers: channel i is the real, i + K / 2 the imaginary part."""
    width = x.shape[-1]
    frequency = base ** -(torch.arange(width // 4, dtype=torch.float64) * 4 / width)
    place = [(2 * torch.arange(n, dtype=torch.float64) + 1) / n - 1 for n in (rows, columns)]
    row, column = torch.meshgrid(*place, indexing="ij")
    angle = torch.cat([row[..., None] * frequency, column[..., None] * frequency], -1)
    unit = torch.polar(torch.ones_like(angle), 2 * math.pi * angle).flatten(0, 1)
    first, second = x[:, :, prefix:].double().chunk(2, -1)
    found = torch.complex(first, second) * unit
    found = torch.cat([found.real, found.imag], -1).to(x.dtype)
    return torch.cat([x[:, :, :prefix], found], 2)


def image_of(form, batch=2):
    side = form.patch * form.grid
    return np.random.default_rng(0).normal(size=(batch, side, side, 3)).astype(np.float32)


def renamed(state, pairs, *, splits=None):
    """A state dict with other names: patterns to names, and q, k, v apart where `splits` says."""
    found = {}
    for name, tensor in state.items():
        if splits and ".attn.qkv." in name:
            number, kind = re.fullmatch(r"blocks\.(\d+)\.attn\.qkv\.(\w+)", name).groups()
            for which, part in zip(splits[1:], tensor.chunk(3), strict=True):
                found[f"{splits[0].format(number)}.{which}.{kind}"] = part.contiguous()
            continue
        for pattern, new in pairs:
            if re.match(pattern, name):
                name = re.sub(pattern, new, name)
                break
        found[name] = tensor
    return found


_BERT = "encoder.layer.{}.attention.attention"
HUGGING_FACE = (
    (r"cls_token", "embeddings.cls_token"),
    (r"reg_token", "embeddings.register_tokens"),
    (r"pos_embed", "embeddings.position_embeddings"),
    (r"patch_embed\.proj", "embeddings.patch_embeddings.projection"),
    (r"norm\.", "layernorm."),
)


def as_vit(state):
    """The Hugging Face names of ViT."""
    pairs = (
        (r"blocks\.(\d+)\.norm1", r"encoder.layer.\1.layernorm_before"),
        (r"blocks\.(\d+)\.norm2", r"encoder.layer.\1.layernorm_after"),
        (r"blocks\.(\d+)\.attn\.proj", r"encoder.layer.\1.attention.output.dense"),
        (r"blocks\.(\d+)\.mlp\.fc1", r"encoder.layer.\1.intermediate.dense"),
        (r"blocks\.(\d+)\.mlp\.fc2", r"encoder.layer.\1.output.dense"),
    )
    return renamed(state, pairs + HUGGING_FACE, splits=(_BERT, "query", "key", "value"))


def as_dinov2(state):
    """Those of DINOv2."""
    pairs = (
        (r"blocks\.(\d+)\.attn\.proj", r"encoder.layer.\1.attention.output.dense"),
        (r"blocks\.(\d+)\.ls(\d)\.gamma", r"encoder.layer.\1.layer_scale\2.lambda1"),
        (r"blocks", "encoder.layer"),
    )
    found = renamed(state, pairs + HUGGING_FACE, splits=(_BERT, "query", "key", "value"))
    return found | {"embeddings.mask_token": torch.ones(1, 16)}


def as_dinov3(state):
    """Those of DINOv3, whose keys have no bias."""
    pairs = (
        (r"blocks\.(\d+)\.attn\.proj", r"layer.\1.attention.o_proj"),
        (r"blocks\.(\d+)\.ls(\d)\.gamma", r"layer.\1.layer_scale\2.lambda1"),
        (r"blocks\.(\d+)\.mlp\.fc1_g", r"layer.\1.mlp.gate_proj"),
        (r"blocks\.(\d+)\.mlp\.fc1(_x)?", r"layer.\1.mlp.up_proj"),
        (r"blocks\.(\d+)\.mlp\.fc2", r"layer.\1.mlp.down_proj"),
        (r"blocks", "layer"),
        (r"patch_embed\.proj", "embeddings.patch_embeddings"),
        (r"norm\.", "norm."),
    )
    splits = ("layer.{}.attention", "q_proj", "k_proj", "v_proj")
    found = renamed(state, pairs + HUGGING_FACE, splits=splits)
    return {name: t for name, t in found.items() if not name.endswith("k_proj.bias")}


def as_dinov3_own(state):
    """Those of DINOv3's own files: a mask of NaN and 1 beside the biases, stored waves."""
    found = renamed(state, ((r"reg_token", "storage_tokens"),))
    for name in [name for name in found if name.endswith("qkv.bias")]:
        mask = torch.ones_like(found[name])
        mask[len(mask) // 3 : 2 * len(mask) // 3] = torch.nan
        found[f"{name}_mask"] = mask
    width = state["cls_token"].shape[-1]
    return found | {
        "rope_embed.periods": torch.ones(width // 4, dtype=torch.bfloat16),
        "mask_token": torch.ones(1, width),
    }


def as_clip_vision(state):
    """The Hugging Face names of CLIP and SigLIP."""
    pairs = (
        (r"blocks\.(\d+)\.norm(\d)", r"encoder.layers.\1.layer_norm\2"),
        (r"blocks\.(\d+)\.attn\.proj", r"encoder.layers.\1.self_attn.out_proj"),
        (r"blocks", "encoder.layers"),
        (r"cls_token", "embeddings.class_embedding"),
        (r"pos_embed", "embeddings.position_embedding.weight"),
        (r"patch_embed\.proj", "embeddings.patch_embedding"),
        (r"norm_pre", "pre_layrnorm"),
        (r"norm\.", "post_layernorm."),
    )
    splits = ("encoder.layers.{}.self_attn", "q_proj", "k_proj", "v_proj")
    found = renamed(state, pairs, splits=splits)
    found = {f"vision_model.{name}": tensor for name, tensor in found.items()}
    for name in ("embeddings.class_embedding", "embeddings.position_embedding.weight"):
        if f"vision_model.{name}" in found:
            found[f"vision_model.{name}"] = found[f"vision_model.{name}"].squeeze()
    return found | {"text_model.encoder.layers.0.self_attn.q_proj.weight": torch.ones(2, 2)}


def as_naflex(state):
    """Those of SigLIP 2 for any resolution: pixels of a patch in rows, columns, colours."""
    found = as_clip_vision(state)
    kernel = found["vision_model.embeddings.patch_embedding.weight"]
    matrix = kernel.permute(0, 2, 3, 1).flatten(1).contiguous()
    return found | {"vision_model.embeddings.patch_embedding.weight": matrix}


def as_clip(state):
    """CLIP's own names, as FaRL has them too; a patch embedding without bias."""
    pairs = (
        (r"blocks\.(\d+)\.norm", r"transformer.resblocks.\1.ln_"),
        (r"blocks\.(\d+)\.attn\.qkv\.", r"transformer.resblocks.\1.attn.in_proj_"),
        (r"blocks\.(\d+)\.attn\.proj", r"transformer.resblocks.\1.attn.out_proj"),
        (r"blocks\.(\d+)\.mlp\.fc1", r"transformer.resblocks.\1.mlp.c_fc"),
        (r"blocks\.(\d+)\.mlp\.fc2", r"transformer.resblocks.\1.mlp.c_proj"),
        (r"cls_token", "class_embedding"),
        (r"pos_embed", "positional_embedding"),
        (r"patch_embed\.proj", "conv1"),
        (r"norm_pre", "ln_pre"),
        (r"norm\.", "ln_post."),
    )
    found = {f"visual.{name}": tensor for name, tensor in renamed(state, pairs).items()}
    del found["visual.conv1.bias"]
    for name in ("visual.class_embedding", "visual.positional_embedding"):
        found[name] = found[name].squeeze()
    return found | {
        "visual.proj": torch.ones(16, 4),
        "transformer.resblocks.0.attn.in_proj_weight": torch.ones(3, 1),
        "token_embedding.weight": torch.ones(5, 2),
    }


def as_torchvision(state):
    block = r"encoder.layers.encoder_layer_\1."
    pairs = (
        (r"blocks\.(\d+)\.norm", block + "ln_"),
        (r"blocks\.(\d+)\.attn\.qkv\.", block + "self_attention.in_proj_"),
        (r"blocks\.(\d+)\.attn\.proj", block + "self_attention.out_proj"),
        (r"blocks\.(\d+)\.mlp\.fc1", block + "mlp.0"),
        (r"blocks\.(\d+)\.mlp\.fc2", block + "mlp.3"),
        (r"cls_token", "class_token"),
        (r"pos_embed", "encoder.pos_embedding"),
        (r"patch_embed\.proj", "conv_proj"),
        (r"norm\.", "encoder.ln."),
    )
    return renamed(state, pairs) | {"heads.head.weight": torch.ones(10, 16)}
