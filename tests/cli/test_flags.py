"""What the texts of flags mean."""

from pathlib import Path

import pytest

from mtl_face.cli import flags, main


def test_windows_in_words():
    assert flags.windows_by_task("30") == {"va": 30, "au": 30, "expr": 30}
    assert flags.windows_by_task("va:10, expr:2.5") == {"va": 10, "expr": 2.5}
    for text in ("", "va", "va:", "va:1,va:2", "1,2", "va:1,2", "faces:3"):
        with pytest.raises(ValueError, match=r"names no task or repeats one|not convert string"):
            flags.windows_by_task(text)


@pytest.mark.parametrize(
    "words",
    [
        ["evaluate", "--model="],
        ["evaluate", "--model= "],
        ["evaluate", "--workdir="],
        ["evaluate", "--params="],
        ["train", "--workdir="],
        ["compare", "a.csv", ""],
        ["smooth", "--predictions=a.csv", "--output="],
        ["prepare", "--videos="],
    ],
)
def test_an_empty_path_is_none(words, capsys):
    with pytest.raises(SystemExit) as raised:
        main.main(words)
    assert raised.value.code == 2
    assert "the path is empty" in capsys.readouterr().err


def test_home_is_meant_by_a_tilde(monkeypatch, tmp_path):
    """A shell leaves it as it is behind an equals sign."""
    monkeypatch.setenv("HOME", str(tmp_path))
    assert flags.new_file("~/faces.csv") == tmp_path / "faces.csv"
    assert flags.named_path("~$faces.csv") == Path("~$faces.csv")  # of no user


@pytest.mark.parametrize(
    "words",
    [["replay", "--dump=4.npz"], ["export"]],
)
def test_a_command_that_needs_a_model(words, capsys):
    with pytest.raises(SystemExit) as raised:
        main.main(words)
    assert raised.value.code == 2
    assert "arguments are required: --model" in capsys.readouterr().err


@pytest.mark.parametrize("text", ["", "small", "0", "-20", "11", "nan", "1e9"])
def test_a_height_that_no_face_has(text, capsys):
    with pytest.raises(SystemExit) as raised:
        main.main(["prepare", "--videos=x.mp4", "--output=o", f"--min_face={text}"])
    assert raised.value.code == 2
    assert "no height of a face in pixels" in capsys.readouterr().err


def test_heights_of_faces():
    assert flags.face_height("20") == 20
    assert flags.face_height("32.5") == 32.5


def test_a_test_list_needs_a_model(capsys):
    """The packaged model is for faces that are found, and no default for a challenge."""
    assert main.main(["predict", "--test_list=x", "--output=x.csv"]) == 2
    assert "no model is named for the test list" in capsys.readouterr().err
