from pathlib import Path

import pytest

from data_pipeline.formats.layouts import frames
from data_pipeline.formats.layouts.layout import Place
from data_pipeline.formats.user_files import Columns, FaultList
from mtl_face.config.schema import ManifestConfig
from mtl_face.errors import AnnotationError, ConfigError


def test_patterns_of_images():
    assert frames.fill("{video}/{frame:05}.jpg", "P1/a", 7) == "P1/a/00007.jpg"
    assert frames.fill("{frame}.png", "a", 7) == "7.png"
    assert frames.fill("{video}_aligned/d_{face:02}_{frame:06}.bmp", "a", 7, 1) == (
        "a_aligned/d_01_000007.bmp"
    )
    assert frames.fill("{video}.jpg", "a", 7) == "a.jpg"
    for pattern in ("{frame.__class__}", "{0}/{frame}", "{frame}}", "{frame:>5}"):
        with pytest.raises(ConfigError, match="image_pattern"):
            frames.fill(pattern, "a", 7)


def place(**settings):
    return Place(Path("/l.csv"), "train", ManifestConfig(**settings), Path("/images"))


FACES = frames.Faces(["a", "a", "a"], [1, 1, 2], [0, 1, 0], [0.5, 0.9, 0.1])


def test_one_face_a_frame():
    rows, cells, remarks = frames.put_in_frames(place(), FACES, frames.CROPS)
    assert remarks == ("images are taken by data.manifest.image_pattern={video}/{frame:05}.jpg",)
    assert rows == [1, 2]  # the surer one of the first frame
    assert cells["image"] == ["a/00001.jpg", "a/00001.jpg", "a/00002.jpg"]
    assert cells["video"] == ["a", "a", "a"]


def test_a_pattern_with_the_face_keeps_all():
    rows, cells, _ = frames.put_in_frames(
        place(image_pattern="{video}/{face}_{frame}.jpg"), FACES, ""
    )
    assert rows == [0, 1, 2]
    assert cells["image"] == ["a/0_1.jpg", "a/1_1.jpg", "a/0_2.jpg"]
    assert cells["video"] == ["a_face0", "a_face1", "a_face0"]


def test_folders_of_crops_as_prepare_calls_them(tmp_path):
    def videos(*names):
        where = Place(tmp_path / "labels.csv", "train", ManifestConfig(), tmp_path)
        found = frames.Faces(names, [1] * len(names), [0] * len(names), [1] * len(names))
        return frames.put_in_frames(where, found, frames.CROPS).cells["video"]

    for name in ("my_talk", "P01_trial1", "trial2", "P02"):
        (tmp_path / name).mkdir()
    assert videos("P01/my talk", "P01/trial1") == ["my_talk", "P01_trial1"]
    assert videos("P01/trial2") == ["trial2"]
    # One of two videos that are called alike may have no crops: those of the other are not its own.
    assert videos("P01/trial2", "P02/trial2") == ["P01/trial2", "P02/trial2"]


def test_names_of_videos():
    def videos(*paths):
        faults = FaultList("list.csv")
        found = frames.videos_of(paths, [2, 3], faults)
        faults.raise_if_any()
        return found

    assert videos("/x/y/talk.mp4", "/x/y/talk.mp4") == ["talk", "talk"]
    assert videos("C:\\x\\P1\\a.mp4", "C:\\x\\P2\\a.mp4") == ["P1/a", "P2/a"]
    assert videos("../v/a.b.mp4", "../v/c.mp4") == ["a.b", "c"]
    for nothing in ("", ".", "/", "..", "a/.."):
        with pytest.raises(AnnotationError, match="names no video") as caught:
            videos("a.mp4", nothing)
        assert caught.value.line == 3


def test_one_face_a_photo():
    rows, cells, _ = frames.put_in_photos(["x/a.jpg", "b.jpg", "x/a.jpg"], [0.5, 0.1, 0.9])
    assert rows == [1, 2]
    assert cells["video"] == ["x/a", "b", "x/a"]


def test_a_pattern_without_the_frame_is_refused():
    with pytest.raises(ConfigError, match="one image to several frames"):
        frames.put_in_frames(place(image_pattern="{video}.jpg"), FACES, "")


def test_paths_of_another_machine():
    root = Path("/data/images")
    assert frames.below(["/data/images/x/a.jpg", "/data/images/b.jpg"], root) == [
        "x/a.jpg",
        "b.jpg",
    ]
    assert frames.below(["/home/me/p/x/a.jpg", "/home/me/p/y/a.jpg"], root) == [
        "x/a.jpg",
        "y/a.jpg",
    ]
    assert frames.below(["C:\\p\\a.jpg", "C:\\p\\b.jpg"], root) == ["a.jpg", "b.jpg"]
    assert frames.below(["x/a.jpg", "/etc/b.jpg"], root) == ["x/a.jpg", "/etc/b.jpg"]


def test_whole_numbers():
    columns = Columns({"frame": [" 3", "4.0", "", "1.5", "-1"]}, [], [2, 3, 4, 5, 6])
    faults = FaultList("l.csv")
    assert frames.whole_numbers("frame", columns, faults) == [3, 4, 0, 0, 0]
    with pytest.raises(AnnotationError, match=r"frame is '1\.5'") as caught:
        faults.raise_if_any()
    assert caught.value.line == 5
    assert "line 6: frame is '-1'" in caught.value.problem
