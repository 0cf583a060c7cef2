"""Vision transformers in every scheme of names: the map equals PyTorch's."""

import argparse
import dataclasses
import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import reference_vit
import safetensors.torch
import torch
from model_settings import changed
from reference_vit import Form, ReferenceViT, image_of

from mtl_face.config import ModelConfig
from mtl_face.config.schema import VitConfig
from mtl_face.errors import WeightsError
from mtl_face.model import backbones
from mtl_face.weights import backbone as weights
from mtl_face.weights import load_backbone

pytestmark = pytest.mark.torch

PLAIN = Form()
DINOV2 = Form(scaled=True, registers=2, class_position=False)
DINOV3 = Form(rotary=True, registers=2, scaled=True, bias="qv", epsilon=1e-5)
CLIP = Form(pre_norm=True, activation="quick_gelu", epsilon=1e-5)
SIGLIP = Form(class_token=False, activation="gelu_tanh")

SCHEMES = {
    "timm": (PLAIN, dict, "a ViT"),
    "timm, DINOv2": (DINOV2, dict, "DINOv2"),
    "Hugging Face, ViT": (PLAIN, reference_vit.as_vit, "a ViT"),
    "Hugging Face, DINOv2": (
        dataclasses.replace(DINOV2, class_position=True),
        reference_vit.as_dinov2,
        "DINOv2",
    ),
    "Hugging Face, DINOv3": (DINOV3, reference_vit.as_dinov3, "DINOv3"),
    "Hugging Face, DINOv3 with a gate": (
        dataclasses.replace(DINOV3, gated=True),
        reference_vit.as_dinov3,
        "DINOv3",
    ),
    "DINOv3": (DINOV3, reference_vit.as_dinov3_own, "DINOv3"),
    "Hugging Face, CLIP": (CLIP, reference_vit.as_clip_vision, "CLIP or FaRL"),
    "Hugging Face, SigLIP": (SIGLIP, reference_vit.as_clip_vision, "SigLIP"),
    "Hugging Face, SigLIP 2 NaFlex": (SIGLIP, reference_vit.as_naflex, "SigLIP"),
    "CLIP": (CLIP, reference_vit.as_clip, "CLIP or FaRL"),
    "torchvision": (PLAIN, reference_vit.as_torchvision, "a ViT"),
}


def written(path, form=PLAIN, as_named=dict, **more):
    """A reference whose weights lie in the file."""
    network = ReferenceViT(form)
    if as_named is reference_vit.as_clip:
        torch.nn.init.zeros_(network.patch_embed.proj.bias)
    state = {name: tensor.detach().contiguous() for name, tensor in network.state_dict().items()}
    safetensors.torch.save_file({**as_named(state), **more}, path)
    return network


def settings_of(loaded, input_size):
    vit = {n: v for n, v in loaded.architecture.settings.items() if n.count(".") == 2}
    own = {name.rpartition(".")[2]: value for name, value in vit.items()}
    return changed(ModelConfig(), kind="vit", vit=VitConfig(**own), input_size=input_size)


def map_of(loaded, image):
    settings = settings_of(loaded, image.shape[1])
    network = backbones.make(settings, 1, name=None)
    return np.asarray(network.apply({"params": loaded.params}, image, train=False))


def assert_close(found, expected):
    assert found.shape == expected.shape
    assert expected.std() > 0.1
    assert np.abs(found - expected).max() < 1e-5 * np.abs(expected).max()


@pytest.mark.parametrize("scheme", SCHEMES)
def test_equals_pytorch(tmp_path, scheme):
    form, as_named, family = SCHEMES[scheme]
    network = written(tmp_path / "any.bin", form, as_named)
    loaded = load_backbone(tmp_path / "any.bin")
    assert_close(map_of(loaded, image_of(form)), network.map_of(image_of(form)))
    assert loaded.source["family"] == family
    assert loaded.batch_stats == {}
    vit = loaded.architecture.vit
    assert vit.norm_epsilon == form.epsilon
    assert vit.qkv_bias == ("no_key" if form.bias == "qv" else "all")
    assert (vit.depth, vit.mlp_width, vit.patch) == (2, 24, 4)


def tensors_of(form, as_named=dict):
    state = ReferenceViT(form).state_dict()
    return as_named({name: tensor.contiguous() for name, tensor in state.items()})


def packed_gate(tensors):
    """A gate and what it opens in one matrix."""
    found = dict(tensors)
    for number, kind in np.ndindex(2, 2):
        mlp, word = f"blocks.{number}.mlp", ("weight", "bias")[kind]
        both = [found.pop(f"{mlp}.{name}.{word}") for name in ("fc1_g", "fc1_x")]
        found[f"{mlp}.w12.{word}"] = torch.cat(both)
        found[f"{mlp}.w3.{word}"] = found.pop(f"{mlp}.fc2.{word}")
    return found


def numbered_gate(tensors):
    names = {"fc1_g": "w1", "fc1_x": "w2", "fc2": "w3"}
    return {
        re.sub("fc1_g|fc1_x|fc2", lambda match: names[match[0]], n): t for n, t in tensors.items()
    }


@pytest.mark.parametrize("as_named", [dict, packed_gate, numbered_gate])
def test_a_gate_is_no_hidden_layer(tmp_path, as_named):
    tensors = tensors_of(dataclasses.replace(DINOV3, gated=True))
    safetensors.torch.save_file(as_named(tensors), tmp_path / "w")
    mlp = load_backbone(tmp_path / "w").params["block2"]["mlp"]
    for own, theirs in {"gate": "fc1_g", "hidden": "fc1_x", "out": "fc2"}.items():
        np.testing.assert_array_equal(
            mlp[own]["kernel"], tensors[f"blocks.1.mlp.{theirs}.weight"].numpy().T
        )
        np.testing.assert_array_equal(mlp[own]["bias"], tensors[f"blocks.1.mlp.{theirs}.bias"])


def test_heads_by_the_waves_of_dinov3(tmp_path):
    """Its own files store as many as a quarter of a head."""
    for heads in (1, 2):
        tensors = tensors_of(DINOV3, reference_vit.as_dinov3_own)
        tensors["rope_embed.periods"] = torch.ones(16 // heads // 4)
        safetensors.torch.save_file(tensors, tmp_path / "w")
        assert load_backbone(tmp_path / "w").architecture.vit.num_heads == heads


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_precisions(tmp_path, dtype):
    """The float32 numbers nearest to those of the file, the position of the class token added."""
    tensors = {name: tensor.to(dtype) for name, tensor in tensors_of(PLAIN).items()}
    safetensors.torch.save_file(tensors, tmp_path / "w")
    params = load_backbone(tmp_path / "w").params
    position = tensors["pos_embed"][0].float()
    np.testing.assert_array_equal(params["position"], position[1:])
    np.testing.assert_array_equal(
        params["class_token"], tensors["cls_token"][0].float() + position[:1]
    )
    kernel = params["block1"]["attention"]["value"]["kernel"]
    np.testing.assert_array_equal(kernel, tensors["blocks.0.attn.qkv.weight"][32:].float().T)


def test_a_matrix_of_patches(tmp_path):
    """SigLIP 2 reads rows, columns and colours of a patch as one vector."""
    tensors = tensors_of(SIGLIP, reference_vit.as_clip_vision)
    kernel = tensors["vision_model.embeddings.patch_embedding.weight"]
    matrix = kernel.permute(0, 2, 3, 1).reshape(16, 4 * 4 * 3)
    tensors["vision_model.embeddings.patch_embedding.weight"] = matrix.contiguous()
    safetensors.torch.save_file(tensors, tmp_path / "w")
    found = load_backbone(tmp_path / "w").params["patch"]["kernel"]
    np.testing.assert_array_equal(found, kernel.permute(2, 3, 1, 0).numpy())


def test_a_checkpoint_of_a_masked_autoencoder(tmp_path):
    """Its decoder, optimizer and arguments are left out; prefixes make no difference."""
    network = ReferenceViT(PLAIN)
    state = {f"module._orig_mod.{n}": tensor for n, tensor in network.state_dict().items()}
    state |= {
        "module._orig_mod.decoder_pred.weight": torch.ones(4, 4),
        "module._orig_mod.decoder_blocks.0.attn.qkv.weight": torch.ones(4, 4),
        "id_head.weight": torch.ones(3, 3),
    }
    path = tmp_path / "checkpoint.pth"
    optimizer = torch.optim.AdamW([torch.nn.Parameter(torch.ones(2))]).state_dict()
    args = argparse.Namespace(lr=1)
    torch.save({"model": state, "optimizer": optimizer, "args": args, "epoch": 3}, path)
    loaded = load_backbone(path)
    assert_close(map_of(loaded, image_of(PLAIN)), network.map_of(image_of(PLAIN)))
    assert {name.rpartition("model.")[2] for name, _ in loaded.left_out} == {
        "module._orig_mod.decoder_pred.weight",
        "module._orig_mod.decoder_blocks.0.attn.qkv.weight",
        "id_head.weight",
    }
    assert (loaded.source["family"], loaded.source["licence"]) == ("FMAE-IAT", "CC BY-NC 4.0")
    assert any("argparse.Namespace" in note for note in loaded.notes)


@pytest.fixture
def folder(tmp_path):
    """A folder of Hugging Face's: two files of weights with an index, and settings."""
    form = Form(heads=4, epsilon=1e-3)
    network = ReferenceViT(form)
    state = reference_vit.as_vit({n: t.contiguous() for n, t in network.state_dict().items()})
    names = sorted(state)
    files = {"one.safetensors": names[::2], "two.safetensors": names[1::2]}
    for file, inside in files.items():
        safetensors.torch.save_file({name: state[name] for name in inside}, tmp_path / file)
    index = {name: file for file, inside in files.items() for name in inside}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": index}))
    config = {
        "model_type": "vit",
        "num_attention_heads": 4,
        "hidden_act": "gelu",
        "layer_norm_eps": 1e-3,
        "license": "cc0-1.0",
        "description": "Trained on Aff-Wild2.",
    }
    (tmp_path / "config.json").write_text(json.dumps(config))
    colours = {"image_mean": [0.5, 0.4, 0.3], "image_std": [0.2, 0.25, 0.5]}
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(colours))
    return tmp_path, form, network


def test_a_folder_tells_what_no_tensor_shows(folder):
    path, form, network = folder
    loaded = load_backbone(path)
    assert_close(map_of(loaded, image_of(form)), network.map_of(image_of(form)))
    assert loaded.architecture.vit.num_heads == 4
    assert loaded.variant.input_mean == (127.5, 102.0, 76.5)
    assert loaded.variant.input_std == (51.0, 63.75, 127.5)
    assert loaded.source["licence"] == "cc0-1.0"
    assert loaded.source["trained_on"] == ["Aff-Wild2"]
    assert loaded.assumed == ("backbone.vit.rotary_base",)
    # The index alone names the same tensors, and does not tell the rest.
    alone = load_backbone(path / "model.safetensors.index.json")
    assert alone.architecture.vit.num_heads == 1
    assert alone.source["sha256"] == loaded.source["sha256"]


@pytest.mark.parametrize("grid", [2, 5])
def test_positions_for_another_grid(tmp_path, grid):
    """As PyTorch's antialiased bicubic interpolation; the run says so."""
    written(tmp_path / "w", PLAIN)
    loaded = load_backbone(tmp_path / "w")
    settings = settings_of(loaded, PLAIN.patch * grid)
    fitted = weights.fitted(loaded, settings)
    position = torch.from_numpy(loaded.params["position"]).T.reshape(1, 16, 3, 3)
    expected = torch.nn.functional.interpolate(
        position, (grid, grid), mode="bicubic", antialias=True
    )
    expected = expected.reshape(16, grid**2).T.numpy()
    np.testing.assert_allclose(fitted.params["position"], expected, atol=1e-5)
    assert f"of 3 x 3 patches, interpolated to {grid} x {grid}" in fitted.notes[-1]
    assert weights.fitted(loaded, settings_of(loaded, 12)) is loaded


def test_settings_that_do_not_fit_are_named(tmp_path):
    written(tmp_path / "w", CLIP, reference_vit.as_clip)
    loaded = load_backbone(tmp_path / "w")
    with pytest.raises(WeightsError) as raised:
        weights.check_settings(loaded, ModelConfig(), "w")
    assert "model.backbone.kind is resnet, the weights need vit" in raised.value.problem
    for flag in ("vit.patch=4", "vit.width=16", "vit.depth=2", "vit.activation=quick_gelu"):
        assert f"--config.model.backbone.{flag}" in raised.value.remedy
    right = dataclasses.replace(
        settings_of(loaded, 12),
        input_mean=loaded.variant.input_mean,
        input_std=loaded.variant.input_std,
    )
    weights.check_settings(loaded, right, "w")
    # What the file does not tell may be chosen; what its shapes show may not.
    vit = dataclasses.replace(right.backbone.vit, num_heads=2, activation="gelu_tanh")
    weights.check_settings(loaded, changed(right, vit=vit, input_mean=(1.0, 2.0, 3.0)), "w")
    deeper = changed(right, vit=dataclasses.replace(vit, depth=3))
    with pytest.raises(WeightsError, match=r"vit\.depth is 3, the weights need 2"):
        weights.check_settings(loaded, deeper, "w")


def problem_of(path):
    with pytest.raises(WeightsError) as raised:
        load_backbone(path)
    assert raised.value.remedy
    assert "\n" not in raised.value.problem
    return raised.value.problem


@pytest.mark.parametrize(
    ("name", "tensor", "words"),
    [
        ("blocks.1.norm2.weight", None, "lacks block2.mlp_norm.weight, by its name here"),
        ("blocks.0.attn.rel_pos.weight", torch.ones(3), "no use for: blocks.0.attn.rel_pos.weight"),
        ("blocks.1.mlp.fc2.weight", torch.ones(16, 9), "has shape 16x9, not 16x24"),
        ("pos_embed", torch.ones(1, 12, 16), "its 12 positions are no square grid"),
        ("patch_embed.proj.weight", torch.ones(16, 3, 2, 4, 4), "16x3x2x4x4, not Dx3xPxP"),
        ("norm.weight", torch.full((16,), torch.nan), "norm.weight holds 16 values that are NaN"),
        ("norm.weight", torch.ones(16, dtype=torch.int32), "is of type int32"),
        ("pos_embed", torch.ones(0), "its 0 positions are no square grid"),
        ("pos_embed", None, "it has no positions, and not the class token"),
        ("patch_embed.proj.weight", torch.ones(16, 50), "16x50, not Dx3xPxP"),
        ("patch_embed.proj.weight", torch.ones(16, 3, 0, 0), "16x3x0x0, not Dx3xPxP"),
        ("blocks.0.mlp.fc2.weight", None, "it lacks block1.mlp.out.weight"),
        ("blocks.0.mlp.fc2.weight", torch.ones(16), "mlp.fc2.weight has shape 16"),
        ("blocks.1.mlp.w3.weight", torch.ones(16, 24), "no use for: blocks.1.mlp.w3.weight"),
    ],
)
def test_bad_files(tmp_path, name, tensor, words):
    network = ReferenceViT(PLAIN)
    state = {key: value.contiguous() for key, value in network.state_dict().items()}
    state.pop(name, None)
    if tensor is not None:
        state[name] = tensor
    safetensors.torch.save_file(state, tmp_path / "w")
    assert words in problem_of(tmp_path / "w")


def test_scaled_branches_are_not_all_of_dinov2(tmp_path):
    """DeiT III has them too, and no position of its class token."""
    written(tmp_path / "w", Form(scaled=True, class_position=False))
    assert load_backbone(tmp_path / "w").source["family"] == "a ViT"
    written(tmp_path / "w", Form(scaled=True))
    assert load_backbone(tmp_path / "w").source["trained_on"] == ["LVD-142M"]


def test_two_networks(tmp_path):
    state = ReferenceViT(PLAIN).state_dict()
    both = {
        f"{prefix}.{n}": t.clone() for prefix in ("student", "teacher") for n, t in state.items()
    }
    safetensors.torch.save_file(both, tmp_path / "w")
    assert "holds 2 networks, under 'student.', 'teacher.'" in problem_of(tmp_path / "w")
    assert len(load_backbone(tmp_path / "w", prefix="teacher").left_out) == len(state)


def test_bad_folders(folder):
    path, _, _ = folder
    (path / "two.safetensors").rename(path / "other.safetensors")
    assert "lists the file two.safetensors, which does not lie beside it" in problem_of(path)
    (path / "one.safetensors").rename(path / "two.safetensors")
    (path / "other.safetensors").rename(path / "one.safetensors")
    index = path / "model.safetensors.index.json"
    index.write_text(index.read_text().replace("two.safetensors", "one.safetensors"))
    assert "tensors that its files lack" in problem_of(path)
    index.write_text('{"weight_map": {"a": "../one.safetensors"}}')
    assert "which does not lie beside it" in problem_of(path)
    index.write_text('{"weight_map": [1]}')
    assert "lists no files" in problem_of(path)
    index.unlink()
    with pytest.raises(WeightsError, match="give the folder with config") as raised:
        load_backbone(path / "one.safetensors")
    assert "holds parts of a transformer" in raised.value.problem
    assert "neither model.safetensors" in problem_of(path)
    (path / "config.json").write_text("[]")
    assert "is no JSON object" in problem_of(path)
    (path / "config.json").write_text("{")
    assert "is damaged or cut off" in problem_of(path)


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({"hidden_act": "relu"}, "its activation is relu"),
        ({"num_attention_heads": 3}, "3 heads do not divide its width 16"),
        ({"architecture": "vit_base_patch16_rope_reg1_gap_256"}, "whose rotary positions are"),
    ],
)
def test_settings_of_networks_that_are_not_known(folder, config, words):
    path, _, _ = folder
    (path / "config.json").write_text(json.dumps(config))
    assert words in problem_of(path)


def test_what_settings_tell_of_waves_and_activations(tmp_path):
    """By Hugging Face, and by timm's name of a network; what is no number tells nothing."""
    written(tmp_path / "model.safetensors", DINOV3, reference_vit.as_dinov3)
    config = tmp_path / "config.json"
    for stated, base in ((30.5, 30.5), ("30", 100.0), (float("inf"), 100.0)):
        config.write_text(json.dumps({"rope_theta": stated}))
        loaded = load_backbone(tmp_path)
        assert loaded.architecture.vit.rotary_base == base
        assert ("backbone.vit.rotary_base" in loaded.assumed) == (stated != base)
    written(tmp_path / "model.safetensors", CLIP)
    for name, activation in (("clip", "gelu"), ("clip_quickgelu", "quick_gelu")):
        config.write_text(json.dumps({"architecture": f"vit_base_patch16_{name}_224"}))
        assert load_backbone(tmp_path).architecture.vit.activation == activation


_MEMORY = """
import re, sys
from mtl_face.weights import load_backbone

def peak():
    return 1024 * int(re.search("VmHWM: *\\t* *([0-9]+) kB", open("/proc/self/status").read())[1])

load_backbone(sys.argv[1])  # imports and small change
before = peak()
loaded = load_backbone(sys.argv[2])
print(peak() - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="needs /proc")
@pytest.mark.parametrize("suffix", ["safetensors", "pth"])
def test_a_large_file_takes_little_more_memory_than_its_arrays(tmp_path, suffix):
    small, large = ReferenceViT(PLAIN), ReferenceViT(Form(width=256, depth=32, hidden=1024))
    for name, network in (("small", small), ("large", large)):
        state = network.state_dict()
        save = safetensors.torch.save_file if suffix == "safetensors" else torch.save
        save(state, tmp_path / name)
    size = (tmp_path / "large").stat().st_size
    assert size > 1e8
    result = subprocess.run(
        [sys.executable, "-c", _MEMORY, tmp_path / "small", tmp_path / "large"],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        check=True,
    )
    assert 0.9 * size < int(result.stdout) < 1.5 * size
