"""Predictions rebuilt in a process that has NumPy alone, by what the card says and nothing else."""

import copy
import functools
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import numpy_network
import pytest
from docs_lines import lines_of_the_docs
from drawn_weights import drawn

import mtl_face
from mtl_face import export
from mtl_face.config import ModelConfig
from mtl_face.config.check import validate
from mtl_face.faces import geometry, points
from mtl_face.model.network import MtlFace, network_inputs
from mtl_face.run import workdir
from mtl_face.tasks import VA_LOG_VARIANCE
from mtl_face.weights import card as cards
from mtl_face.weights import card_network, exported

TEMPERATURES = {"va": 0.5, "au": 2.0, "expr": 5.0}
TINY = {
    "input_size": 33,
    "input_mean": (120.0, 110.0, 100.0),
    "input_std": (60.0, 50.0, 40.0),
    "embed_dim": 8,
    "num_heads": 2,
    "encoder_layers": 1,
    "decoder_modules": 1,
    "mlp_ratio": 2,
    "head_layers": 2,
    "head_width": 8,
}
RESNET = {"stage_sizes": (1, 2), "width": 4, "expansion": 2}
MOBILENET = {"kind": "mobilenet", "width": 4, "end": "pw6"}


CONVNEXT = {"kind": "convnext", "convnext": {"depths": (1, 2), "widths": (4, 8)}}


def vit_network(**changes):
    vit = {"patch": 8, "width": 8, "depth": 2, "num_heads": 2, "mlp_width": 12, **changes}
    return {**TINY, "input_size": 24, "backbone": {"kind": "vit", "vit": vit}}


def image_network(variant, norm, **changes):
    return {**TINY, "backbone": {**RESNET, "variant": variant}, "norm": norm, **changes}


NETWORKS = {
    "caffe": image_network("caffe", "post", va_variance="per_example"),
    "both": {
        **TINY,
        "inputs": ("image", "points"),
        "backbone": MOBILENET,
        "norm": "pre",
        "input_size": 32,
        "position": "1d",
        "va_variance": "from_features",
    },
    "keras": image_network("keras", "pre", input_size=32),
    "torchvision": image_network("torchvision", "pre", decoder_mlp="last"),
    "caffe_pre": image_network("caffe", "pre", position="1d", input_size=34),
    "keras_post": image_network("keras", "post", encoder_layers=2, decoder_modules=2),
    "torchvision_post": image_network("torchvision", "post", va_variance="per_example"),
    "mobilenet": {**TINY, "backbone": {**MOBILENET, "end": "dw5"}},
    "vit": vit_network(registers=2, positions="rotary", layer_scale=True, qkv_bias="no_key"),
    "vit_clip": vit_network(activation="quick_gelu", pre_norm=True, norm_epsilon=1e-3),
    "vit_gated": vit_network(gated_mlp=True, positions="sincos", qkv_bias="none"),
    "vit_siglip": vit_network(class_token=False, activation="gelu_tanh", final_norm=False),
    "convnext": {**TINY, "input_size": 32, "backbone": CONVNEXT},
    "convnext_v2": {
        **TINY,
        "input_size": 32,
        "backbone": {
            "kind": "convnext",
            "convnext": {**CONVNEXT["convnext"], "global_response_norm": True}
            | {"layer_scale": False, "final_norm": True},
        },
    },
}
FAST = ("caffe", "both", "vit", "convnext_v2")
FILE = exported.SAFETENSORS


def inputs_of(model, random):
    """Arrays of four faces, of the last two without a face at rest."""
    image = random.integers(0, 256, (4, 16, 16, 3)) * random.uniform(0.1, 1, (4, 1, 1, 3))
    point, baseline = random.normal(0, 0.05, (2, 4, 468, 3)).astype(np.float32)
    baseline[2:] = 0
    found = {"image": image.astype(np.uint8), "points": point, "baseline": baseline}
    return {name: found[name] for name in network_inputs(model)}


def write_export(folder, settings):
    """An export of drawn weights."""
    values = {"data": {"root": "/x", "image_size": 16}, "model": settings}
    config = validate({**values, "evaluation": {"batch_size": 8}})
    network = functools.partial(MtlFace(config.model).init, train=False)
    shapes = jax.eval_shape(network, jax.random.key(0), network_inputs(config.model))
    card = cards.make(config, temperatures=TEMPERATURES, crop={}, step=1)
    if "points" in config.model.inputs:
        card["points"] = points.statement(["person"])
    variables = {"batch_stats": {}, **drawn(shapes)}
    export.save(folder, variables, card, form="safetensors")


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Folders of exports with their inputs, by the name of the network, written when asked for."""

    @functools.cache
    def folder_of(name):
        folder = tmp_path_factory.mktemp(name)
        if name == "geometry":
            (folder / FILE).write_bytes(workdir.bundled()[name].read_bytes())
        else:
            write_export(folder / "export", NETWORKS[name])
            folder = folder / "export"
        model = workdir.own_config(folder / FILE).model
        np.savez(folder / "inputs.npz", **inputs_of(model, np.random.default_rng(7)))
        return folder

    return folder_of


@pytest.fixture(scope="module")
def bare(tmp_path_factory):
    """Runs `numpy_network.py` where nothing but NumPy and Python's own modules can be imported."""
    site = tmp_path_factory.mktemp("bare")
    packages = Path(np.__file__).parents[1]
    for name in ("numpy", "numpy.libs"):
        if (packages / name).exists():
            (site / name).symlink_to(packages / name)
    program = Path(numpy_network.__file__).read_text()
    start = f"import sys; sys.path.append({str(site)!r})\n"
    for name in ("jax", "flax", "mtl_face", "scipy", "torch", "safetensors"):
        start += f"try: import {name}\nexcept ModuleNotFoundError: pass\nelse: sys.exit(3)\n"

    def run(*folders):
        command = [sys.executable, "-I", "-S", "-c", start + program, lines_of_the_docs()]
        done = subprocess.run(
            [*command, *map(str, folders)],
            cwd=site,
            capture_output=True,
            text=True,
            timeout=600,
            check=False,
        )
        assert done.returncode == 0, done.stderr

    return run


def read(file):
    with np.load(file) as arrays:
        return dict(arrays)


def assert_rebuilt(folder):
    """The table of predictions holds what the bare process wrote, to 1e-5."""
    inputs, found = read(folder / "inputs.npz"), read(folder / "outputs.npz")
    predictor = mtl_face.load(folder / FILE)
    card = exported.read_card(folder)
    if set(inputs) == {"image"}:
        table = predictor.predict_crops(inputs["image"])
    else:
        table = predictor.predict_arrays(inputs)
    va = np.stack([table.valence, table.arousal], axis=1)
    divisors = card["probability"]["divisors"]
    np.testing.assert_allclose(found["va"], va, atol=1e-5)
    np.testing.assert_allclose(found["au"] / divisors["au"], table.au_logits, atol=1e-5)
    np.testing.assert_allclose(found["expr"] / divisors["expr"], table.expression_logits, atol=1e-5)
    assert table.au_logits.std(axis=0).max() > 1e-3  # the faces matter
    if VA_LOG_VARIANCE in found:
        stated = card["tasks"]["va"]["variance"]
        assert stated["reading"].startswith("standard deviation: sqrt(temperature * exp(value))")
        std = np.sqrt(card["temperatures"]["va"] * np.exp(found[VA_LOG_VARIANCE]))
        theirs = np.stack([table.valence_std, table.arousal_std], axis=1)
        np.testing.assert_allclose(std, theirs, rtol=1e-5)
    else:
        assert "variance" not in card["tasks"]["va"]


def test_numpy_alone_rebuilds_the_predictions(folders, bare):
    found = [folders(name) for name in (*FAST, "geometry")]
    bare(*found)
    for folder in found:
        assert_rebuilt(folder)


@pytest.mark.slow
def test_numpy_alone_rebuilds_every_kind(folders, bare):
    found = [folders(name) for name in NETWORKS if name not in FAST]
    bare(*found)
    for folder in found:
        assert_rebuilt(folder)


@pytest.fixture(scope="module")
def by_the_card(folders):
    """Card, arrays, inputs and outputs by the name of a network."""

    @functools.cache
    def found(name):
        variables, card = exported.load(folders(name))
        arrays, inputs = exported.flatten(variables), read(folders(name) / "inputs.npz")
        return card, arrays, inputs, numpy_network.predict(card, arrays, inputs)

    return found


def layers_within(value):
    """The layers of a statement, those within others too."""
    if isinstance(value, dict):
        if "layer" in value:
            yield value
        for inner in value.values():
            yield from layers_within(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from layers_within(inner)


def set_all(kind, **changes):
    """Changes entries of all layers of a kind."""

    def change(network):
        found = [each for each in layers_within(network) if each["layer"] == kind]
        assert found
        for each in found:
            assert changes.keys() <= each.keys()
            each.update(changes)

    return change


def swap_attentions(network):
    """The tokens look at the patches first, then at each other."""
    layers = network["decoder"]
    first = next(place for place, layer in enumerate(layers) if "_cross/" in str(layer) and place)
    layers[1:] = layers[first:] + layers[1:first]


def shift_strides(network):
    """Blocks halve the map in their middle convolution."""
    for layer in network["image"]:
        if layer["layer"] == "residual":
            first, middle = (
                each for each in layer["branch"] if each.get("padding") and each["name"][-1] in "12"
            )
            first["stride"], middle["stride"] = middle["stride"], first["stride"]


def norms_first(network):
    """Each norm behind a branch of the encoder goes to its start."""
    layers = network["encoder"]
    for place in (0, 1):
        layers[place]["branch"].insert(0, layers.pop(place + 1))


def replace_relu(network):
    """The backbone is cut to 0..1 in place of 0 and more."""
    for layer in layers_within(network["image"]):
        if layer["layer"] == "relu":
            layer.update({"layer": "clip", "minimum": 0, "maximum": 1})


def swap_tokens(network):
    heads = network["heads"]
    heads["au"]["token"], heads["expr"]["token"] = heads["expr"]["token"], heads["au"]["token"]


def swap_parts_of_the_code(network):
    (code,) = [each for each in layers_within(network) if each["layer"] == "position_code"]
    code["parts"].reverse()


IMAGE_FACTS = {
    "epsilon of batch norms": set_all("batch_norm", epsilon=1e-3),
    "epsilon of layer norms": set_all("layer_norm", epsilon=1e-3),
    "padding of conv1": lambda network: network["image"][2].update(padding=[2, 3]),
    "padding of the pooling": set_all("max_pool", padding=[1, 1]),
    "window of the pooling": set_all("max_pool", window=2),
    "place of the stride": shift_strides,
    "activation of the backbone": replace_relu,
    "activation of the perceptrons": set_all("gelu", layer="relu"),
    "size": set_all("resize", size=32),
    "mean": set_all("normalise", mean=[120.0, 110.0, 99.0]),
    "deviation": set_all("normalise", std=[60.0, 50.0, 41.0]),
    "order of the patches": set_all("patches", order=["column", "row"]),
    "parts of the position code": swap_parts_of_the_code,
    "even channels of the code": set_all("position_code", even="cos", odd="sin"),
    "longest wave of the code": set_all("position_code", longest_wave=100.0),
    "order of the attentions": swap_attentions,
    "memory": set_all("attention", memory="self"),
    "heads": set_all("attention", heads=1),
    "scale of the softmax": set_all("attention", scale=1.0),
    "place of the norms": norms_first,
    "order of the tokens": swap_tokens,
    "limit of the variance": set_all("bound", limit=1.0),
}
POINT_FACTS = {
    "unit": set_all("point_tokens", unit=0.02),
    "values": set_all("point_tokens", values=["change", "points"]),
    "inputs": set_all("point_tokens", inputs=["baseline", "points"]),
    "regions": lambda network: network["points"][0]["regions"].reverse(),
    "features of the variance": lambda network: network["heads"]["va_variance"]["layers"][0][
        "of"
    ].reverse(),
    "range of a MobileNet": set_all("clip", maximum=1),
    "order of the inputs": lambda network: network["encoder_input"].reverse(),
}


@pytest.mark.parametrize(
    ("name", "fact"),
    [*(("caffe", fact) for fact in IMAGE_FACTS), *(("both", fact) for fact in POINT_FACTS)],
)
def test_every_fact_is_read_from_the_card(folders, by_the_card, name, fact):
    """Another one gives other predictions, and this program refuses a card that states it."""
    card, arrays, inputs, outputs = by_the_card(name)
    changed = copy.deepcopy(card)
    {**IMAGE_FACTS, **POINT_FACTS}[fact](changed["network"])
    others = numpy_network.predict(changed, arrays, inputs)
    most = max(np.abs(outputs[key] - others[key]).max() for key in outputs)
    if fact == "order of the inputs":  # attention does not see the order of what it reads
        assert most < 1e-12
    else:
        assert most > 1e-4
    settings = workdir.own_config(folders(name))
    assert card_network.differences(card["network"], settings) == []
    assert card_network.differences(changed["network"], settings)


def test_numpy_alone_normalises_the_points_of_a_face(folders):
    """With the mean face of the card, whatever the place, size and turn of the mesh."""
    random = np.random.default_rng(5)
    turns = np.linalg.qr(random.normal(size=(3, 3, 3)))[0]
    turns *= np.sign(np.linalg.det(turns))[:, None, None]
    face = geometry.mean_face() + random.normal(0, 0.05, (3, 468, 3))
    meshes = 80 * face @ turns + random.normal(0, 100, (3, 1, 3))
    found = numpy_network.points_of_meshes(exported.read_card(folders("geometry")), meshes)
    np.testing.assert_allclose(found, geometry.normalise(meshes), atol=1e-6)
    assert np.abs(found).max() > 0.1


def test_another_mean_face_is_named():
    stated = points.statement(["person"])
    assert points.differences(stated) == []
    stated["mean_face"][3][0] += 0.01
    assert points.differences(stated) == ["mean_face is not the face that is the mean here"]


def test_a_claim_of_a_huge_network_costs_nothing():
    """Its layers are not written down before the card has as many."""
    settings = {**TINY, "backbone": {**RESNET, "stage_sizes": (10**12, 10**12)}}
    config = validate({"data": {"root": "/x"}, "model": settings})
    stated = card_network.statement(ModelConfig())
    assert card_network.differences(stated, config) == [
        "network states fewer layers than its settings make"
    ]
