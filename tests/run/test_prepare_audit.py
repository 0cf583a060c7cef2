"""`run.py prepare --audit` as a user runs it."""

import json
import shutil
from html.parser import HTMLParser

import pytest
import small_experiment

from mtl_face.cli import main

pytestmark = pytest.mark.filterwarnings("error")


class Page(HTMLParser):
    """Checks that elements close in order, and collects what the page would load."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.loads: list[str] = []
        self.words = ""
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        if tag not in ("meta", "img"):
            self.open.append(tag)
        self.loads += [value for name, value in attributes if name in ("src", "href")]

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.words += data


@pytest.fixture
def experiment(tmp_path):
    return small_experiment.Experiment(tmp_path)


def test_audit_writes_a_report(experiment, capsys):
    status, out, err = experiment.run(capsys, "prepare", "--audit")
    assert (status, err) == (0, "")
    folder = experiment.data / "audit"
    assert f"report: {folder / 'audit.html'}" in out
    assert "next: " in out
    assert "59 of 59 images" in out
    report = json.loads((folder / "audit.json").read_text())
    assert report["splits"]["train"]["counts"]["rows"] == 40
    for finding in report["findings"]:
        assert f"{finding['severity']}: {finding['what']}" in out
    page = Page((folder / "audit.html").read_text())
    assert all(place.startswith(("#", "data:image/jpeg;base64,")) for place in page.loads)
    for finding in report["findings"]:
        assert finding["what"] in page.words


def test_audit_goes_on_over_defects(experiment, capsys, tmp_path):
    images = experiment.data / "cropped_aligned"
    (images / "training_0/00001.jpg").unlink()
    (images / "training_1/00001.jpg").write_bytes(b"<b>no image</b>")
    annotations = experiment.data / "training_set_annotations.txt"
    rows = annotations.read_text().splitlines()
    number = next(
        i for i, row in enumerate(rows) if row.startswith("training_2/") and ",-5" not in row
    )
    first, valence, *others = rows[number].split(",")
    rows.append(",".join([first, str(-float(valence)), *others]))
    annotations.write_text("\n".join(rows) + "\n")
    output = tmp_path / "new" / "place"
    status, out, _ = experiment.run(capsys, "prepare", "--audit", f"--output={output}")
    assert status == 0
    assert "error: train: rows whose image file does not exist: 1" in out
    assert "error: train: image files that cannot be used: 1" in out
    assert "contradict each other: 1" in out
    page = Page((output / "audit.html").read_text())
    assert f"line {len(rows)}: valence" in page.words
    assert not (experiment.data / "audit").exists()


def test_wrong_combinations(experiment, capsys):
    assert main.main(["prepare"]) == 2
    assert "prepare needs --config" in capsys.readouterr().err
    status, _, err = experiment.run(capsys, "prepare", "--output=x")
    assert status == 2
    assert "--output goes with --audit or --videos" in err
    for words in (
        ["--audit", "--shards=x"],
        ["--audit", "--num_videos=4"],
        ["--shards=x", "--output=x"],
    ):
        status, _, err = experiment.run(capsys, "prepare", *words)
        assert status == 2
        assert words[0] in err or words[1].split("=")[0] in err


def test_audit_of_a_folder_that_is_not_there(experiment, capsys, tmp_path):
    config = experiment.config
    status = main.main(
        ["prepare", "--audit", f"--config={config}", f"--config.data.root={tmp_path / 'gone'}"]
    )
    assert status == 2
    assert "does not exist" in capsys.readouterr().err
    assert not (tmp_path / "gone").exists()


def test_every_data_set_of_a_mixture(experiment, capsys, tmp_path):
    """A training set is held against every validation set; one may have no validation split."""
    shutil.copytree(experiment.data, tmp_path / "copy")
    (tmp_path / "copy/validation_set_annotations.txt").unlink()
    rows = (tmp_path / "copy/training_set_annotations.txt").read_text()
    images = tmp_path / "copy/cropped_aligned"
    (images / "training_0").rename(images / "other")
    shutil.copytree(images / "validation_1", images / "training_0")
    rows = (
        rows.replace("training_0/", "other/") + "training_0/00001.jpg,-5,-5,3" + 12 * ",-1" + "\n"
    )
    (tmp_path / "copy/training_set_annotations.txt").write_text(rows)
    mixture = [
        f"--config.data.mixture.main.root={experiment.data}",
        f"--config.data.mixture.other.root={tmp_path / 'copy'}",
        "--config.data.validation=main",
    ]
    words = ["prepare", f"--config={experiment.config}", *mixture]
    assert main.main([*words, "--audit", f"--output={tmp_path / 'out'}"]) == 0
    assert "other: has no validation split" in capsys.readouterr().out
    report = json.loads((tmp_path / "out/audit.json").read_text())
    assert list(report["splits"]) == ["main train", "main validation", "other train"]
    near = {tuple(part["splits"]): part["images"] for part in report["near"]}
    assert list(near) == [("main train", "main validation"), ("other train", "main validation")]
    assert near["other train", "main validation"] > 0
    assert report["shared"]["videos"] == []  # names of two data sets mean nothing to each other

    assert main.main(words) == 0
    out = capsys.readouterr().out
    assert "41 of 41 other train images, " in out
    assert f"all rows and images are sound: {experiment.data}, {tmp_path / 'copy'}" in out
