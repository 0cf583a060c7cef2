"""Programs as files: run by others alone, refused where they disagree or are of another version."""

import json
import subprocess
import sys
import zipfile

import numpy as np
import pytest
from small_programs import calibration, card_of, predictor, run

from mtl_face.evaluation import calibration as calibrations
from mtl_face.export import check, stablehlo, whole_way
from mtl_face.files import write_json
from mtl_face.run import export as exports
from mtl_face.weights import card as cards
from mtl_face.weights.card import ExportError

CROPS = np.random.default_rng(1).integers(0, 256, (3, 24, 24, 3), np.uint8)

ALONE = """
import json, sys, zipfile
for name in ("mtl_face", "flax", "optax", "orbax", "tensorflow", "pandas"):
    sys.modules[name] = None
import jax, jax.export, numpy
with zipfile.ZipFile(sys.argv[1]) as file:
    card = json.loads(file.read("model.json"))
    program = jax.export.deserialize(bytearray(file.read("model.stablehlo")))
answers = jax.jit(program.call)({"crop": numpy.load(sys.argv[2])})
assert set(answers) == set(card["whole_way"]["outputs"])
numpy.savez(sys.argv[3], **answers)
"""


@pytest.fixture(scope="module")
def images():
    return predictor(va_variance="per_example")


@pytest.fixture(scope="module")
def whole(images):
    return whole_way.whole_way(
        images,
        card_of(images),
        crop_size=24,
        calibration=calibration(std_is_predicted=True),
        convolution="matmul",
    )


@pytest.fixture(scope="module")
def file(whole, tmp_path_factory):
    path = tmp_path_factory.mktemp("program") / "faces.zip"
    stablehlo.write(path, whole)
    return path


def test_jax_alone_runs_it(whole, file, tmp_path):
    np.save(tmp_path / "crops.npy", CROPS)
    words = [str(file), str(tmp_path / "crops.npy"), str(tmp_path / "answers.npz")]
    result = subprocess.run(
        [sys.executable, "-c", ALONE, *words], capture_output=True, text=True, cwd=tmp_path
    )
    assert result.returncode == 0, result.stderr
    expected = run(whole, {"crop": CROPS})
    with np.load(tmp_path / "answers.npz") as found:
        for name, values in expected.items():
            assert found[name].dtype == values.dtype
            np.testing.assert_allclose(found[name], values, atol=1e-5, err_msg=name)


def test_read_here(whole, file):
    program, card = stablehlo.read(file)
    assert card["program"]["platforms"] == ["cpu", "cuda", "tpu"]
    assert card["program"]["serialised_by"].startswith("jax ")
    assert card["weights_sha256"] == whole.card["weights_sha256"]
    expected = run(whole, {"crop": CROPS[:1]})
    found = program({"crop": CROPS[:1]})
    np.testing.assert_allclose(found["au_logit"], expected["au_logit"], atol=1e-5)


def rewritten(file, path, **changes):
    """The file with other members: bytes, or a function of the card."""
    with zipfile.ZipFile(file) as old, zipfile.ZipFile(path, "w") as new:
        for name in old.namelist():
            data = old.read(name)
            if name == cards.FILE and "card" in changes:
                data = json.dumps(cards.sealed(changes["card"](json.loads(data)))).encode()
            if name == stablehlo.PROGRAM and "program" in changes:
                data = changes["program"](data)
            new.writestr(name, data)
    return path


def test_another_version_is_refused(file, tmp_path):
    def later(card):
        return {**card, "program": {**card["program"], "calling_convention_version": 99}}

    with pytest.raises(ExportError, match="version 99 of the calling convention, by jax"):
        stablehlo.read(rewritten(file, tmp_path / "a.zip", card=later))
    with pytest.raises(ExportError, match="cannot be read by jax"):
        stablehlo.read(rewritten(file, tmp_path / "b.zip", program=lambda data: data[:500]))
    with pytest.raises(ExportError, match="does not speak of a program"):
        stablehlo.read(
            rewritten(
                file,
                tmp_path / "c.zip",
                card=lambda card: {k: v for k, v in card.items() if k != "program"},
            )
        )


def test_other_files_are_refused(tmp_path):
    with pytest.raises(ExportError, match="does not exist"):
        stablehlo.read(tmp_path / "none.zip")
    (tmp_path / "text.zip").write_text("no zip file")
    with pytest.raises(ExportError, match="holds no program"):
        stablehlo.read(tmp_path / "text.zip")


def test_same_program_same_bytes(whole, file, tmp_path):
    stablehlo.write(tmp_path / "again.zip", whole)
    assert (tmp_path / "again.zip").read_bytes() == file.read_bytes()
    assert b".py" not in file.read_bytes()  # nothing of where it was made


@pytest.mark.parametrize("form", ["stablehlo", "onnx"])
@pytest.mark.slow
def test_export_is_checked(images, form, tmp_path):
    if form == "onnx":
        pytest.importorskip("onnxruntime")
    fitted = calibration(std_is_predicted=True)
    write_json(tmp_path / "calibration.json", fitted.to_dict())
    said = []
    images.export(tmp_path / "quiet", format=form, crop_size=24)
    written = exports.export_model(
        images,
        tmp_path / "file",
        format=form,
        crop_size=24,
        calibration=tmp_path / "calibration.json",
        say=said.append,
    )
    assert {path.name for path in tmp_path.iterdir()} == {"quiet", "file", "calibration.json"}
    assert any("ms a face in batches of 16" in line for line in said)
    assert any("expression_probability" in line for line in said)
    if form == "onnx":
        import onnxruntime

        session = onnxruntime.InferenceSession(written, providers=["CPUExecutionProvider"])
        names = [output.name for output in session.get_outputs()]
        found = dict(zip(names, session.run(names, {"crop": CROPS}), strict=True))
        card = json.loads(session.get_modelmeta().custom_metadata_map["model_json"])
    else:
        program, card = stablehlo.read(written)
        found = program({"crop": CROPS})
    table = calibrations.apply(images.predict_crops(CROPS), fitted)
    np.testing.assert_allclose(found["au_probability"], table.au_probabilities, atol=1e-5)
    np.testing.assert_array_equal(found["expression"], table.expression)
    assert card["whole_way"]["calibration"] == fitted.to_dict()


@pytest.mark.slow
def test_a_program_that_disagrees_is_not_kept(images, tmp_path, monkeypatch):
    """Written from weights that are not the network's."""
    other = predictor(va_variance="per_example", seed=1)
    wrong = whole_way.whole_way(other, card_of(other), convolution="matmul")
    write = stablehlo.write
    monkeypatch.setattr(stablehlo, "write", lambda path, whole: write(path, wrong))
    (tmp_path / "file.zip").write_text("from before")
    with pytest.raises(ExportError, match=r"otherwise than the network: .*au_probability by"):
        exports.export_model(images, tmp_path / "file.zip", format="stablehlo")
    assert [path.name for path in tmp_path.iterdir()] == ["file.zip"]
    assert (tmp_path / "file.zip").read_text() == "from before"


@pytest.mark.slow
def test_a_file_that_does_not_run(whole, images, tmp_path):
    (tmp_path / "file").write_text("nothing")
    with pytest.raises(ExportError, match="does not run by itself"):
        check.check(tmp_path / "file", "stablehlo", whole, images, CROPS)


def test_differences_of_decisions(whole):
    """A decision that differs counts by how far the other one was; NaN only equals NaN."""
    expected = run(whole, {"crop": CROPS})
    calibrated = calibration(std_is_predicted=True)
    found = {name: values.copy() for name, values in expected.items()}

    def difference(name):
        return check._difference(name, found, expected, whole, calibrated)

    assert {difference(name) for name in expected} == {0.0}
    found["au_present"][0, 3] ^= True
    logit = expected["au_logit"][0, 3] / 2.0
    assert difference("au_present") == pytest.approx(abs(logit - (-0.2)), abs=1e-6)
    found["expression"][1] = (expected["expression"][1] + 1) % 8
    assert difference("expression") > 0
    found["au_logit"][0, 0] = np.nan
    assert difference("au_logit") == np.inf
    found["au_probability"] = found["au_probability"].astype(np.float64)
    assert difference("au_probability") == np.inf
