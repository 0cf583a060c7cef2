"""`run.py prepare --videos` as a user runs it."""

import sys

import camera_frames
import numpy as np
import pytest
import small_videos

from mtl_face.cli import main


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
    assert "python run.py predict --workdir=RUN --test_list=" in out
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
    assert "videos that cannot be read: 1 (crops of the others: 4)" in err
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
        (["--videos=x.mp4", "--output=o", "--audit"], "goes with --output alone"),
        (["--videos=x.mp4", "--output=o", "--shards=s"], "goes with --output alone"),
        (
            ["--videos=x.mp4", "--output=o", "--config=configs/rendered_faces.py"],
            "goes with --output alone",
        ),
        (["--videos=x.mp4", "--output=o"], "x.mp4: does not exist"),
    ],
)
def test_wrong_words(words, message, capsys, tmp_path, monkeypatch):
    if "--config" not in " ".join(words):
        monkeypatch.chdir(tmp_path)
    status, _, err = run(capsys, *words)
    assert status == 2
    assert message in err
    assert not (tmp_path / "o").exists()


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
