"""From videos and photos to crops, records and lists."""

import csv

import camera_frames
import numpy as np
import pytest
import small_videos
from PIL import Image

from data_pipeline.formats import s_aff_wild2
from mtl_face.faces import layout
from mtl_face.faces.detect import BlazeFaceDetector
from mtl_face.faces.extract import extract_all
from mtl_face.faces.layout import Source, find_sources
from mtl_face.faces.video import VideoError


@pytest.fixture(scope="module")
def detector():
    return BlazeFaceDetector()


@pytest.fixture(scope="module")
def videos(tmp_path_factory):
    folder = tmp_path_factory.mktemp("videos")
    small_videos.write(folder / "talk.mp4", small_videos.two_people(absent=(5, 6)))
    picture, _ = camera_frames.head(4, size=240, eyes_px=48)
    blank = np.full_like(picture, 70)
    small_videos.write(folder / "solo, take 2.mkv", [blank] * 2 + [picture] * 4 + [blank])
    small_videos.write(folder / "empty.mp4", small_videos.grey_steps(5))
    return folder


def run(path, output, detector):
    sources = find_sources(path)
    layout.open_output(output)
    seen = []
    outcomes = extract_all(
        sources, output, workers=1, progress=lambda *counts: seen.append(counts), detector=detector
    )
    assert not list(output.glob(".partial*"))
    return {source.name: one for source, one in zip(sources, outcomes, strict=True)}, seen


def files(output):
    return sorted(
        path.relative_to(output / layout.CROPS).as_posix()
        for path in (output / layout.CROPS).rglob("*")
        if path.is_file()
    )


def test_videos_become_crops(videos, tmp_path, detector):
    outcomes, seen = run(videos, tmp_path, detector)
    assert seen[-1] == (24, 24)
    left = [f"talk_left/{number:05}.jpg" for number in range(1, 13)]
    right = [f"talk_right/{number:05}.jpg" for number in range(1, 13) if number not in (5, 6)]
    solo = [f"solo_take_2/{number:05}.jpg" for number in range(3, 7)]
    assert files(tmp_path) == sorted([*left, *right, *solo])
    for name in files(tmp_path):
        with Image.open(tmp_path / layout.CROPS / name) as crop:
            assert (crop.size, crop.mode, crop.format) == ((112, 112), "RGB", "JPEG")

    talk = outcomes["talk"]
    assert talk["frames"] == 12
    assert talk["ignored_faces"] == 0
    assert talk["people"][1]["gaps"] == [(5, 6, "no face")]
    assert outcomes["solo_take_2"]["people"][0]["gaps"] == [
        (1, 2, "no face"),
        (7, 7, "no face"),
    ]
    assert outcomes["empty"]["people"] == []

    records = list(outcomes.values())
    assert layout.write_lists(tmp_path, records) == 26
    table = s_aff_wild2.read_test_list(
        tmp_path / layout.TEST_LIST, image_root=tmp_path / layout.CROPS
    )
    assert sorted(table.image) == files(tmp_path)
    with (tmp_path / layout.MANIFEST).open() as file:
        rows = list(csv.DictReader(file))
    assert [row["image"] for row in rows] == list(table.image)
    third = next(row for row in rows if row["image"] == "talk_left/00003.jpg")
    assert (third["video"], third["frame"], third["seconds"]) == ("talk_left", "3", "0.08")
    assert third["source"] == "talk.mp4"
    with (tmp_path / layout.GAPS).open() as file:
        gaps = {
            (row["video"], row["first_frame"], row["last_frame"]) for row in csv.DictReader(file)
        }
    assert gaps == {
        ("empty", "1", "5"),
        ("solo_take_2", "1", "2"),
        ("solo_take_2", "7", "7"),
        ("talk_right", "5", "6"),
    }


def test_the_two_people_are_not_mixed_up(videos, tmp_path, detector):
    """The crops of a side resemble each other more than those of the other side."""
    run(videos / "talk.mp4", tmp_path, detector)
    sides = [
        np.stack(
            [
                np.asarray(Image.open(path).convert("L").resize((16, 16))).astype(float)
                for path in sorted((tmp_path / layout.CROPS / name).iterdir())
            ]
        )
        for name in ("talk_left", "talk_right")
    ]
    within = max(np.abs(side - side.mean(axis=0)).mean() for side in sides)
    between = np.abs(sides[0].mean(axis=0) - sides[1].mean(axis=0)).mean()
    assert between > 5 * within


def test_what_is_finished_is_known_and_what_is_half_written_is_not(videos, tmp_path, detector):
    run(videos / "talk.mp4", tmp_path, detector)
    (source,) = find_sources(videos / "talk.mp4")
    assert layout.read_record(tmp_path, source)["frames"] == 12
    crop = tmp_path / layout.CROPS / "talk_left/00003.jpg"
    crop.unlink()
    assert layout.read_record(tmp_path, source) is None
    run(videos / "talk.mp4", tmp_path, detector)
    assert crop.exists()
    moved = tmp_path / "talk.mp4"
    moved.write_bytes((videos / "talk.mp4").read_bytes())
    assert layout.read_record(tmp_path, Source("talk", moved)) is None  # changed at another time
    record = tmp_path / layout.RECORDS / "talk.json"
    record.write_text(record.read_text()[:50])
    assert layout.read_record(tmp_path, source) is None


def test_an_interrupted_video_leaves_nothing_and_is_done_again(videos, tmp_path, detector):
    (source,) = find_sources(videos / "talk.mp4")
    output = layout.open_output(tmp_path)
    stale = output / layout.CROPS / "talk"
    stale.mkdir()
    (stale / "00001.jpg").write_bytes(b"left by an older try")

    def stop(done, total):
        if done == 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        extract_all([source], output, workers=1, progress=stop, detector=detector)
    assert files(output) == ["talk/00001.jpg"]
    assert not list(output.glob(".partial*"))
    assert layout.read_record(output, source) is None
    run(videos / "talk.mp4", tmp_path, detector)
    assert {name.split("/")[0] for name in files(output)} == {"talk_left", "talk_right"}


def test_a_damaged_video_does_not_hold_up_the_others(videos, tmp_path, detector):
    folder = tmp_path / "in"
    folder.mkdir()
    (folder / "broken.mp4").write_bytes(b"nothing of a video" * 50)
    (folder / "talk.mp4").symlink_to(videos / "talk.mp4")
    outcomes, _ = run(folder, tmp_path / "out", detector)
    assert isinstance(outcomes["broken"], VideoError)
    assert outcomes["talk"]["frames"] == 12


def test_in_two_processes_as_in_one(videos, tmp_path, detector):
    run(videos, tmp_path / "one", detector)
    sources = find_sources(videos)
    output = layout.open_output(tmp_path / "two")
    seen = []
    outcomes = extract_all(sources, output, workers=2, progress=lambda *counts: seen.append(counts))
    assert [outcome["name"] for outcome in outcomes] == [source.name for source in sources]
    assert seen[-1] == (24, 24)
    assert files(output) == files(tmp_path / "one")
    for name in files(output):
        assert (output / layout.CROPS / name).read_bytes() == (
            tmp_path / "one" / layout.CROPS / name
        ).read_bytes()


def test_photos(tmp_path, detector):
    folder = tmp_path / "family, 2026"
    folder.mkdir()
    (both, *_) = small_videos.two_people(1)
    picture, _ = camera_frames.head(4, size=240, eyes_px=48)
    Image.fromarray(both).save(folder / "a.png")
    Image.fromarray(np.full((50, 50, 3), 9, np.uint8)).save(folder / "b.jpg")
    turned = Image.fromarray(np.ascontiguousarray(np.rot90(picture)))
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned clockwise by a quarter
    turned.save(folder / "c.jpg", exif=exif, quality=95)
    (folder / "d.jpg").write_bytes(b"no photo")
    (folder / ".hidden.jpg").write_bytes(b"")
    Image.fromarray(picture).convert("L").save(folder / "e.jpeg")
    output = tmp_path / "out"
    outcomes, _ = run(folder, output, detector)
    record = outcomes["family_2026"]
    assert files(output) == [
        "family_2026/00001.jpg",
        "family_2026/00003.jpg",
        "family_2026/00005.jpg",
        "family_2026_face2/00001.jpg",
    ]
    assert [row["source"] for row in record["people"][0]["rows"]] == ["a.png", "c.jpg", "e.jpeg"]
    for row in record["people"][0]["rows"]:  # the turned photo was turned before it was searched
        (left_x, left_y), (right_x, right_y) = row["landmarks"][:2]
        assert abs(right_y - left_y) < 0.2 * (right_x - left_x)
    assert record["people"][0]["gaps"][0] == (2, 2, "no face")
    assert record["people"][0]["gaps"][1][2].startswith("unreadable")
    assert record["damaged"] == 1
    upright = np.asarray(Image.open(output / layout.CROPS / "family_2026/00003.jpg").convert("L"))
    same = np.asarray(Image.open(output / layout.CROPS / "family_2026/00005.jpg").convert("L"))
    assert np.abs(upright.astype(int) - same).mean() < 6
