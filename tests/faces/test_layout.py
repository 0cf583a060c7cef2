"""Names of sources and of people in them, and the folder that crops are written to."""

import csv
import json

import pytest

from data_pipeline.formats import manifest
from mtl_face.config.schema import ManifestConfig
from mtl_face.errors import ImageError, UserError, WorkdirError
from mtl_face.faces import layout
from mtl_face.faces.layout import Source, find_sources


def test_what_is_at_a_path(tmp_path):
    with pytest.raises(ImageError, match="does not exist"):
        find_sources(tmp_path / "gone")
    with pytest.raises(ImageError, match="no video and no photo"):
        find_sources(tmp_path)
    (tmp_path / "sub").mkdir()
    for name in ("b.MP4", "sub/a.avi", "sub/x.jpg", "sub/w.PNG", "notes.txt"):
        (tmp_path / name).write_bytes(b"")
    found = find_sources(tmp_path)
    assert [source.name for source in found] == ["a", "b", "sub"]
    assert [path.name for path in found[2].photos] == ["w.PNG", "x.jpg"]
    (tmp_path / "sub/b.avi").write_bytes(b"")
    with pytest.raises(UserError, match="same name, b, as"):
        find_sources(tmp_path)


@pytest.mark.parametrize(
    ("names", "clash"),
    [
        (("a.mp4", "a_left.mp4"), "a_left"),
        (("a.mp4", "a_right/x.jpg"), "a_right"),
        (("a/x.jpg", "a_face2.mp4"), "a_face2"),
        (("a.mp4", "a_face2.mp4", "a_lefty.mp4"), None),
        (("a/x.jpg", "a_left.mp4"), None),
        (("a_left.mp4", "a_right.mp4"), None),
    ],
)
def test_names_that_a_person_may_get(tmp_path, names, clash):
    """Else the crops of one source would replace those of the other."""
    for name in names:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    if clash is None:
        assert len(find_sources(tmp_path)) == len(names)
    else:
        with pytest.raises(UserError, match=f"would get the name {clash}, which a person"):
            find_sources(tmp_path)


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
    assert [name for name in folders if photos.owns(name)] == ["faces", "faces_face2"]
    assert [name for name in folders if video.owns(name)] == ["talk", "talk_left"]
    assert [photos.person(place, 2) for place in range(2)] == ["faces", "faces_face2"]
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
        "people": [{"video": "-clip", "rows": [row], "gaps": [[2, 2, "no face"]]}],
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
