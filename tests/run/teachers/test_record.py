"""Records of the models that gave labels: found beside manifests, and refused where not sound."""

import json

import pytest

from mtl_face import config as config_lib
from mtl_face.errors import WeightsError
from mtl_face.run.teachers import record

KNOWN = {"file": "runs/t", "sha256": "ab", "provenance": None, "images_of": ["faces"]}


def write(folder, name="train.csv", *, teacher=",teacher", known=KNOWN):
    (folder / name).write_text(f"image,au1{teacher}\na.jpg,1{',ab' * bool(teacher)}\n")
    if known is not None:
        record.path_of(folder / name).write_text(json.dumps(known))


def of(folder, **changes):
    data = {"kind": "manifest", "root": str(folder), **changes}
    return record.of_training(config_lib.validate({"data": data}).data)


def test_a_record_lies_beside_its_manifest(tmp_path):
    assert of(tmp_path) == []  # whether there is a manifest is not asked here
    write(tmp_path)
    assert of(tmp_path) == [KNOWN]
    write(tmp_path, "own.csv", teacher="", known=None)
    assert of(tmp_path, train_annotations="own.csv") == []


def test_of_a_mixture_each_counts(tmp_path):
    write(tmp_path)
    entry = {"kind": "manifest", "root": str(tmp_path)}
    faces = {"kind": "rendered_faces"}
    data = {"mixture": {"a": entry, "b": faces}, "validation": "b"}
    assert record.of_training(config_lib.validate({"data": data}).data) == [KNOWN]


@pytest.mark.parametrize(
    ("known", "words"),
    [
        (None, "there is no train.teacher.json that says which"),
        ({}, "does not say which model"),
        ({**KNOWN, "images_of": "faces"}, "does not say of which images"),
        ({**KNOWN, "provenance": {"training_data": 1}}, "no sound provenance"),
    ],
)
def test_a_record_that_is_not_sound(tmp_path, known, words):
    write(tmp_path, known=known)
    with pytest.raises(WeightsError, match=words):
        of(tmp_path)
