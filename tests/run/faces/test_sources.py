"""What inputs lead to: files, folders, patterns, cameras, and what leads nowhere."""

import os
from pathlib import Path

import pytest

from mtl_face import pictures
from mtl_face.errors import ImageError
from mtl_face.run.faces import sources


@pytest.fixture
def folder(tmp_path, monkeypatch):
    for name in ("b.jpg", "a.png", "talk.mp4", "notes.txt", "deep/er/c.JPG", "[1].jpg"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def named(*inputs):
    found = sources.find(inputs)
    return [(source.name, source.kind) for source in found.all], found


def test_names_are_as_the_user_gave_them(folder):
    photo, video = sources.PHOTO, sources.VIDEO
    assert named("b.jpg")[0] == [("b.jpg", photo)]
    assert named(f"{folder}/b.jpg")[0] == [(f"{folder}/b.jpg", photo)]
    assert named("./deep")[0] == [("deep/er/c.JPG", photo)]
    each, found = named(".")
    assert each == [
        ("[1].jpg", photo),
        ("a.png", photo),
        ("b.jpg", photo),
        ("deep/er/c.JPG", photo),
        ("talk.mp4", video),
    ]
    assert found.failed == ()
    assert found.notes == (".: left aside: .txt 1",)


def test_patterns(folder):
    assert [name for name, _ in named("*.jpg")[0]] == ["[1].jpg", "b.jpg"]
    assert [name for name, _ in named("**/*.JPG", "*.png")[0]] == ["deep/er/c.JPG", "a.png"]
    assert [name for name, _ in named("*")[0]][-1] == "talk.mp4"
    # A file of that name is meant, where there is one.
    assert [name for name, _ in named("[1].jpg")[0]] == ["[1].jpg"]


def test_home(folder, monkeypatch):
    monkeypatch.setenv("HOME", str(folder))
    assert named("~/b.jpg")[0] == [(f"{folder}/b.jpg", sources.PHOTO)]
    (folder / "~$b.jpg").write_bytes(b"")  # such as editors leave
    assert named("~$b.jpg")[0] == [("~$b.jpg", sources.PHOTO)]


def test_each_source_comes_once(folder):
    os.symlink("b.jpg", "link.jpg")
    names = [name for name, _ in named("b.jpg", "*.jpg", "link.jpg", "./b.jpg", str(folder))[0]]
    assert names[0] == "b.jpg"
    assert sorted(Path(name).name for name in names) == [
        "[1].jpg",
        "a.png",
        "b.jpg",
        "c.JPG",
        "talk.mp4",
    ]


def test_a_link_to_itself_holds_up_nothing(folder):
    """It is found as other files are, and reading it fails."""
    os.symlink("loop.jpg", "loop.jpg")
    names, *_ = named(str(folder))
    assert {Path(name).name for name, _ in names} == {"loop.jpg", "[1].jpg", "a.png", "b.jpg",
                                                      "c.JPG", "talk.mp4"}  # fmt: skip
    with pytest.raises(ImageError, match=r"loop\.jpg"):
        pictures.read(folder / "loop.jpg")


def test_cameras(folder):
    found = sources.find(["camera:0", "camera:12", "camera:0"])
    assert [(one.name, one.kind, one.path) for one in found.all] == [
        ("camera:0", sources.CAMERA, Path("0")),
        ("camera:12", sources.CAMERA, Path("12")),
    ]


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ("gone.jpg", "does not exist"),
        ("*.gif", "matches nothing"),
        ("*.txt", "matches no photo and no video that is read"),
        ("camera:x", "does not exist"),
        ("empty", "no video and no photo"),
    ],
)
def test_what_leads_nowhere_does_not_hold_up_the_rest(folder, given, words):
    (folder / "empty").mkdir()
    found = sources.find([given, "b.jpg"])
    assert [source.name for source in found.all] == ["b.jpg"]
    (error,) = found.failed
    assert words in str(error)
    assert error.remedy
