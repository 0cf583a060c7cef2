import pytest

from mtl_face.errors import AnnotationError


def make(folder, names):
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"")


def test_words(read, tmp_path):
    make(tmp_path / "train", ["angry/2.jpg", "angry/1.PNG", "happy/1.jpg", "happy/.DS_Store"])
    make(tmp_path / "train", ["contempt/1.jpg", "sad/1.gif"])
    table, said = read(name="train", images=tmp_path)
    assert list(table.image) == [
        "train/angry/1.PNG",
        "train/angry/2.jpg",
        "train/contempt/1.jpg",
        "train/happy/1.jpg",
    ]
    assert list(table.expression) == [1, 1, -1, 4]
    assert said == [
        "train is read as images in a folder a class (data.manifest.layout=class_folders)",
        "1 expressions have no counterpart in the map aff_wild2 and count as missing: 'contempt' 1",
        "1 rows name images that training does not read (.gif) and are left out: convert them to "
        "JPEG or PNG to have them",
    ]


def test_files_in_other_places(read, tmp_path):
    """Folders in a class are searched; what is beside the classes is counted."""
    make(tmp_path / "train", ["angry/anna/1.jpg", "angry/2.jpg", "happy/.cache/1.jpg"])
    make(tmp_path / "train", ["stray.jpg", ".hidden", ".DS/1.jpg"])
    table, said = read(name="train", images=tmp_path)
    assert list(table.image) == ["train/angry/2.jpg", "train/angry/anna/1.jpg"]
    assert "1 files beside the folders of the classes are left out" in said
    assert "1 folders of a class hold no file" in said


def test_numbers_need_their_meaning(read, tmp_path):
    make(tmp_path / "train", ["0/1.jpg", "1/1.jpg"])
    with pytest.raises(AnnotationError, match=r"classes are numbers \(0 to 1\)") as caught:
        read(name="train", images=tmp_path)
    assert "expression_map=affectnet, affectnet_alphabetical, fer2013" in caught.value.remedy
    for name, classes in (("affectnet", [0, 4]), ("fer2013", [1, 2])):
        table, _ = read(name="train", images=tmp_path, expression_map=name)
        assert list(table.expression) == classes


def test_other_folders_are_no_classes(read, tmp_path):
    make(tmp_path / "mine", ["anna/1.jpg", "happy/1.jpg"])
    with pytest.raises(AnnotationError, match="nor labels of a known layout"):
        read(name="mine", images=tmp_path)
