"""Our own exports as initial weights: whole networks and backbones, of any size."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from model_settings import resnet

from mtl_face import config as config_lib
from mtl_face import export
from mtl_face.config.schema import ConvNextConfig, VitConfig
from mtl_face.errors import UserError, WeightsError
from mtl_face.export import arrays
from mtl_face.weights import card as cards
from mtl_face.weights import exported, load_backbone, safetensors_file
from mtl_face.weights.backbone import check_settings, flags, needed_settings
from mtl_face.weights.families import convnext_in_file, vit_in_file
from mtl_face.weights.families.resnet_in_file import Architecture

SIZE = Architecture((1, 2), 4, 2)
MEAN, STD = (120.0, 110.0, 100.0), (50.0, 51.0, 52.0)


def make_backbone(size=SIZE, seed=0):
    """Trees of the real network's structure, filled by NumPy."""
    random = np.random.default_rng(seed)
    network = resnet(size.stage_sizes, size.width, size.expansion)
    abstract = jax.eval_shape(
        lambda: network.init(jax.random.key(0), jnp.zeros((1, 32, 32, 3)), train=False)
    )
    return jax.tree.map(
        lambda leaf: random.uniform(0.1, 1, leaf.shape).astype(np.float32), dict(abstract)
    )


def whole(backbone):
    return {
        "params": {
            "backbone": backbone["params"],
            "projection": {"kernel": np.ones((16, 8), np.float32), "bias": np.ones(8, np.float32)},
        },
        "batch_stats": {"backbone": backbone["batch_stats"]},
    }


def make_card(variant="keras", provenance=None):
    model = config_lib.ModelConfig(
        input_size=112,
        input_mean=MEAN,
        input_std=STD,
        backbone=config_lib.BackboneConfig(variant=variant),
    )
    return cards.make(
        config_lib.Config(model=model),
        temperatures={"va": 1.0, "au": 1.0, "expr": 5.0},
        crop={},
        step=7,
        provenance=provenance,
    )


def write_safetensors(path, variables, card, **changes):
    """The file of an export alone, its card changed."""
    folder = path.with_name("as_exported")
    export.save(folder, variables, card, form="safetensors")
    tensors, metadata = safetensors_file.read(folder / exported.SAFETENSORS)
    changed = cards.sealed(json.loads(metadata["model_json"]) | changes)
    arrays.write_safetensors(path, tensors, {"model_json": json.dumps(changed)})


def assert_is(loaded, backbone):
    for found, expected in (
        (loaded.params, backbone["params"]),
        (loaded.batch_stats, backbone["batch_stats"]),
    ):
        assert jax.tree.structure(found) == jax.tree.structure(expected)
        jax.tree.map(np.testing.assert_array_equal, found, expected)


@pytest.mark.parametrize("form", export.FORMATS)
def test_export(tmp_path, form):
    backbone = make_backbone()
    folder = tmp_path / "export"
    export.save(folder, whole(backbone), make_card(), form=form)
    loaded = load_backbone(folder)
    assert_is(loaded, backbone)
    assert loaded.architecture == SIZE
    assert loaded.variant.name == "keras"
    assert (loaded.variant.input_mean, loaded.variant.input_std) == (MEAN, STD)
    assert loaded.variant.channel_order == "rgb"  # not turned
    assert sorted(name for name, _ in loaded.left_out) == [
        "params/projection/bias",
        "params/projection/kernel",
    ]
    assert loaded.source["file"] == "export"
    assert loaded.source["sha256"] == exported.load(folder)[1]["weights_sha256"]
    assert json.loads(json.dumps(loaded.source)) == loaded.source


@pytest.mark.parametrize("part", ["whole", "backbone", "named"])
def test_safetensors_file(tmp_path, part):
    backbone = make_backbone()
    variables = {"whole": whole(backbone), "backbone": backbone}.get(part) or {
        collection: {"backbone": tree} for collection, tree in backbone.items()
    }
    path = tmp_path / "weights"
    lineage = {
        "training_data": ["rendered faces"],
        "pretrained_on": [],
        "aff_wild2_pretrained": False,
        "reasons": [],
        "initial_weights": None,
    }
    write_safetensors(path, variables, make_card("torchvision", lineage))
    loaded = load_backbone(path)
    assert_is(loaded, backbone)
    assert loaded.variant.name == "torchvision"
    assert len(loaded.left_out) == (2 if part == "whole" else 0)
    assert loaded.source["provenance"] == lineage


def test_incomplete_export(tmp_path):
    path = tmp_path / "weights"
    backbone = make_backbone()
    del backbone["params"]["stage2_block2"]["bn1"]["bias"]
    write_safetensors(path, backbone, make_card())
    with pytest.raises(WeightsError, match=r"lacks 1 of the \d+ tensors .*stage2_block2.bn1.bias"):
        load_backbone(path)
    write_safetensors(path, make_backbone(), make_card(), config={"model": {}})
    with pytest.raises(WeightsError, match=r"it has no config\.model\.backbone\.variant"):
        load_backbone(path)


def test_a_file_is_checked_as_its_folder_is(tmp_path):
    """Against its card, whose schema and hash it must have."""
    path = tmp_path / "weights"
    write_safetensors(path, make_backbone(), make_card(), schema=cards.SCHEMA + 1)
    with pytest.raises(WeightsError, match=f"has a card of schema {cards.SCHEMA + 1}"):
        load_backbone(path)
    write_safetensors(path, make_backbone(), make_card())
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(WeightsError, match="arrays hash to"):
        load_backbone(path)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_damaged_folder(tmp_path):
    folder = tmp_path / "export"
    export.save(folder, whole(make_backbone()), make_card())
    for file in (folder / "params").rglob("d/*"):
        file.write_bytes(file.read_bytes()[:10])
    with pytest.raises(UserError) as raised:
        load_backbone(folder)
    assert raised.value.remedy


def test_pairing(tmp_path):
    path = tmp_path / "weights"
    write_safetensors(path, make_backbone(), make_card())
    loaded = load_backbone(path)

    def settings(backbone=(), **model):
        fitting = {
            "variant": "keras",
            "stage_sizes": SIZE.stage_sizes,
            "width": SIZE.width,
            "expansion": SIZE.expansion,
        }
        return config_lib.ModelConfig(
            **{"input_mean": MEAN, "input_std": STD} | model,
            backbone=config_lib.BackboneConfig(**fitting | dict(backbone)),
        )

    check_settings(loaded, settings(), "x")
    check_settings(loaded, settings(input_mean=(120.0004, 110.0, 100.0)), "x")

    def remedy(**changes):
        with pytest.raises(WeightsError) as raised:
            check_settings(loaded, settings(**changes), "x")
        assert str(raised.value).startswith("x: does not fit the settings: ")
        return raised.value.remedy

    caffe = {"variant": "caffe"}
    assert remedy(backbone=caffe) == "use --config.model.backbone.variant=keras"
    assert remedy(input_mean=MEAN[::-1]) == "use --config.model.input_mean=120.0,110.0,100.0"
    assert remedy(input_std=(1.0, 1.0, 1.0)) == "use --config.model.input_std=50.0,51.0,52.0"
    assert remedy(backbone=caffe | {"stage_sizes": (1,), "width": 8}) == (
        "use --config.model.backbone.variant=keras --config.model.backbone.stage_sizes=1,2 "
        "--config.model.backbone.width=4"
    )


def test_settings_are_those_that_pass(tmp_path):
    """The printed flags, taken as overrides, make a config that the weights fit."""
    path = tmp_path / "weights"
    write_safetensors(path, make_backbone(Architecture((2,), 6, 3)), make_card())
    loaded = load_backbone(path)
    overrides = [flag.removeprefix("--config.") for flag in flags(needed_settings(loaded))]
    file = tmp_path / "c.py"
    file.write_text(
        "from mtl_face import config\n"
        "def get_config():\n    c = config.default()\n    c.data.root = '/x'\n    return c\n"
    )
    check_settings(loaded, config_lib.load(str(file), overrides).model, "x")


VIT = VitConfig(patch=16, width=8, depth=2, num_heads=2, mlp_width=12, registers=1)
CONVNEXT = ConvNextConfig(depths=(1, 2), widths=(4, 6), final_norm=True)


@pytest.mark.parametrize(
    ("backbone", "shapes"),
    [
        (config_lib.BackboneConfig(kind="vit", vit=VIT), vit_in_file.shapes(VIT, 49)),
        (
            config_lib.BackboneConfig(kind="convnext", convnext=CONVNEXT),
            convnext_in_file.shapes(CONVNEXT),
        ),
    ],
    ids=["vit", "convnext"],
)
def test_other_backbones(tmp_path, backbone, shapes):
    """Kernels lie as the network has them; the settings are the card's."""
    random = np.random.default_rng(0)
    tensors = {
        f"params/backbone/{name}": random.normal(size=shape).astype(np.float32)
        for name, shape in shapes.items()
    }
    tensors["params/projection/bias"] = np.ones(8, np.float32)
    model = config_lib.ModelConfig(
        input_size=112, input_mean=MEAN, input_std=STD, backbone=backbone
    )
    card = cards.make(
        config_lib.Config(model=model),
        temperatures={"va": 1.0, "au": 1.0, "expr": 5.0},
        crop={},
        step=7,
    )
    write_safetensors(tmp_path / "w", exported.nest(tensors, tmp_path), card)
    loaded = load_backbone(tmp_path / "w")
    found = exported.flatten({"params": {"backbone": loaded.params}})
    del tensors["params/projection/bias"]
    assert found.keys() == tensors.keys()
    for name, array in tensors.items():
        np.testing.assert_array_equal(found[name], array)
    assert [name for name, _ in loaded.left_out] == ["params/projection/bias"]
    check_settings(loaded, model, "w")
    assert loaded.variant.input_std == STD
