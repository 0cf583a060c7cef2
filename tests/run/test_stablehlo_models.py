"""A program of StableHLO in the place of an export: the same answers, and what is refused."""

import json
import zipfile

import numpy as np
import program_files
import pytest

from mtl_face.cli import main
from mtl_face.export import stablehlo
from mtl_face.export.whole_way import whole_way
from mtl_face.run import models
from mtl_face.weights import card as cards
from mtl_face.weights import exported
from mtl_face.weights.card import ExportError


@pytest.fixture(scope="module")
def network(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models") / "export"
    config = program_files.config_of("image", va_variance="per_example")
    return models.load(program_files.write_export(folder, config)), exported.read_card(folder)


@pytest.fixture(scope="module")
def file(network, tmp_path_factory):
    path = tmp_path_factory.mktemp("programs") / "program.zip"
    calibration = program_files.calibration()
    stablehlo.write(path, whole_way(*network, calibration=calibration, convolution="matmul"))
    return path


def test_the_tables_of_a_program_are_those_of_the_network(network, file):
    crops = np.random.default_rng(1).integers(0, 256, (5, 40, 40, 3), np.uint8)
    expected, model = network[0].predict_crops(crops), models.load(file)
    found = model.predict_crops(crops)
    np.testing.assert_allclose(found.va, expected.va.clip(-1, 1), atol=1e-5)
    for name in ("va_std", "au_logits", "expression_logits"):
        np.testing.assert_allclose(
            getattr(found, name), getattr(expected, name), rtol=1e-4, atol=1e-5
        )
    assert len(found.metadata["program_sha256"]) == 64
    assert model.forward.calibration == program_files.calibration()
    with pytest.raises(ExportError, match="whose arrays belong to it"):
        model.export(file.with_name("again"), format="safetensors")


def changed(file, path, entries):
    """The file with entries changed, each by a function of its content."""
    with zipfile.ZipFile(file) as old, zipfile.ZipFile(path, "w") as new:
        for name in old.namelist():
            content = old.read(name)
            new.writestr(name, entries[name](content) if name in entries else content)
    return path


def other_version(content):
    card = json.loads(content)
    program = {**card["program"], "calling_convention_version": 3}
    return json.dumps(cards.sealed({**card, "program": program}))


BROKEN = {
    "another version": (
        {"model.json": other_version},
        "was serialised with version 3 of the calling convention",
    ),
    "a damaged card": ({"model.json": lambda text: text[:-9]}, "its card is no JSON"),
    "a changed card": (
        {"model.json": lambda text: text.replace(b'"step": 12', b'"step": 13')},
        "it was changed after it was written",
    ),
    "a damaged program": ({"model.stablehlo": lambda data: data[:99]}, "cannot be read by jax"),
}


@pytest.mark.parametrize("what", BROKEN)
def test_a_program_that_is_refused(what, file, tmp_path, capsys):
    entries, words = BROKEN[what]
    path = changed(file, tmp_path / "broken.zip", entries)
    assert main.main(["evaluate", f"--model={path}", f"--output={tmp_path / 'out'}"]) == 2
    err = capsys.readouterr().err
    assert f"{path}: " in err
    assert words in err
    assert "Traceback" not in err


def test_a_program_that_was_cut_short(file, tmp_path):
    path = tmp_path / "cut.zip"
    path.write_bytes(file.read_bytes()[:2000])
    with pytest.raises(ExportError, match="holds no program"):
        models.load(path)


def test_a_zip_file_that_unfolds(tmp_path):
    path = tmp_path / "unfolds.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as bomb:
        bomb.writestr("model.json", b" " * 1_000_000)
    with pytest.raises(ExportError, match="is compressed"):
        models.load(path)
