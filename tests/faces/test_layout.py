"""Names of sources and of people in them, and the folder that crops are written to."""

import csv
import errno
import json
import os
from pathlib import Path

import pytest

from data_pipeline.formats import manifest
from data_pipeline.formats.values import split_image_id
from mtl_face import pictures
from mtl_face.config.schema import ManifestConfig
from mtl_face.errors import ImageError, WorkdirError
from mtl_face.faces import layout
from mtl_face.faces.layout import Source, find_sources


def make(folder, *names):
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"")


def names_of(folder):
    return {source.text(): source.name for source in find_sources(folder).sources}


def test_what_is_at_a_path(tmp_path):
    with pytest.raises(ImageError, match="does not exist"):
        find_sources(tmp_path / "gone")
    with pytest.raises(ImageError, match="no video and no photo"):
        find_sources(tmp_path)
    make(tmp_path, "b.MP4", "sub/a.avi", "sub/x.jpg", "sub/w.PNG", "sub/v.JFIF", "sub/u.mxf")
    found = find_sources(tmp_path)
    assert [source.name for source in found.sources] == ["a", "b", "sub", "u"]
    assert [path.name for path in found.sources[2].photos] == ["v.JFIF", "w.PNG", "x.jpg"]
    assert found.left_aside_in_words() == []
    (only,) = find_sources(tmp_path / "sub/x.jpg").sources
    assert (only.name, only.text(), len(only.photos)) == ("x", "x.jpg", 1)
    (only,) = find_sources(tmp_path / "b.MP4").sources
    assert (only.name, only.text(), only.photos) == ("b", "b.MP4", ())


def test_crops_of_an_earlier_call_are_no_photos(tmp_path):
    (tmp_path / "a.jpg").write_bytes(b"")
    layout.open_output(tmp_path / "out")
    crop = tmp_path / "out" / layout.CROPS / "a.jpg" / "00001.jpg"
    crop.parent.mkdir()
    crop.write_bytes(b"")
    found = find_sources(tmp_path)
    assert [source.photos for source in found.sources] == [(tmp_path / "a.jpg",)]
    assert found.left_aside_in_words() == ["left aside: folders of crops that this command made 1"]


def test_what_is_left_aside_is_counted_by_its_ending(tmp_path, monkeypatch):
    monkeypatch.setattr(pictures, "_readable", lambda: ("JPEG", "PNG"))
    make(tmp_path, "1.heic", "2.HEIC", "sub/3.heic", "a.cr2", "b.cr2", "notes.txt", "README")
    make(tmp_path, ".hidden.jpg", ".folder/a.jpg")
    (tmp_path / "link").symlink_to(tmp_path / "sub")
    os.mkfifo(tmp_path / "pipe.jpg")
    lines = [
        "left aside: .heic 3, .cr2 2, hidden 2, .txt 1, links to folders 1, pipes and devices 1, "
        "without ending 1",
        "  .heic: install the extra:",
        "  .cr2: convert to JPEG or PNG",
    ]
    with pytest.raises(ImageError, match="no photo that is read") as caught:
        find_sources(tmp_path)
    for line in lines:
        assert line in str(caught.value)
    make(tmp_path, "a.jpg")
    found = find_sources(tmp_path).left_aside_in_words()
    assert all(line.startswith(start) for line, start in zip(found, lines, strict=True))
    with pytest.raises(ImageError, match=r"\.heic files are not read") as caught:
        find_sources(tmp_path / "1.heic")
    assert "mtl_face[heic]" in caught.value.remedy
    with pytest.raises(ImageError, match="pipe or a device"):
        find_sources(tmp_path / "pipe.jpg")


def test_a_folder_that_may_not_be_listed_does_not_hide_the_others(tmp_path, monkeypatch):
    make(tmp_path, "closed/a.mp4", "open/b.mp4")
    scandir = os.scandir

    def refuse(path):
        if str(path).endswith("closed"):
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    found = find_sources(tmp_path)
    assert [source.name for source in found.sources] == ["b"]
    assert [error.path for error in found.closed] == [str(tmp_path / "closed")]
    with pytest.raises(ImageError, match="no permission to read the folder"):
        find_sources(tmp_path / "closed")


@pytest.mark.parametrize(
    "names",
    [
        {"P01/trial1.mp4": "P01_trial1", "P02/trial1.mp4": "P02_trial1", "P02/b.mp4": "b"},
        {"a.mp4": "a_mp4", "a.avi": "a_avi", "b.mp4": "b"},
        {"a.mp4": "a", "sub/a.MP4": "sub_a"},
        {"x/P/t.mp4": "x_P_t", "x/P_t.mp4": "P_t", "t.mp4": "t"},
        {"A.mp4": "A_mp4", "a.MP4": "a_mp4_2"},  # one folder, where case makes no difference
        {"a b.mp4": "a_b_mp4", "a,b.mp4": "a_b_mp4_2", "a_b.mp4": "a_b_mp4_3"},
        {"talk.mp4": "talk_mp4", "talk": "talk_photos"},
        {"x/a": "x_a", "y/a": "y_a"},
        # Names that a person may get: the crops of one source would replace those of the other.
        {"a.mp4": "a", "a_left.mp4": "a_left_mp4"},
        {"a.mp4": "a", "a_right": "a_right_photos"},
        {"a.mp4": "a", "P/A_Left.mp4": "P_A_Left"},
        {"a.mp4": "a", "a_face2.mp4": "a_face2", "a_lefty.mp4": "a_lefty"},
        {"a": "a", "a_left.mp4": "a_left", "a_face2.mp4": "a_face2"},
        {"a_left.mp4": "a_left", "a_right.mp4": "a_right"},
    ],
)
def test_every_source_has_a_name_of_its_own(tmp_path, names):
    make(tmp_path, *(name if "." in name else f"{name}/x.jpg" for name in names))
    assert names_of(tmp_path) == names


def test_names_that_are_no_text_or_too_long(tmp_path):
    odd, long = os.fsdecode(b"caf\xe9.mp4"), 250 * "x"
    make(tmp_path, odd, os.fsdecode(b"caf\xea.mp4"), "new\nline.mp4", f"{long}.mp4", f"{long}.avi")
    names = names_of(tmp_path)
    whole = ["caf_mp4", "caf_mp4_2", "new_line", f"{150 * 'x'}_avi", f"{150 * 'x'}_mp4"]
    assert list(names.values()) == whole
    for text, name in names.items():
        assert text.isprintable()
        assert len(f".{name}_right.json.partial".encode()) < 255


@pytest.mark.parametrize(
    ("name", "escaped"),
    [
        (b"IMG_1234.JPG", "IMG_1234.JPG"),
        ("Anna's 2. Bild (neu), groß.jpg".encode(), "Anna's 2. Bild (neu)%2C groß.jpg"),
        (b"100%.jpg", "100%25.jpg"),
        (b" a\\b\n.jpg", "%20a%5Cb%0A.jpg"),
        (b"caf\xe9.jpg", "caf%E9.jpg"),
    ],
)
def test_the_name_of_a_photo(name, escaped):
    """It stands in lists of paths separated by commas, and two photos never have the same."""
    photo = Path(os.fsdecode(name))
    source = Source("family", Path(), (photo,))
    assert source.face(photo, 0) == f"family/{escaped}"
    assert source.face(photo, 2) == f"family/{escaped}_face3"
    image = f"family/{escaped}_face3/00001.jpg"
    assert split_image_id(image) == (image, f"family/{escaped}_face3", 1)


def test_names_of_photos_that_are_long():
    photos = [Path(f"{'x' * 240}{number}.jpg") for number in range(2)]
    faces = {Source("family", Path(), (photo,)).face(photo, 11) for photo in photos}
    assert len(faces) == 2
    assert all(len(name) < 200 for name in faces)


def test_the_output_must_be_ours(tmp_path):
    precious = tmp_path / "data/cropped_aligned/341"
    precious.mkdir(parents=True)
    with pytest.raises(WorkdirError, match="not made by this command"):
        layout.open_output(tmp_path / "data")
    assert precious.exists()
    output = layout.open_output(tmp_path / "new/place")
    assert layout.open_output(output) == output
    specification = output / layout.SPECIFICATION
    described = json.loads(specification.read_text())
    assert described["size"] == 112
    specification.write_text(json.dumps({**described, "size": 224}))
    with pytest.raises(WorkdirError, match="crops of another kind"):
        layout.open_output(output)
    specification.write_text("{")
    with pytest.raises(WorkdirError, match="cannot be read"):
        layout.open_output(output)
    (tmp_path / "file").write_text("")
    with pytest.raises(WorkdirError):
        layout.open_output(tmp_path / "file")


def test_a_source_replaces_folders_of_its_own_people_alone(tmp_path):
    """Videos of Aff-Wild2 have numbers for names."""
    photos = Source("faces", tmp_path, (tmp_path / "a.jpg",))
    video = Source("talk", tmp_path / "talk.mp4")
    folders = ("faces", "faces_face2", "faces_left", "341", "talk", "talk_left", "talk_face2")
    assert [name for name in folders if photos.owns(name)] == ["faces"]
    assert [name for name in folders if video.owns(name)] == ["talk", "talk_left"]
    assert [video.person(place, 2) for place in range(2)] == ["talk_left", "talk_right"]
    assert video.person(0, 1) == "talk"


def test_lists_hold_no_formulas_and_read_back(tmp_path):
    """`-clip` is a name that a spreadsheet would compute with."""
    row = {
        "frame": 1,
        "seconds": None,
        "source": "=1+1.mp4",
        "score": 0.5,
        "landmarks": [[-1, 2]] * 5,
    }
    record = {
        "name": "-clip",
        "source": "=1+1.mp4",
        "frames": 2,
        "people": [
            {"video": "-clip", "source": "=1+1.mp4", "rows": [row], "gaps": [[2, 2, "no face"]]}
        ],
    }
    assert layout.write_lists(tmp_path, [record]) == 1
    for name in (layout.MANIFEST, layout.GAPS):
        with (tmp_path / name).open(newline="") as file:
            cells = [cell for cells in csv.reader(file) for cell in cells]
        assert [cell for cell in cells if cell[:1] in ("=", "@")] == []
        assert [cell for cell in cells if cell[:1] == "-"] == ["-1"] * 5 * (name == layout.MANIFEST)
        assert "'=1+1.mp4" in cells
    assert (tmp_path / layout.TEST_LIST).read_text() == "image\n-clip/00001.jpg\n"
    table = manifest.read_manifest(
        tmp_path / layout.MANIFEST, ManifestConfig(), image_root=tmp_path
    )
    assert (table.video[0], table.image[0]) == ("-clip", "-clip/00001.jpg")
