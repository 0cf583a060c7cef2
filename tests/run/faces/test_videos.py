"""`run.py prepare --videos` as a user runs it."""

import csv
import os
import sys

import camera_frames
import numpy as np
import pytest
import small_videos
from PIL import Image

from data_pipeline.formats import test_list
from mtl_face.cli import main
from mtl_face.faces import extract


@pytest.fixture
def videos(tmp_path):
    folder = tmp_path / "videos"
    folder.mkdir()
    picture, _ = camera_frames.head(4, size=240, eyes_px=48)
    small_videos.write(folder / "solo.mp4", [picture] * 4)
    return folder


def run(capsys, *words):
    status = main.main(["prepare", *words])
    captured = capsys.readouterr()
    return status, captured.out, captured.err


def test_crops_and_again(videos, tmp_path, capsys):
    output = tmp_path / "out"
    words = (f"--videos={videos}", f"--output={output}")
    status, out, err = run(capsys, *words)
    assert (status, err) == (0, "")
    assert "solo.mp4: 4 frames; crops: solo 4" in out
    assert "4 of 4 frames" in out
    assert f"4 crops: {output / 'cropped_aligned'}" in out
    assert "python run.py predict --model=RUN --test_list=" in out
    before = (output / "cropped_aligned/solo/00001.jpg").stat().st_mtime_ns
    status, out, _ = run(capsys, *words)
    assert status == 0
    assert "finished before and left alone: 1 of 1" in out
    assert "4 crops" in out
    assert (output / "cropped_aligned/solo/00001.jpg").stat().st_mtime_ns == before


def test_a_damaged_video_is_named_and_the_rest_is_done(videos, tmp_path, capsys):
    (videos / "bad.mp4").write_bytes(b"x" * 1000)
    output = tmp_path / "out"
    status, out, err = run(capsys, f"--videos={videos}", f"--output={output}")
    assert status == 2
    assert "sources that cannot be read: 1 (crops of the others: 4)" in err
    assert f"{videos / 'bad.mp4'}: this is no video" in err
    assert "solo.mp4: 4 frames" in out
    assert (output / "test_list.txt").read_text().splitlines()[1] == "solo/00001.jpg"


def test_no_face_at_all(tmp_path, capsys):
    path = small_videos.write(tmp_path / "grey.mp4", small_videos.grey_steps(3))
    status, out, err = run(capsys, f"--videos={path}", f"--output={tmp_path / 'out'}")
    assert status == 2
    assert "crops: none, no face" in out
    assert "no face was found in any frame" in err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--videos=x.mp4"], "--videos needs --output"),
        (["--videos=x.mp4", "--output=o", "--audit"], "goes with --output and --min_face alone"),
        (["--config=configs/rendered_faces.py", "--min_face=20"], "--min_face goes with --videos"),
        (["--videos=x.mp4", "--output=o", "--shards=s"], "goes with --output and --min_face alone"),
        (
            ["--videos=x.mp4", "--output=o", "--config=configs/rendered_faces.py"],
            "goes with --output and --min_face alone",
        ),
        (["--videos=x.mp4", "--output=o"], "x.mp4: the video, photo or folder does not exist"),
    ],
)
def test_wrong_words(words, message, capsys, tmp_path, monkeypatch):
    if "--config" not in " ".join(words):
        monkeypatch.chdir(tmp_path)
    status, _, err = run(capsys, *words)
    assert status == 2
    assert message in err
    assert not (tmp_path / "o").exists()


@pytest.mark.usefixtures("shared_programs")
def test_names_that_are_no_text_and_files_left_aside(videos, tmp_path, capsys):
    """A name that is not UTF-8 once lost the lists of all videos, at the end."""
    odd = os.fsdecode(b"caf\xe9")
    (videos / odd).mkdir()
    (videos / odd / "solo.mp4").symlink_to(videos / "solo.mp4")
    (videos / "bad.mp4").write_bytes(b"x" * 1000)
    (videos / "IMG_1.cr2").write_bytes(b"")
    output = tmp_path / "out"
    status, out, err = run(capsys, f"--videos={videos}", f"--output={output}")
    assert status == 2
    assert "sources that cannot be read: 1 (crops of the others: 8)" in err
    assert "left aside: .cr2 1\n  .cr2: convert to JPEG or PNG" in out
    assert r"caf\udce9/solo.mp4: 4 frames; crops: caf__solo 4" in out
    with (output / "manifest.csv").open(encoding="utf-8") as file:
        sources = {row["video"]: row["source"] for row in csv.DictReader(file)}
    assert sources == {"caf__solo": r"caf\udce9/solo.mp4", "solo": "solo.mp4"}


def test_photos_in_a_table_of_predictions_have_their_names(tmp_path, capsys):
    folder = tmp_path / "family"
    folder.mkdir()
    picture, _ = camera_frames.head(4, size=240, eyes_px=48)
    Image.fromarray(picture).save(folder / "IMG_0042.png")
    (folder / "IMG_0043.png").write_bytes(b"")
    status, out, err = run(capsys, f"--videos={folder}", f"--output={tmp_path / 'out'}")
    assert status == 2
    assert "photos that cannot be read: 1 (crops of the others: 1)" in err
    assert "family: photos 2, with a face 1; crops 1" in out
    assert "IMG_0043.png: the file is empty" in out
    table = test_list.load_test_list(tmp_path / "out/test_list.txt", tmp_path)
    assert list(table.video) == ["family/IMG_0042.png"]
    assert list(table.image) == ["family/IMG_0042.png/00001.jpg"]


def test_no_photo_that_can_be_read(tmp_path, capsys):
    (tmp_path / "a.png").write_bytes(b"")
    status, out, err = run(capsys, f"--videos={tmp_path / 'a.png'}", f"--output={tmp_path / 'out'}")
    assert status == 2
    assert "the file is empty" in out
    assert "no frame and no photo can be decoded" in err


def test_a_defect_is_raised_when_the_others_are_done(videos, tmp_path, capsys, monkeypatch):
    small_videos.write(videos / "a.mp4", small_videos.grey_steps(3))
    cut = extract._extract_video

    def fail_once(source, *others):
        if source.name == "a":
            raise KeyError("x")
        return cut(source, *others)

    monkeypatch.setattr(extract, "_extract_video", fail_once)
    monkeypatch.setattr(os, "cpu_count", lambda: 1)
    with pytest.raises(RuntimeError, match=r"a\.mp4; the others are done") as caught:
        run(capsys, f"--videos={videos}", f"--output={tmp_path / 'out'}")
    assert isinstance(caught.value.__cause__, KeyError)
    assert len((tmp_path / "out/test_list.txt").read_text().splitlines()) == 5


def test_without_the_extra(videos, tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "av", None)
    status, _, err = run(capsys, f"--videos={videos}", f"--output={tmp_path / 'out'}")
    assert status == 2
    assert "mtl_face[video]" in err


def test_people_side_by_side(tmp_path, capsys):
    path = small_videos.write(tmp_path / "talk.mp4", small_videos.two_people(3))
    status, out, _ = run(capsys, f"--videos={path}", f"--output={tmp_path / 'out'}")
    assert status == 0
    assert "crops: talk_left 3, talk_right 3" in out
    assert np.isin(
        ["talk_left", "talk_right"],
        [folder.name for folder in (tmp_path / "out/cropped_aligned").iterdir()],
    ).all()
