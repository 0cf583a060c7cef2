"""The generated folder: bytes, format, completeness, reuse and refusals."""

import errno
import hashlib
import json
import os
import re
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from data_pipeline.rendered_faces import generate as generate_module
from data_pipeline.rendered_faces.generate import ensure, generate
from mtl_face import locks
from mtl_face.errors import ConfigError, WorkdirError

ARGUMENTS: dict[str, Any] = {"num_videos": 9, "frames_per_video": 5, "seed": 1}
NUMBER = r"-?\d+(?:\.\d+)?(?:e-\d+)?"
ROW = re.compile(rf"([\w-]+)/(\d{{5}})\.jpg,({NUMBER}),({NUMBER}),(-?\d)((?:,-?\d){{12}})")
HEADER = "image,valence,arousal,expression,aus"


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    root = tmp_path_factory.mktemp("rendered") / "deep" / "set"
    return root, generate(root, **ARGUMENTS, workers=1)


def digests(root: Path) -> dict[str, str]:
    return {
        str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(root.rglob("*"))
        if path.is_file()
    }


def rows(path: Path):
    """An independent reading of a label file."""
    text = path.read_text(encoding="ascii")
    assert text.endswith("\n")
    lines = text[:-1].split("\n")
    assert lines[0] == HEADER
    for line in lines[1:]:
        match = ROW.fullmatch(line)
        assert match, line
        video, frame, valence, arousal, expression, units = match.groups()
        yield {
            "image": f"{video}/{frame}.jpg",
            "video": video,
            "frame": int(frame),
            "va": (float(valence), float(arousal)),
            "expr": int(expression),
            "au": [int(unit) for unit in units.split(",")[1:]],
        }


def test_the_default_stays_what_it_was(dataset):
    """All text to the byte, and one picture in 4 x 4 parts: pixels may differ by machine."""
    root, _ = dataset
    text = hashlib.sha256()
    for path in sorted(path for path in root.rglob("*") if path.is_file()):
        if path.suffix != ".jpg":
            text.update(path.read_bytes())
    assert text.hexdigest() == "2a6adfe5e7cc422e8f2e7819f04977b66ea47a1acb0f4bc13177dbe90aa9480d"
    with Image.open(root / "cropped_aligned" / "4" / "00004.jpg") as picture:
        part_44 = np.asarray(picture.convert("L").resize((4, 4), Image.Resampling.BOX), int)
    was_44 = [[84, 74, 98, 109], [102, 132, 147, 120], [126, 136, 155, 132], [131, 110, 134, 132]]
    assert np.abs(part_44 - was_44).max() <= 1


def test_two_workers_write_the_same_bytes_as_one(dataset, tmp_path):
    root, counts = dataset
    done = []
    again = generate(
        tmp_path / "two", **ARGUMENTS, workers=2, progress=lambda *state: done.append(state)
    )
    assert again == counts
    assert digests(tmp_path / "two") == digests(root)
    assert done == [(number, 9) for number in range(1, 10)]


def test_every_line_parses_and_every_image_is_an_aligned_crop(dataset):
    root, counts = dataset
    names = set()
    for split, file in (("train", "training"), ("val", "validation")):
        annotated = list(rows(root / f"{file}_set_annotations.txt"))
        truth = list(rows(root / f"{file}_set_truth.txt"))
        assert [row["image"] for row in annotated] == [row["image"] for row in truth]
        assert len(annotated) == counts[split]["rows"]
        for row in annotated:
            assert row["va"] == (-5, -5) or all(-1 <= value <= 1 for value in row["va"])
            assert -1 <= row["expr"] <= 7
            assert set(row["au"]) == {-1} or set(row["au"]) <= {0, 1}
        has_va = sum(row["va"] != (-5, -5) for row in annotated)
        assert has_va == counts[split]["rows_with_va"]
        assert sum(row["expr"] >= 0 for row in annotated) == counts[split]["rows_with_expr"]
        assert sum(row["au"][0] >= 0 for row in annotated) == counts[split]["rows_with_au"]
        for row in truth:
            assert all(-1 <= value <= 1 for value in row["va"])
            assert 0 <= row["expr"] <= 7
            assert set(row["au"]) <= {0, 1}
        names |= {row["image"] for row in truth}
    test_truth = list(rows(root / "test_set_truth.txt"))
    listed = (root / "MTL_Challenge_test_set_release.txt").read_text().splitlines()
    assert listed[0] == HEADER
    assert listed[1:] == [row["image"] for row in test_truth]
    names |= set(listed[1:])
    folder = root / "cropped_aligned"
    assert names == {str(path.relative_to(folder)) for path in folder.rglob("*.jpg")}
    for name in names:
        with Image.open(folder / name) as picture:
            assert (picture.format, picture.size, picture.mode) == ("JPEG", (112, 112), "RGB")
            assert np.asarray(picture).std() > 10


def test_annotations_differ_from_the_truth_by_noise_only(dataset):
    root, _ = dataset
    for file in ("training", "validation"):
        pairs = zip(
            rows(root / f"{file}_set_annotations.txt"),
            rows(root / f"{file}_set_truth.txt"),
            strict=True,
        )
        for noisy, truth in pairs:
            if noisy["va"] != (-5, -5):
                assert max(abs(np.subtract(noisy["va"], truth["va"]))) < 0.15 * 5
            if noisy["au"][0] >= 0:
                wrong = sum(a != b for a, b in zip(noisy["au"], truth["au"], strict=True))
                assert wrong <= 4


def test_rows_are_sorted_and_duplicates_repeat_a_whole_row(tmp_path, monkeypatch):
    monkeypatch.setattr(generate_module, "_render_all", lambda *arguments: None)
    generate(tmp_path / "set", num_videos=60, frames_per_video=30, seed=0, workers=1)
    read = list(rows(tmp_path / "set" / "training_set_annotations.txt"))
    keys = [(row["video"], row["frame"]) for row in read]
    assert keys == sorted(keys)
    doubled = [index for index in range(1, len(read)) if keys[index] == keys[index - 1]]
    assert len(doubled) / len(read) == pytest.approx(951 / 142_382, abs=0.003)
    assert all(read[index] == read[index - 1] for index in doubled)


def test_description_says_what_is_there(dataset):
    root, counts = dataset
    description = json.loads((root / "dataset.json").read_text())
    assert description["arguments"] == ARGUMENTS
    assert description["counts"] == counts
    assert "no evidence" in description["notice"]
    assert description["noise"] == {
        "va_std": 0.15,
        "au_flip_probability": 0.02,
        "expression_confusion_probability": 0.12,
    }
    folders = {path.name for path in (root / "cropped_aligned").iterdir()}
    assert set(description["videos"]) == folders
    by_identity: dict[int, set[str]] = {}
    for video in description["videos"].values():
        by_identity.setdefault(video["identity"], set()).add(video["split"])
    assert all(len(splits) == 1 for splits in by_identity.values())


def test_an_exception_leaves_nothing_behind(tmp_path):
    class StopError(Exception):
        pass

    def stop(done, total):
        raise StopError

    with pytest.raises(StopError):
        generate(tmp_path / "set", **ARGUMENTS, workers=1, progress=stop)
    assert list(tmp_path.iterdir()) == []


def test_a_killed_generation_never_looks_complete(tmp_path):
    root = tmp_path / "set"
    script = (
        "import os, pathlib, sys\n"
        "from data_pipeline.rendered_faces.generate import generate\n"
        "generate(pathlib.Path(sys.argv[1]), num_videos=3, frames_per_video=2, seed=0, workers=1,\n"
        "         progress=lambda done, total: os._exit(7) if done == 2 else None)\n"
    )
    result = subprocess.run([sys.executable, "-c", script, str(root)], check=False)
    assert result.returncode == 7
    assert not root.exists()
    arguments: dict[str, Any] = {"num_videos": 3, "frames_per_video": 2, "seed": 0}
    assert ensure(root, **arguments, workers=1)["train"]["videos"] == 1
    assert (root / "dataset.json").exists()
    assert list(tmp_path.iterdir()) == [root]  # what the killed one left is gone


def test_the_second_of_two_processes_uses_what_the_first_has_made(tmp_path, monkeypatch):
    monkeypatch.setattr(generate_module, "_render_all", lambda *arguments: None)
    monkeypatch.setattr(locks, "_LOOK", 0.02)
    root, made, said, found = tmp_path / "set", [], [], []
    waits = threading.Event()

    def say(line):
        said.append(line)
        waits.set()

    def counted(*arguments, **options):
        made.append(arguments)
        return generate(*arguments, **options)

    monkeypatch.setattr(generate_module, "generate", counted)
    second = threading.Thread(target=lambda: found.append(ensure(root, **ARGUMENTS, say=say)))
    with locks.hold(tmp_path / ".set.lock", what="", remedy=""):
        second.start()
        assert waits.wait(300)
        counts = generate(root, **ARGUMENTS, workers=1)
    second.join(300)
    assert found == [counts]
    assert made == []
    assert said[0].startswith(f"waiting for process {os.getpid()} on ")
    assert list(tmp_path.iterdir()) == [root]


def test_a_set_that_appeared_during_the_work_is_used(tmp_path, monkeypatch):
    """Of a process that held no lock, as an older version."""
    root, others = tmp_path / "set", []

    def meanwhile(*arguments):
        if not others:
            others.append(None)
            others.append(generate(root, **{**ARGUMENTS, **changes}, workers=1))

    monkeypatch.setattr(generate_module, "_render_all", meanwhile)
    changes: dict[str, Any] = {}
    assert generate(root, **ARGUMENTS, workers=1) == others[1]
    assert list(tmp_path.iterdir()) == [root]
    root, others, changes = tmp_path / "other", [], {"seed": 5}
    with pytest.raises(WorkdirError, match="cannot be written"):
        generate(root, **ARGUMENTS, workers=1)


def test_ensure_reuses_what_matches(dataset, monkeypatch):
    root, counts = dataset
    monkeypatch.setattr(generate_module, "generate", None)
    assert ensure(root, **ARGUMENTS) == counts


def test_ensure_says_what_differs(dataset, monkeypatch):
    root, _ = dataset
    with pytest.raises(WorkdirError, match="seed is 1 there and 2 is asked for") as caught:
        ensure(root, **{**ARGUMENTS, "seed": 2})
    assert "num_videos" not in caught.value.problem
    assert caught.value.path == str(root)
    monkeypatch.setattr(generate_module, "GENERATOR_VERSION", 10_000)
    with pytest.raises(WorkdirError, match="generator_version"):
        ensure(root, **ARGUMENTS)


def test_other_folders_are_left_alone(tmp_path):
    (tmp_path / "mine.txt").write_text("keep")
    for function in (generate, ensure):
        with pytest.raises(WorkdirError, match="holds other files"):
            function(tmp_path, **ARGUMENTS)
    assert (tmp_path / "mine.txt").read_text() == "keep"
    (tmp_path / "dataset.json").write_text("{")
    with pytest.raises(WorkdirError, match="cannot be read"):
        ensure(tmp_path, **ARGUMENTS)


def test_a_place_that_cannot_be_written_is_the_users_error(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(WorkdirError, match="cannot be written") as caught:
        generate(tmp_path / "file" / "set", **ARGUMENTS, workers=1)
    assert caught.value.path is not None
    assert caught.value.path.startswith(str(tmp_path / "file"))
    assert caught.value.remedy


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EROFS, errno.EACCES])
def test_a_full_or_locked_disk_is_the_users_error(tmp_path, monkeypatch, code):
    def refuse(self, content):
        raise OSError(code, os.strerror(code), str(self))

    monkeypatch.setattr(Path, "write_bytes", refuse)
    with pytest.raises(WorkdirError, match=os.strerror(code)):
        generate(tmp_path / "set", **ARGUMENTS, workers=1)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "wrong",
    [
        {"num_videos": 2},
        {"num_videos": 4.5},
        {"frames_per_video": 0},
        {"seed": -1},
        {"seed": True},
        {"workers": 0},
    ],
)
def test_wrong_arguments_are_named(tmp_path, wrong):
    with pytest.raises(ConfigError, match=next(iter(wrong))):
        generate(tmp_path / "set", **{**ARGUMENTS, **wrong})
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("function", ["generate", "ensure"])
def test_a_script_that_its_processes_read_again_is_told_how_to_prevent_that(tmp_path, function):
    """Each process imports the script that started it, and would start to render as well."""
    script = tmp_path / "script.py"
    script.write_text(
        "from pathlib import Path\n"
        "from data_pipeline.rendered_faces import generate\n"
        f"generate.{function}(Path({str(tmp_path / 'faces')!r}), num_videos=3, frames_per_video=2,"
        " seed=0, workers=2)\n"
    )
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, check=False)
    assert done.returncode != 0
    assert 'below `if __name__ == "__main__":`' in done.stderr
    assert not (tmp_path / "faces").exists()
    if function == "ensure":  # those processes are refused before they begin
        assert list(tmp_path.iterdir()) == [script]
