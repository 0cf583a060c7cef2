"""A vision transformer in a file: its names in each scheme, its size, and its arrays.

| scheme | patch embedding | in a block |
|---|---|---|
| timm (MAE, FMAE, FSFM, DINOv2's and DINOv3's own too) | `patch_embed.proj` | `blocks.0.attn.qkv` |
| Hugging Face: ViT, MAE, DINOv2 | `embeddings.patch_embeddings.projection` | `encoder.layer.0...` |
| Hugging Face: DINOv3 | `embeddings.patch_embeddings` | `layer.0.attention.q_proj` |
| Hugging Face: CLIP, SigLIP | `embeddings.patch_embedding` | `encoder.layers.0.self_attn.q_proj` |
| CLIP, FaRL | `conv1` | `transformer.resblocks.0.attn.in_proj_weight` |
| torchvision | `conv_proj` | `encoder.layers.encoder_layer_0...` |
"""

import dataclasses
import math
import re
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mtl_face.config.schema import VitConfig
from mtl_face.weights.families import renaming
from mtl_face.weights.families.renaming import (
    DINOV3_LICENCE,
    IMAGENET,
    InFile,
    Known,
    NamedTensors,
    Naming,
    Shapes,
    parts,
    rows_of,
)
from mtl_face.weights.families.stated import ACTIVATION, ARCHITECTURE
from mtl_face.weights.file_content import Entry, FileContent, shape_text, shown

TIMM = Naming(
    "timm",
    ("patch_embed.proj.weight", ("blocks.0.attn.qkv.weight",)),
    """
    patch                   patch_embed.proj
    class_token             cls_token
    registers               reg_token register_tokens storage_tokens
    position                pos_embed
    pre_norm                norm_pre
    block*.attention_norm   blocks.*.norm1
    block*.attention.qkv    blocks.*.attn.qkv
    block*.attention.query  blocks.*.attn.q_proj blocks.*.attn.q
    block*.attention.key    blocks.*.attn.k_proj
    block*.attention.value  blocks.*.attn.v_proj blocks.*.attn.v
    block*.attention.out    blocks.*.attn.proj
    block*.attention_scale  blocks.*.ls1.gamma blocks.*.gamma_1
    block*.mlp_norm         blocks.*.norm2
    block*.mlp.hidden       blocks.*.mlp.fc1 blocks.*.mlp.fc1_x blocks.*.mlp.w12 blocks.*.mlp.w2
    block*.mlp.gate         blocks.*.mlp.fc1_g blocks.*.mlp.w1
    block*.mlp.out          blocks.*.mlp.fc2 blocks.*.mlp.w3
    block*.mlp_scale        blocks.*.ls2.gamma blocks.*.gamma_2
    norm                    norm
    """,
    re.compile(r"(blocks|patch_embed|cls_token|pos_embed|reg_token)\b"),
)

_HF_BLOCKS = ("encoder.layer.*", "layers.*")

HUGGING_FACE = Naming(
    "Hugging Face",
    (
        "embeddings.patch_embeddings.projection.weight",
        (
            "encoder.layer.0.attention.attention.query.weight",
            "encoder.layer.0.attention.q_proj.weight",
            "layers.0.attention.q_proj.weight",
        ),
    ),
    """
    patch        embeddings.patch_embeddings.projection
    class_token  embeddings.cls_token
    registers    embeddings.register_tokens
    position     embeddings.position_embeddings
    norm         layernorm
    """
    + "".join(
        f"""
    block*.attention_norm   {b}.norm1 {b}.layernorm_before
    block*.attention.query  {b}.attention.attention.query {b}.attention.q_proj
    block*.attention.key    {b}.attention.attention.key {b}.attention.k_proj
    block*.attention.value  {b}.attention.attention.value {b}.attention.v_proj
    block*.attention.out    {b}.attention.output.dense {b}.attention.o_proj
    block*.attention_scale  {b}.layer_scale1.lambda1
    block*.mlp_norm         {b}.norm2 {b}.layernorm_after
    block*.mlp.hidden       {b}.intermediate.dense {b}.mlp.fc1 {b}.mlp.weights_in
    block*.mlp.out          {b}.output.dense {b}.mlp.fc2 {b}.mlp.weights_out
    block*.mlp_scale        {b}.layer_scale2.lambda1
    """
        for b in _HF_BLOCKS
    ),
    re.compile(r"(embeddings|encoder|layers)\."),
)

HUGGING_FACE_DINOV3 = Naming(
    "Hugging Face, DINOv3",
    (
        "embeddings.patch_embeddings.weight",
        ("layer.0.attention.q_proj.weight", "model.layer.0.attention.q_proj.weight"),
    ),
    """
    patch        embeddings.patch_embeddings
    class_token  embeddings.cls_token
    registers    embeddings.register_tokens
    norm         norm
    """
    + "".join(
        f"""
    block*.attention_norm   {b}.norm1
    block*.attention.query  {b}.attention.q_proj
    block*.attention.key    {b}.attention.k_proj
    block*.attention.value  {b}.attention.v_proj
    block*.attention.out    {b}.attention.o_proj
    block*.attention_scale  {b}.layer_scale1.lambda1
    block*.mlp_norm         {b}.norm2
    block*.mlp.hidden       {b}.mlp.up_proj
    block*.mlp.gate         {b}.mlp.gate_proj
    block*.mlp.out          {b}.mlp.down_proj
    block*.mlp_scale        {b}.layer_scale2.lambda1
    """
        for b in ("layer.*", "model.layer.*")
    ),
    re.compile(r"(embeddings|layer|model\.layer)\."),
)

HUGGING_FACE_CLIP = Naming(
    "Hugging Face, CLIP and SigLIP",
    ("embeddings.patch_embedding.weight", ("encoder.layers.0.self_attn.q_proj.weight",)),
    """
    patch                   embeddings.patch_embedding
    class_token             embeddings.class_embedding
    position                embeddings.position_embedding.weight
    pre_norm                pre_layrnorm pre_layernorm
    block*.attention_norm   encoder.layers.*.layer_norm1
    block*.attention.query  encoder.layers.*.self_attn.q_proj
    block*.attention.key    encoder.layers.*.self_attn.k_proj
    block*.attention.value  encoder.layers.*.self_attn.v_proj
    block*.attention.out    encoder.layers.*.self_attn.out_proj
    block*.mlp_norm         encoder.layers.*.layer_norm2
    block*.mlp.hidden       encoder.layers.*.mlp.fc1
    block*.mlp.out          encoder.layers.*.mlp.fc2
    norm                    post_layernorm
    """,
    re.compile(r"(embeddings|encoder)\."),
)

CLIP = Naming(
    "CLIP",
    ("conv1.weight", ("transformer.resblocks.0.attn.in_proj_weight",)),
    """
    patch                   conv1
    class_token             class_embedding
    position                positional_embedding
    pre_norm                ln_pre
    block*.attention_norm   transformer.resblocks.*.ln_1
    block*.attention.qkv    transformer.resblocks.*.attn.in_proj
    block*.attention.out    transformer.resblocks.*.attn.out_proj
    block*.mlp_norm         transformer.resblocks.*.ln_2
    block*.mlp.hidden       transformer.resblocks.*.mlp.c_fc
    block*.mlp.out          transformer.resblocks.*.mlp.c_proj
    norm                    ln_post
    """,
    re.compile(r"(conv1|transformer)\."),
)

TORCHVISION = Naming(
    "torchvision",
    (
        "conv_proj.weight",
        ("encoder.layers.encoder_layer_0.self_attention.in_proj_weight",),
    ),
    """
    patch        conv_proj
    class_token  class_token
    position     encoder.pos_embedding
    norm         encoder.ln
    """
    + """
    block*.attention_norm  BLOCK.ln_1
    block*.attention.qkv   BLOCK.self_attention.in_proj
    block*.attention.out   BLOCK.self_attention.out_proj
    block*.mlp_norm        BLOCK.ln_2
    block*.mlp.hidden      BLOCK.mlp.0 BLOCK.mlp.linear_1
    block*.mlp.out         BLOCK.mlp.3 BLOCK.mlp.linear_2
    """.replace("BLOCK", "encoder.layers.encoder_layer_*"),
    re.compile(r"(conv_proj|encoder)\."),
)

NAMINGS = (TIMM, HUGGING_FACE, HUGGING_FACE_DINOV3, HUGGING_FACE_CLIP, CLIP, TORCHVISION)

FIRST_KERNEL = "patch/kernel"
"""Which sees the colours."""

UNTOLD = tuple(
    f"backbone.vit.{name}" for name in ("num_heads", "activation", "rotary_base", "norm_epsilon")
)
"""Settings of `model` that no tensor shows."""

_HEADS = {
    **{192: 3, 384: 6, 512: 8, 768: 12, 1024: 16, 1152: 16, 1280: 16, 1408: 16, 1536: 24},
    **{1664: 16, 4096: 32},
}
"""Heads of published networks by their width: no tensor of a file shows them."""

_SIZES = {(384, 12): "S", (768, 12): "B", (1024, 24): "L", (1280, 32): "H", (192, 12): "Ti"}

_OTHERWISE_TURNED = re.compile(r"^eva02|rope|_pe_")
"""In timm's name of a network whose queries and keys turn in another way than DINOv3's."""

_CLIP = ((122.7709, 116.746, 104.0937), (68.5005, 66.6322, 70.3232))
_HALF = ((127.5,) * 3, (127.5,) * 3)

_NON_COMMERCIAL = "CC BY-NC 4.0"


@dataclasses.dataclass(frozen=True)
class VitSize:
    """A vision transformer in a file; `grid` is the side of its learned positions, 0: none."""

    vit: VitConfig
    grid: int = 0

    def __str__(self) -> str:
        vit = self.vit
        name = f"ViT-{_SIZES[size]}" if (size := (vit.width, vit.depth)) in _SIZES else "a ViT"
        more = [
            *([f"{vit.registers} registers"] if vit.registers else []),
            *(["rotary positions"] if vit.positions == "rotary" else []),
        ]
        return (
            f"{name}/{vit.patch} ({vit.depth} blocks of width {vit.width}, {vit.num_heads} heads"
            + "".join(f", {each}" for each in more)
            + ")"
        )

    @property
    def settings(self) -> dict[str, Any]:
        """The settings of `model` with which the network is built."""
        return {"backbone.kind": "vit"} | {
            f"backbone.vit.{name}": value for name, value in dataclasses.asdict(self.vit).items()
        }


def holds_one(content: FileContent) -> bool:
    """Whether a file's tensors are those of a vision transformer."""
    if content.card is not None:
        return content.card["config"]["model"]["backbone"]["kind"] == "vit"
    return bool(renaming.networks(content.tensors, NAMINGS))


def find(
    content: FileContent, path: Path, prefix: str | None, stated: dict[str, Any]
) -> InFile[VitSize]:
    """Finds the network and its size; `stated` are settings that lie beside the weights.

    Raises:
        WeightsError: as `renaming.find`, or the size cannot be told.
    """
    found = renaming.find(content, NAMINGS, path, prefix)
    if content.card is not None:
        vit = content.card["config"]["model"]["backbone"]["vit"]
        position = found.tensors.get("position")
        grid = math.isqrt(position.shape[0]) if position and position.shape else 0
        return InFile(found, VitSize(VitConfig(**vit), grid), Known("an export"))
    unmasked = not any(name.endswith("qkv.bias_mask") for name in content.tensors)
    found = dataclasses.replace(found, tensors=_unpacked(found.tensors, key_bias=unmasked))
    try:
        known = _known(found, content.tensors)
        size = _size(found, known, stated, content)
    except ValueError as error:
        raise renaming.refused("vision transformer", found, error, path) from error
    if size.grid:
        placed = _without_class_position(found.tensors, size)
        found = dataclasses.replace(found, tensors=placed)
    return InFile(found, size, known)


def read(network: InFile[VitSize], path: Path) -> dict[str, NDArray[Any]]:
    """The network's arrays by name, as `params/patch/kernel`, float32.

    Raises:
        WeightsError: as `renaming.read`.
    """
    expected = shapes(network.size.vit, network.size.grid**2)
    return renaming.read(network.found, expected, path, zero=frozenset({"patch/bias"}))


def shapes(vit: VitConfig, patches: int) -> Shapes:
    """Shapes of the parameters of `mtl_face.model.backbones.vit`, by path."""
    width = vit.width
    found: dict[str, tuple[int, ...]] = {
        "patch/kernel": (vit.patch, vit.patch, 3, width),
        "patch/bias": (width,),
    }

    def norm(name: str) -> None:
        found.update({f"{name}/scale": (width,), f"{name}/bias": (width,)})

    def dense(name: str, wide: int, out: int, *, bias: bool = True) -> None:
        found[f"{name}/kernel"] = (wide, out)
        if bias:
            found[f"{name}/bias"] = (out,)

    if vit.class_token:
        found["class_token"] = (1, width)
    if vit.registers:
        found["registers"] = (vit.registers, width)
    if vit.positions == "learned":
        found["position"] = (patches, width)
    if vit.pre_norm:
        norm("pre_norm")
    for number in range(1, vit.depth + 1):
        block = f"block{number}"
        for name in ("query", "key", "value"):
            biased = vit.qkv_bias == "all" or (vit.qkv_bias == "no_key" and name != "key")
            dense(f"{block}/attention/{name}", width, width, bias=biased)
        dense(f"{block}/attention/out", width, width)
        dense(f"{block}/mlp/hidden", width, vit.mlp_width)
        if vit.gated_mlp:
            dense(f"{block}/mlp/gate", width, vit.mlp_width)
        dense(f"{block}/mlp/out", vit.mlp_width, width)
        for name in ("attention", "mlp"):
            norm(f"{block}/{name}_norm")
            if vit.layer_scale:
                found[f"{block}/{name}_scale"] = (width,)
    if vit.final_norm:
        norm("norm")
    return found


def resampled(position_ND: NDArray[np.float32], side: int) -> NDArray[np.float32]:
    """Position codes of a square grid, for one of another side, [side * side, D] float32.

    Bicubic along both axes (Keys 1981, a = -1/2), antialiased where the grid shrinks.
    """
    old = math.isqrt(len(position_ND))
    weight = _cubic_weights(old, side)
    code_HWD = position_ND.reshape(old, old, -1).astype(float)
    code_hwD = np.einsum("hH,wW,HWD->hwD", weight, weight, code_HWD)
    return code_hwD.reshape(side * side, -1).astype(np.float32)


def _cubic_weights(old: int, new: int) -> NDArray[np.float64]:
    """What each of the old places counts at each of the new, [new, old]; rows sum to 1."""
    scale = old / new
    stretch = max(scale, 1.0)
    centre = (np.arange(new) + 0.5) * scale
    distance = np.abs((np.arange(old) + 0.5)[None] - centre[:, None]) / stretch
    near = ((1.5 * distance - 2.5) * distance) * distance + 1
    far = ((-0.5 * distance + 2.5) * distance - 4) * distance + 2
    weight = np.where(distance < 1, near, np.where(distance < 2, far, 0.0))
    return weight / weight.sum(axis=1, keepdims=True)


def _unpacked(tensors: dict[str, Entry], *, key_bias: bool) -> dict[str, Entry]:
    """Tensors that hold several of the network's arrays, cut into them."""
    found = {}
    for name, entry in tensors.items():
        start, _, word = name.rpartition(".")
        out = tensors.get(f"{start.removesuffix('hidden')}out.weight")
        if start.endswith(".qkv") and entry.shape and entry.shape[0] % 3 == 0:
            for which, part in zip(("query", "key", "value"), parts(entry, 3), strict=True):
                if which != "key" or word == "weight" or key_bias:
                    found[f"{start.removesuffix('qkv')}{which}.{word}"] = part
        elif (
            start.endswith(".mlp.hidden")
            and out is not None
            and entry.shape[:1] == (2 * out.shape[-1],)
        ):
            for which, part in zip(("gate", "hidden"), parts(entry, 2), strict=True):
                found[f"{start.removesuffix('hidden')}{which}.{word}"] = part
        elif name == "patch.weight" and _is_matrix_of_patches(entry.shape):
            found[name] = _as_kernel(entry)
        else:
            found[name] = entry
    return found


def _is_matrix_of_patches(shape: tuple[int, ...]) -> bool:
    """Whether an embedding is of patches laid out flat, as in SigLIP 2 for any resolution."""
    return len(shape) == 2 and shape[1] > 0 and shape[1] == 3 * math.isqrt(shape[1] // 3) ** 2


def _as_kernel(entry: Entry) -> Entry:
    """A matrix of patches of pixels, [D, rows x columns x colours], as a convolution's kernel."""
    side = math.isqrt(entry.shape[1] // 3)

    def read() -> NDArray[Any]:
        return entry.read().reshape(-1, side, side, 3).transpose(0, 3, 1, 2)

    return Entry(entry.name, (entry.shape[0], 3, side, side), read)


def _size(
    found: NamedTensors, known: Known, stated: dict[str, Any], content: FileContent
) -> VitSize:
    """The settings that the shapes show, and for what they don't show, what is known."""
    tensors = found.tensors
    patch = tensors["patch.weight"].shape
    if len(patch) != 4 or patch[1] != 3 or patch[2] != patch[3] or 0 in patch:
        raise ValueError(f"its patch embedding is {shape_text(patch)}, not Dx3xPxP")
    width = patch[0]
    blocks = {int(match[1]) for name in tensors if (match := re.match(r"block(\d+)\.", name))}
    grid = _grid(tensors, width)
    registers = tensors.get("registers")
    architecture = stated.get(ARCHITECTURE, "")
    if _OTHERWISE_TURNED.search(architecture):
        raise ValueError(f"it is timm's {shown(architecture)}, whose rotary positions are others")
    # Those turn queries and keys in ways that no tensor shows.
    if not grid and not {"class_token", "registers", "block1.attention_scale"} <= tensors.keys():
        raise ValueError(
            "it has no positions, and not the class token, registers and scales of DINOv3, which "
            "has none either"
        )
    gated = "block1.mlp.gate.weight" in tensors
    if (other := stated.get(ACTIVATION)) is not None:
        # The gate of DINOv2 is a SiLU whatever its settings say.
        silu = not gated or found.title != HUGGING_FACE_DINOV3.title or other == "silu"
        if not silu or not (gated or "backbone.vit.activation" in stated):
            raise ValueError(f"its activation is {shown(other)}")
    biases = {name: f"block1.attention.{name}.bias" in tensors for name in ("query", "key")}
    return VitSize(
        VitConfig(
            patch=patch[2],
            width=width,
            depth=max(blocks),
            num_heads=_num_heads(width, stated, content.tensors),
            mlp_width=renaming.side(tensors, "block1.mlp.out.weight", 1),
            gated_mlp=gated,
            activation=stated.get("backbone.vit.activation", known.activation),
            class_token="class_token" in tensors,
            registers=math.prod(registers.shape) // width if registers else 0,
            positions="learned" if grid else "rotary",
            rotary_base=stated.get("backbone.vit.rotary_base", VitConfig().rotary_base),
            pre_norm="pre_norm.weight" in tensors,
            qkv_bias="all" if biases["key"] else "no_key" if biases["query"] else "none",
            layer_scale="block1.attention_scale" in tensors,
            final_norm="norm.weight" in tensors,
            norm_epsilon=stated.get("backbone.vit.norm_epsilon", known.norm_epsilon),
        ),
        grid,
    )


def _grid(tensors: dict[str, Entry], width: int) -> int:
    """Side of the grid of learned positions, with or without one of the class token; 0: none."""
    if "position" not in tensors:
        return 0
    count = math.prod(tensors["position"].shape) // width
    places = (count - ("class_token" in tensors), count)
    squares = [n for n in places if n > 0 and math.isqrt(n) ** 2 == n]
    if not squares:
        raise ValueError(f"its {count} positions are no square grid")
    return math.isqrt(squares[0])


def _num_heads(width: int, stated: dict[str, Any], tensors: dict[str, Entry]) -> int:
    """The heads that the settings or the waves of rotary positions tell, or a usual number."""
    heads = stated.get("backbone.vit.num_heads")
    periods = next((entry.shape for n, entry in tensors.items() if n.endswith(".periods")), None)
    if heads is None and periods and periods[0]:
        heads = width // (4 * periods[0])
    if heads is None:
        most = max(width // 64, 1)
        heads = _HEADS.get(width) or next(n for n in range(most, 0, -1) if width % n == 0)
    if not heads or width % heads:
        raise ValueError(f"{heads} heads do not divide its width {width}")
    return heads


def _without_class_position(tensors: dict[str, Entry], size: VitSize) -> dict[str, Entry]:
    """Positions of the patches alone; that of the class token is added to the class token."""
    position, width = tensors["position"], size.vit.width
    count = math.prod(position.shape) // width

    def flat() -> NDArray[Any]:
        return np.asarray(position.read(), np.float32).reshape(count, width)

    rows = Entry(position.name, (count, width), flat)
    if count == size.grid**2:
        return tensors | {"position": rows}
    token = tensors["class_token"]
    placed = Entry(
        token.name,
        (1, width),
        lambda: np.asarray(token.read(), np.float32).reshape(1, width) + flat()[:1],
    )
    return tensors | {"position": rows_of(rows, 1, count), "class_token": placed}


def _is_dinov2(tensors: dict[str, Entry]) -> bool:
    """Whether scaled branches are DINOv2's, not DeiT III's, whose class token has no position."""
    if "class_token" not in tensors:
        return False
    width = renaming.side(tensors, "block1.attention_scale", 0)
    count = math.prod(tensors["position"].shape) // width
    return "registers" in tensors or math.isqrt(count) ** 2 != count


def _known(found: NamedTensors, names: dict[str, Entry]) -> Known:
    """The family, by what its names and parts show."""
    tensors = found.tensors

    def named(*endings: str) -> bool:
        return any(name.endswith(endings) for name in names)

    if found.title == "CLIP" or "pre_norm.weight" in tensors:
        quick = found.title != "timm"
        return Known(
            "CLIP or FaRL",
            _CLIP,
            1e-5,
            "quick_gelu" if quick else "gelu",
            "MIT (OpenAI's CLIP, and FaRL)",
            note="the activation is taken as QuickGELU, as OpenAI's CLIP and FaRL have it; "
            "others may have GELU, which a folder with config.json tells"
            if quick
            else "the activation is taken as GELU; timm's networks named quickgelu need "
            "--config.model.backbone.vit.activation=quick_gelu",
        )
    if found.title == HUGGING_FACE_CLIP.title or named("attn_pool.latent"):
        activation = "gelu" if found.title == "timm" else "gelu_tanh"
        return Known("SigLIP", _HALF, 1e-6, activation, "Apache-2.0", ("WebLI",))
    if "position" not in tensors:
        return Known("DINOv3", IMAGENET, 1e-5, "gelu", DINOV3_LICENCE)
    if "block1.attention_scale" in tensors and _is_dinov2(tensors):
        return Known("DINOv2", IMAGENET, 1e-6, "gelu", "Apache-2.0", ("LVD-142M",))
    if named("id_head.weight", "id_head.0.weight"):
        return Known("FMAE-IAT", licence=_NON_COMMERCIAL)
    if named("decoder_pred.weight"):
        note = (
            "MAE, FMAE and FSFM have these names; FSFM's input has a mean and deviation of its own "
            "(pretrain_ds_mean_std.txt): set model.input_mean and model.input_std to them"
        )
        return Known("a masked autoencoder", licence=_NON_COMMERCIAL, note=note)
    note = (
        "the file does not say what it was trained on, nor the mean and deviation of its input, "
        "taken as ImageNet's: set model.input_mean and model.input_std if they are others"
    )
    return Known("a ViT", note=note)
