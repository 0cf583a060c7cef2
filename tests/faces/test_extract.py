"""From videos and photos to crops, records and lists."""

import csv
import errno
from pathlib import Path

import abrupt_end
import camera_frames
import numpy as np
import pytest
import small_videos
from PIL import Image

from benchmarks import heads
from data_pipeline.formats import s_aff_wild2
from mtl_face.errors import ImageError, WorkdirError
from mtl_face.faces import extract as extract_module
from mtl_face.faces import layout
from mtl_face.faces.detect import FaceFinder
from mtl_face.faces.extract import extract_all
from mtl_face.faces.layout import Source, find_sources
from mtl_face.faces.video import VideoError

FETCH = "copy or download it again"


@pytest.fixture(scope="module")
def detector():
    return FaceFinder()


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
    sources = find_sources(path).sources
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
    (source,) = find_sources(videos / "talk.mp4").sources
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
    (source,) = find_sources(videos / "talk.mp4").sources
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


@pytest.mark.usefixtures("shared_programs")
def test_in_two_processes_as_in_one(videos, tmp_path, detector):
    run(videos, tmp_path / "one", detector)
    sources = find_sources(videos).sources
    output = layout.open_output(tmp_path / "two")
    seen = []
    outcomes = extract_all(sources, output, workers=2, progress=lambda *counts: seen.append(counts))
    assert [outcome["name"] for outcome in outcomes] == [source.name for source in sources]
    assert seen[-1] == (24, 24)
    assert files(output) == files(tmp_path / "one")
    for name in files(output):
        one, two = (
            np.asarray(Image.open(folder / layout.CROPS / name)).astype(int)
            for folder in (tmp_path / "one", output)
        )
        assert np.abs(one - two).mean() < 0.5


@pytest.mark.usefixtures("shared_programs")
def test_a_source_that_ends_its_process_does_not_end_the_others(videos, tmp_path, monkeypatch):
    folder = tmp_path / "in"
    folder.mkdir()
    for name in ("a", "b", "deadly", "z"):
        (folder / f"{name}.mp4").symlink_to(videos / "empty.mp4")
    sources = find_sources(folder).sources
    output = layout.open_output(tmp_path / "out")
    monkeypatch.setattr(extract_module, "_work", abrupt_end.work)
    outcomes = extract_all(sources, output, workers=2, progress=lambda *counts: None)
    assert [isinstance(outcome, dict) for outcome in outcomes] == [True, True, False, True]
    assert isinstance(outcomes[2], VideoError)
    assert "ended by the system" in outcomes[2].problem
    assert outcomes[2].path == str(folder / "deadly.mp4")
    assert not list(output.glob(".partial*"))


@pytest.mark.parametrize("error", [ImageError("gone"), RuntimeError("a defect"), KeyError("x")])
def test_no_error_of_one_source_ends_the_others(videos, tmp_path, detector, monkeypatch, error):
    sources = [Source(name, videos / "empty.mp4") for name in ("a", "b")]
    output = layout.open_output(tmp_path)
    cut = extract_module._extract_video

    def fail_once(source, *others):
        if source.name == "a":
            raise error
        return cut(source, *others)

    monkeypatch.setattr(extract_module, "_extract_video", fail_once)
    outcomes = extract_all(
        sources, output, workers=1, progress=lambda *counts: None, detector=detector
    )
    assert outcomes[0] is error
    assert outcomes[1]["frames"] == 5


def test_a_file_that_went_away(videos, tmp_path, detector):
    gone = Source("gone", tmp_path / "gone.jpg", (tmp_path / "gone.jpg",))
    sources = [gone, Source("empty", videos / "empty.mp4")]
    output = layout.open_output(tmp_path / "out")
    assert layout.read_record(output, gone) is None
    outcomes = extract_all(
        sources, output, workers=1, progress=lambda *counts: None, detector=detector
    )
    assert isinstance(outcomes[0], ImageError)
    assert "does not exist" in outcomes[0].problem
    assert outcomes[1]["frames"] == 5


def test_a_full_disk_ends_all(videos, tmp_path, detector, monkeypatch):
    def full(*arguments, **options):
        raise OSError(errno.ENOSPC, "No space left on device", str(tmp_path))

    monkeypatch.setattr(Image.Image, "save", full)
    with pytest.raises(WorkdirError, match="No space left"):
        run(videos, tmp_path, detector)


@pytest.fixture(scope="module")
def face():
    return camera_frames.head(4, size=240, eyes_px=48)[0]


def test_photos(tmp_path, detector, face):
    folder = tmp_path / "family, 2026"
    (folder / "more").mkdir(parents=True)
    (both, *_) = small_videos.two_people(1)
    Image.fromarray(both).save(folder / "a.png")
    Image.fromarray(np.full((50, 50, 3), 9, np.uint8)).save(folder / "b.jpg")
    turned = Image.fromarray(np.ascontiguousarray(np.rot90(face)))
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned clockwise by a quarter
    turned.save(folder / "c 1.jpg", exif=exif, quality=95)
    (folder / "d.jpg").write_bytes(b"no photo")
    (folder / ".hidden.jpg").write_bytes(b"")
    Image.fromarray(face).convert("L").save(folder / "more/e.jpeg")
    output = tmp_path / "out"
    outcomes, _ = run(folder, output, detector)
    assert files(output) == [
        "family_2026/a.png/00001.jpg",
        "family_2026/a.png_face2/00001.jpg",
        "family_2026/c 1.jpg/00001.jpg",
        "more/e.jpeg/00001.jpg",
    ]
    record = outcomes["family_2026"]
    assert (record["frames"], record["decoded"], record["damaged"]) == (4, 3, 1)
    assert record["notes"] == ["d.jpg: this is a text file, not an image -> " + FETCH]
    people = {person["video"]: person for person in record["people"]}
    assert people["family_2026/b.jpg"]["gaps"] == [(1, 1, "no face")]
    assert people["family_2026/d.jpg"]["gaps"][0][2].startswith("unreadable: this is a text")
    (row,) = people["family_2026/c 1.jpg"]["rows"]  # it was turned before it was searched
    (left_x, left_y), (right_x, right_y) = row["landmarks"][:2]
    assert abs(right_y - left_y) < 0.2 * (right_x - left_x)
    upright = np.asarray(Image.open(output / layout.CROPS / files(output)[2]).convert("L"))
    same = np.asarray(Image.open(output / layout.CROPS / files(output)[3]).convert("L"))
    assert np.abs(upright.astype(int) - same).mean() < 6

    layout.write_lists(output, outcomes.values())
    table = s_aff_wild2.read_test_list(output / layout.TEST_LIST, image_root=output / layout.CROPS)
    assert sorted(zip(table.video, table.frame, strict=True)) == [
        ("family_2026/a.png", 1),
        ("family_2026/a.png_face2", 1),
        ("family_2026/c 1.jpg", 1),
        ("more/e.jpeg", 1),
    ]
    assert all(Path(path).is_file() for path in table.paths())
    with (output / layout.MANIFEST).open() as file:
        sources = {row["image"]: row["source"] for row in csv.DictReader(file)}
    assert sources["family_2026/c 1.jpg/00001.jpg"] == "c 1.jpg"
    assert sources["more/e.jpeg/00001.jpg"] == "more/e.jpeg"
    with (output / layout.GAPS).open() as file:
        gaps = {row["video"]: row["source"] for row in csv.DictReader(file)}
    assert gaps == {"family_2026/b.jpg": "b.jpg", "family_2026/d.jpg": "d.jpg"}


def test_small_faces_of_photos_and_of_videos(tmp_path):
    """In photos from 40 pixels of height on; in both where they are asked for."""
    canvas = heads.background(2, 960, 540)
    heads.cut_out(2).resized(100).put_on(canvas, 600, 200)  # a face of 50 pixels
    folder = tmp_path / "in"
    folder.mkdir()
    Image.fromarray(canvas).save(folder / "small.png")
    small_videos.write(folder / "talk.mp4", [canvas])
    sources = find_sources(folder).sources
    for name, min_face, expected in (
        ("a", None, ["small.png"]),
        ("b", 40, ["small.png", "talk"]),
        ("c", 80, []),
    ):
        output = layout.open_output(tmp_path / name)
        extract_all(sources, output, workers=1, progress=lambda *counts: None, min_face=min_face)
        assert sorted(file.split("/")[-2] for file in files(output)) == expected


def test_another_photo_does_not_rename_the_others(tmp_path, detector, face):
    folder, output = tmp_path / "in", tmp_path / "out"
    folder.mkdir()
    Image.fromarray(face).save(folder / "m.png")
    run(folder, output, detector)
    before = {name: (output / layout.CROPS / name).read_bytes() for name in files(output)}
    (source,) = find_sources(folder).sources
    assert layout.read_record(output, source)["frames"] == 1
    Image.fromarray(face[:, ::-1]).save(folder / "a.png")
    assert layout.read_record(output, find_sources(folder).sources[0]) is None
    run(folder, output, detector)
    assert files(output) == ["in/a.png/00001.jpg", "in/m.png/00001.jpg"]
    for name, content in before.items():
        assert (output / layout.CROPS / name).read_bytes() == content


def test_deep_and_odd_photos(tmp_path, detector, face):
    """16 bits and floats have the greys of 8 bits; of an animation the first picture is taken."""
    folder, output = tmp_path / "in", tmp_path / "out"
    folder.mkdir()
    grey = np.asarray(Image.fromarray(face).convert("L"))
    Image.fromarray(grey).save(folder / "a.png")
    Image.fromarray(grey.astype(np.uint16) * 257).save(folder / "b.png")
    Image.fromarray((grey / 255).astype(np.float32)).save(folder / "c.tif")
    Image.fromarray(grey).save(
        folder / "d.tif", save_all=True, append_images=[Image.fromarray(255 - grey)]
    )
    Image.fromarray(grey * np.float32(1.5)).save(folder / "e.tif")
    Image.new("L", (1, 1)).save(folder / "f.png")
    outcomes, _ = run(folder, output, detector)
    crops = [(output / layout.CROPS / name).read_bytes() for name in files(output)]
    assert len(crops) == 4
    assert len(set(crops)) == 1
    first, unknown = outcomes["in"]["notes"]
    assert first == "d.tif: holds several pictures, of which the first was searched"
    assert "which one is white is unknown" in unknown
