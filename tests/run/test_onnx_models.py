"""An ONNX file in the place of an export: the same answers, and what is refused."""

import dataclasses
import json
import os
import sys

import camera_frames
import numpy as np
import onnx
import onnxruntime
import program_files
import pytest
import small_dataset
from onnx import TensorProto
from PIL import Image

import mtl_face
from mtl_face.cli import main
from mtl_face.errors import ConfigError
from mtl_face.faces import align
from mtl_face.faces.detect import PHOTO_FACE_PX, FaceFinder
from mtl_face.faces.video import VideoFrame
from mtl_face.inference.stream import FaceStream
from mtl_face.run import models
from mtl_face.run import workdir as workdirs
from mtl_face.run.postprocess import PostProcessing
from mtl_face.weights import card as cards
from mtl_face.weights.card import ExportError


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    config = program_files.config_of("image", va_variance="per_example")
    return program_files.write_export(tmp_path_factory.mktemp("models") / "export", config)


@pytest.fixture(scope="module")
def network(folder):
    return models.load(folder)


@pytest.fixture(scope="module")
def file(folder):
    return program_files.write_onnx(folder.with_name("plain.onnx"), folder)


@pytest.fixture(scope="module")
def calibrated(folder):
    path = folder.with_name("calibrated.onnx")
    return program_files.write_onnx(path, folder, calibration=program_files.calibration())


def assert_same_answers(found, expected):
    assert found.frame.tolist() == expected.frame.tolist()
    np.testing.assert_allclose(found.va, expected.va.clip(-1, 1), atol=1e-5)
    for name in ("va_std", "au_logits", "expression_logits"):
        np.testing.assert_allclose(
            getattr(found, name), getattr(expected, name), rtol=1e-4, atol=1e-5
        )


def test_the_tables_of_a_file_are_those_of_the_network(network, file, calibrated):
    crops = np.random.default_rng(1).integers(0, 256, (11, 40, 40, 3), np.uint8)
    expected = network.predict_crops(crops)
    for path in (file, calibrated):
        model = mtl_face.load(path)
        assert (model.crop_size, model.inputs) == (program_files.SIDE, ("image",))
        found = model.predict_crops(crops)
        assert_same_answers(found, expected)
        assert not found.is_calibrated
        for name in ("config", "step", "temperatures", "probability", "weights_sha256"):
            assert found.metadata[name] == expected.metadata[name]
        assert len(found.metadata["program_sha256"]) == 64
    with pytest.raises(ConfigError, match="no attention"):
        model.cross_attention(crops[:, :32, :32])


def test_a_calibration_inside_is_applied_unless_another_is_asked_for(calibrated, tmp_path):
    crops = np.random.default_rng(2).integers(0, 256, (5, 32, 32, 3), np.uint8)
    session = onnxruntime.InferenceSession(calibrated, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    answers = dict(zip(names, session.run(None, {"crop": crops}), strict=True))
    model = models.load(calibrated)
    said = []
    steps = PostProcessing().with_own(model)
    table, _ = steps.apply(model.predict_crops(crops), said.append)
    assert said == [f"calibrated with {calibrated}"]
    for name, of_table in {
        "valence_arousal_std": table.va_std,
        "au_probability": table.au_probabilities,
        "expression_probability": table.expression_probabilities,
    }.items():
        np.testing.assert_allclose(answers[name], of_table, rtol=1e-4, atol=1e-6)
    assert answers["au_present"].tolist() == table.au.tolist()
    assert answers["expression"].tolist() == table.expression.tolist()
    other = dataclasses.replace(program_files.calibration(), temperatures={"au": 3.0, "expr": 4.0})
    path = tmp_path / "other.json"
    path.write_text(json.dumps(other.to_dict()))
    asked = PostProcessing.of(None, path)
    assert asked.with_own(model) is asked


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    rows = {"training": 4, "validation": 7}
    return small_dataset.write(tmp_path_factory.mktemp("data"), rows=rows)


@pytest.mark.slow
def test_scores_and_lists_of_a_file_are_those_of_the_network(network, file, data, tmp_path):
    names = tmp_path / "list.txt"
    names.write_text("validation_0/00001.jpg\nvalidation_1/00001.jpg\n")
    scores, tables = [], []
    for model in (network, mtl_face.load(file)):
        place = dataclasses.replace(model.config.data, root=str(data))
        config = dataclasses.replace(model.config, data=place)
        scores.append(mtl_face.evaluate(model, config, say=str))
        images = data / "cropped_aligned"
        tables.append(mtl_face.predict(model, names, config=config, images=images, say=str))
    for task in ("va", "au", "expr"):
        assert scores[1][task]["score"] == pytest.approx(scores[0][task]["score"], abs=1e-4)
    assert_same_answers(tables[1], tables[0])


@pytest.mark.slow
def test_the_report_of_a_file(file, data, tmp_path, capsys):
    output = tmp_path / "out"
    asked = ["evaluate", f"--model={file}", f"--config.data.root={data}", f"--output={output}"]
    assert main.main(asked) == 0
    assert (output / "report.html").is_file()
    assert capsys.readouterr().err == ""


def without_card(model):
    del model.metadata_props[:]


def cut_in_half(content):
    return content[: len(content) // 2]


def elsewhere(model):
    tensor = model.graph.initializer[0]
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="/etc/passwd")


def own_operator(model):
    model.graph.node[0].domain = "com.acme"
    model.opset_import.add(domain="com.acme", version=1)


def opset(version):
    def change(model):
        model.opset_import[0].version = version

    return change


def card_changed(change):
    def changed(model):
        (entry,) = (entry for entry in model.metadata_props if entry.key == cards.KEY)
        entry.value = change(entry.value)

    return changed


def entry_changed(**changes):
    return card_changed(lambda text: json.dumps(cards.sealed({**json.loads(text), **changes})))


def renamed(kind):
    def change(model):
        getattr(model.graph, kind)[0].name = "mine"

    return change


BROKEN = {
    "no card": (without_card, "has no card (metadata `model_json`)"),
    "external": (elsewhere, "keeps arrays in another file"),
    "operator": (own_operator, "has operators that are not of ONNX: com.acme."),
    "old opset": (opset(7), "has operators of opset 7; 13 to "),
    "new opset": (opset(99), "has operators of opset 99; 13 to "),
    "no JSON": (card_changed(lambda text: text[:-9]), "its card is no JSON"),
    "a changed card": (
        card_changed(lambda text: text.replace('"step": 12', '"step": 13')),
        "it was changed after it was written",
    ),
    "no whole way": (entry_changed(whole_way=None), "does not say which crops it takes"),
    "other crops": (entry_changed(whole_way={"crop_size": 48}), "input crop is ('uint8', [32, 32"),
    "no calibration": (
        entry_changed(whole_way={"crop_size": 32, "calibration": {"schema": 1}}),
        "has a calibration in its card that is none",
    ),
    "an input": (renamed("input"), "input crop is absent, expected"),
    "an output": (renamed("output"), "output valence_arousal is absent, expected float32 [2]"),
    "a graph": (lambda model: model.graph.node[0].ClearField("output"), "cannot be run by ONNX"),
}


@pytest.mark.parametrize("what", BROKEN)
def test_a_file_that_is_refused(what, file, tmp_path, capfd):
    change, words = BROKEN[what]
    model = onnx.load(file)
    change(model)
    path = tmp_path / "broken.onnx"
    path.write_bytes(model.SerializeToString())
    with pytest.raises(ExportError) as caught:
        models.load(path)
    assert words in str(caught.value)
    assert caught.value.path == str(path)
    assert caught.value.remedy
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("content", [cut_in_half, lambda content: b"a text of mine"])
def test_a_file_that_was_cut_short(content, file, tmp_path, capsys):
    path = tmp_path / "cut.onnx"
    path.write_bytes(content(file.read_bytes()))
    assert main.main(["evaluate", f"--model={path}", f"--output={tmp_path / 'out'}"]) == 2
    err = capsys.readouterr().err
    assert str(path) in err
    assert "cut short" in err
    assert "Traceback" not in err


@pytest.mark.parametrize(("size", "words"), [(0, "is empty"), (5 * 10**9, "has 5.0 GB")])
def test_an_empty_and_a_huge_file_are_not_read(size, words, tmp_path, capsys):
    path = tmp_path / "a.onnx"
    path.touch()
    os.truncate(path, size)  # takes no room on the disk
    assert main.main(["evaluate", f"--model={path}", f"--output={tmp_path / 'out'}"]) == 2
    assert f"{path}: {words}" in capsys.readouterr().err


def test_a_file_is_known_by_its_content_too(file, tmp_path):
    path = tmp_path / "renamed"
    path.write_bytes(file.read_bytes())
    assert models.load(path).crop_size == program_files.SIDE


@pytest.mark.parametrize("package", ["onnx", "onnxruntime"])
def test_without_the_extra(package, file, monkeypatch):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ExportError, match=f"need the package {package}") as caught:
        models.load(file)
    assert "[onnx]" in caught.value.remedy


def test_settings_that_a_file_cannot_follow(file):
    with pytest.raises(ExportError, match="takes crops of 32 pixels, the settings give 48"):
        models.open_model(file, workdirs.own_config(file, ["data.image_size=48"]), str)
    config = workdirs.own_config(file, ["evaluation.mc_dropout_samples=4"])
    with pytest.raises(ConfigError, match="no dropout to sample"):
        models.open_model(file, config, str)
    with pytest.raises(ExportError, match="another network"):
        models.open_model(file, workdirs.own_config(file, ["model.embed_dim=32"]), str)


def test_a_file_is_no_source_of_arrays(file, capsys, tmp_path):
    asked = ["export", f"--model={file}", "--format=safetensors", f"--output={tmp_path / 'out'}"]
    assert main.main(asked) == 2
    assert "is a program, whose arrays belong to it" in capsys.readouterr().err


@pytest.mark.slow
def test_a_file_that_finds_points_itself_takes_faces_and_a_baseline(tmp_path):
    config = program_files.config_of("points", side=align.SIZE)
    folder = program_files.write_export(tmp_path / "export", config)
    network = models.load(folder)
    model = models.load(program_files.write_onnx(tmp_path / "points.onnx", folder))
    heads = [camera_frames.head(seed)[0] for seed in range(2)]
    crops = np.stack([np.asarray(face_of(head)) for head in heads])
    expected, found = network.predict_crops(crops), model.predict_crops(crops)
    for name in ("va", "au_logits", "expression_logits"):
        one, other = (getattr(table, name) for table in (expected, found))
        np.testing.assert_allclose(one.clip(-1, 1) if name == "va" else one, other, atol=2e-3)
    # The points of a photo are found in the photo by one, and in the crop by the other.
    alone, beside = model.predict(heads), model.predict(heads, neutral=heads[1])
    expected = network.predict(heads, neutral=heads[1])
    assert beside.baseline.tolist() == expected.baseline.tolist()
    for name in ("va", "au_probability", "expression_probability"):
        one, other = (getattr(table, name) for table in (expected, beside))
        np.testing.assert_allclose(one, other, atol=0.02)
    assert np.abs(alone.au_probability - beside.au_probability).max() > 0
    frames = [VideoFrame(number, number / 25, Image.fromarray(heads[0])) for number in range(1, 4)]
    tables = FaceStream(model, source="a video").update(frames)
    assert {table.person.tolist()[0] for table in tables} == {1}
    assert np.isfinite(np.concatenate([table.va for table in tables])).all()


def face_of(head):
    (face,) = FaceFinder(PHOTO_FACE_PX)(picture := Image.fromarray(head))
    return align.crop_face(picture, face.landmarks)
