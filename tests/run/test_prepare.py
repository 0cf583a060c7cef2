"""`run.py prepare` as a user runs it: checking, auditing, writing shards."""

import dataclasses
import errno
import itertools
import json
import shutil
from html.parser import HTMLParser
from pathlib import Path

import jax
import numpy as np
import pytest
import small_dataset
import small_experiment
from PIL import Image

from data_pipeline import images
from data_pipeline import input as data_input
from mtl_face import config as config_lib
from mtl_face.cli import main
from mtl_face.errors import ConfigError
from mtl_face.run import datasets
from mtl_face.run.inputs.pixels import find_pixels
from mtl_face.run.rows import Rows


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


@pytest.mark.filterwarnings("error")
def test_audit_writes_a_report(experiment, capsys):
    status, out, err = experiment.run(capsys, "prepare", "--audit")
    assert (status, err) == (0, "")
    folder = experiment.data / "audit"
    assert f"report: {folder / 'audit.html'}" in out
    assert "next: python run.py train with this --config and --workdir=DIR" in out
    assert "next: " in out
    assert "59 of 59 images" in out
    report = json.loads((folder / "audit.json").read_text())
    assert report["splits"]["train"]["counts"]["rows"] == 40
    assert {video["dataset"] for video in report["splits"]["train"]["gaps"]} == {"data"}
    assert "Audit of data" in (folder / "audit.html").read_text()
    for finding in report["findings"]:
        assert f"{finding['severity']}: {finding['what']}" in out
    page = Page((folder / "audit.html").read_text())
    assert all(place.startswith(("#", "data:image/jpeg;base64,")) for place in page.loads)
    for finding in report["findings"]:
        assert finding["what"] in page.words


@pytest.mark.filterwarnings("error")
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
    assert "--output goes with --audit, --videos or --from" in err
    for words in (
        ["--audit", "--shards=x"],
        ["--audit", "--num_videos=4"],
        ["--shards=x", "--output=x"],
    ):
        status, _, err = experiment.run(capsys, "prepare", *words)
        assert status == 2
        assert words[0] in err or words[1].split("=")[0] in err


def test_images_of_fer2013(tmp_path, capsys):
    source, output = tmp_path / "fer2013.csv", tmp_path / "new"
    pixels = " ".join(["7"] * 64)
    rows = [f"3,{pixels},{usage}" for usage in ("Training", "PublicTest", "PrivateTest")]
    source.write_text("\n".join(["emotion,pixels,Usage", *rows]))
    command = ["prepare", "--from=fer2013", f"--source={source}", f"--output={output}"]
    assert main.main(command) == 0
    out = capsys.readouterr().out
    assert "3 of 3 images" in out
    assert f"--config.data.kind=manifest --config.data.root={output}" in out
    data = config_lib.DataConfig(kind="manifest", root=str(output))
    table = datasets.load_split(data, "train", lambda line: None)
    assert (list(table.image), list(table.expression)) == (["FER2013Train/00000.png"], [4])
    assert main.main(command) == 2
    assert "not an empty folder" in capsys.readouterr().err


def test_flags_of_images_go_together(tmp_path, capsys):
    for words, message in (
        (["--from=fer2013"], "--from, --source and --output go together"),
        (["--source=x", "--output=y"], "--from, --source and --output go together"),
        (["--from=ferplus", "--source=x", "--output=y", "--audit"], "goes with --source, --images"),
        (
            ["--videos=v", "--output=y", "--from=fer2013"],
            "--videos goes with --output and --min_face alone",
        ),
        (["--from=ferplus", f"--source={tmp_path}", "--output=y"], "fer2013.csv: the file does"),
        (["--from=affectnet", "--source=x", "--output=y"], "--from=affectnet and --images"),
        (["--from=fer2013", "--source=x", "--images=z", "--output=y"], "--images go together"),
        (["--images=x"], "--from, --source and --output go together"),
    ):
        assert main.main(["prepare", *words]) == 2
        assert message in capsys.readouterr().err


def test_audit_of_a_folder_that_is_not_there(experiment, capsys, tmp_path):
    config = experiment.config
    status = main.main(
        ["prepare", "--audit", f"--config={config}", f"--config.data.root={tmp_path / 'gone'}"]
    )
    assert status == 2
    assert "does not exist" in capsys.readouterr().err
    assert not (tmp_path / "gone").exists()


@pytest.mark.filterwarnings("error")
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


def first_batches(config):
    table, rows = datasets.load_training(config.data, seed=0, say=print)
    data = find_pixels(config, table, print, split="train")
    stream = data_input.train_batches(
        table, batch_size=8, image_size=32, rows=rows, source=data.source
    )
    validation = datasets.load_split(config.data, "validation", print)
    scored = find_pixels(config, validation, print)
    evaluated = data_input.eval_batches(
        validation, batch_size=8, image_size=32, source=scored.source
    )
    return list(itertools.islice(stream, 9)), list(evaluated)


def rows_of(config):
    """What a checkpoint keeps of the rows."""
    table, _ = datasets.load_training(config.data, seed=0, say=print)
    validation = datasets.load_split(config.data, "validation", print)
    return Rows.of({"train": table, "validation": validation}).metadata


@pytest.mark.parametrize("mixture", [False, True])
def test_shards_take_the_place_of_the_data(experiment, tmp_path, capsys, mixture):
    given = []
    if mixture:
        small_dataset.write(tmp_path / "other", seed=1, rows={"training": 25})
        given = [
            f"data.mixture.main.root={experiment.data}",
            f"data.mixture.other.root={tmp_path / 'other'}",
            "data.mixture.other.weight=2.0",
            "data.mixture.other.tasks=au",
            "data.validation=main",
        ]
    status, out, err = experiment.run(
        capsys, "prepare", f"--shards={tmp_path / 'shards'}", *(f"--config.{g}" for g in given)
    )
    assert status == 0, err
    assert f"wrote {84 if mixture else 59} records" in out
    assert f"--config.data.shards={tmp_path / 'shards' / 'face_frames' / 'table'}" in out
    files = config_lib.load(experiment.config, [f"data.root={experiment.data}", *given])
    shards = config_lib.load(experiment.config, [f"data.shards={tmp_path / 'shards'}", *given])
    for expected, found in zip(first_batches(files), first_batches(shards), strict=True):
        for one, other in zip(jax.tree.leaves(expected), jax.tree.leaves(found), strict=True):
            np.testing.assert_array_equal(one, other)
    assert rows_of(shards) == rows_of(files)  # so that a run goes on with either
    status, _, err = experiment.run(capsys, "prepare", f"--shards={tmp_path / 'shards'}")
    assert status == 2
    assert "exists already" in err
    if mixture:  # a record is found by its place: less or other data sets would move them all
        for name in ("main", "zzz"):
            other = [g.replace("mixture.other", f"mixture.{name}") for g in given]
            changed = config_lib.load(
                experiment.config, [f"data.shards={tmp_path / 'shards'}", *other]
            )
            with pytest.raises(ConfigError, match="hold the data sets main, other"):
                datasets.load_training(changed.data, seed=0, say=print)
        moved = [g.replace("validation=main", "validation=other") for g in given]
        changed = config_lib.load(experiment.config, [f"data.shards={tmp_path / 'shards'}", *moved])
        with pytest.raises(ConfigError, match=r"hold the data sets main, data\.validation names"):
            datasets.load_split(changed.data, "validation", print)


def test_a_damaged_image_is_no_record(experiment, tmp_path, capsys):
    image = next((experiment.data / "cropped_aligned").rglob("*.jpg"))
    image.write_bytes(image.read_bytes()[:200])
    status, _, err = experiment.run(capsys, "prepare", f"--shards={tmp_path / 'shards'}")
    assert status == 2
    assert "image files of the train" in err or "image files of the validation" in err
    assert str(image) in err
    assert not (tmp_path / "shards").exists()


def test_a_table_beside_shards_of_another_writing(experiment, tmp_path, capsys):
    assert experiment.run(capsys, "prepare", f"--shards={tmp_path / 'shards'}")[0] == 0
    (folder,) = (tmp_path / "shards/face_frames/table").iterdir()
    (folder / "frames-train.parquet").write_bytes(
        (folder / "frames-validation.parquet").read_bytes()
    )
    shards = config_lib.load(experiment.config, [f"data.shards={folder}"])
    table, _ = datasets.load_training(shards.data, seed=0, say=print)
    with pytest.raises(ConfigError, match=r"records, their table has \d+ rows") as caught:
        find_pixels(shards, table, print, split="train")
    assert str(folder) in str(caught.value)


def test_a_folder_that_cannot_be_made(experiment, tmp_path, capsys):
    (tmp_path / "file").write_text("")
    status, _, err = experiment.run(capsys, "prepare", f"--shards={tmp_path / 'file'}")
    assert status == 2
    assert "cannot be written" in err


def test_an_audit_says_how_to_write_elsewhere(experiment, capsys, monkeypatch):
    make = Path.mkdir

    def refuse(path, *arguments, **options):
        if path == experiment.data / "audit":
            raise OSError(errno.EROFS, "")
        make(path, *arguments, **options)

    monkeypatch.setattr(Path, "mkdir", refuse)
    status, _, err = experiment.run(capsys, "prepare", "--audit")
    assert status == 2
    assert f"{experiment.data / 'audit'}: cannot be written (Read-only file system)" in err
    assert "choose another output (--output)" in err


@pytest.mark.parametrize("audit", [[], ["--audit"]])
def test_what_is_looked_at_beside_shards(experiment, tmp_path, capsys, audit):
    shards = f"--config.data.shards={tmp_path / 'gone'}"
    status, out, err = experiment.run(capsys, "prepare", *audit, shards)
    assert (status, err) == (0, "")
    assert "is not read: this command reads the annotations and image files" in out
    assert "59 of 59 images" in out if audit else str(experiment.data) in out
    status = main.main(["prepare", *audit, f"--config={experiment.config}", shards])
    assert status == 2
    assert "data.root is not set" in capsys.readouterr().err


def test_beam_is_named_where_it_is_absent(experiment, tmp_path, capsys):
    status, _, err = experiment.run(capsys, "prepare", "--beam=--runner=DirectRunner")
    assert status == 2
    assert "--beam goes with --shards" in err
    try:
        import apache_beam  # noqa: F401
    except ModuleNotFoundError:
        shards = f"--shards={tmp_path / 'shards'}"
        status, _, err = experiment.run(capsys, "prepare", shards, "--beam=--runner=DirectRunner")
        assert status == 2
        assert "not installed" in err


def test_prepare_names_broken_images(experiment, capsys):
    path = experiment.data / "cropped_aligned" / "validation_0" / "00001.jpg"
    path.write_bytes(path.read_bytes()[:100])
    result = experiment.run(capsys, "prepare")
    small_experiment.assert_is_users_error(result, path, "1 image files of the validation set")


@pytest.mark.parametrize("how", ["ignore", "apply"])
def test_images_that_lie_are_reported_and_turned(experiment, capsys, how):
    """As a phone stores them."""
    folder = experiment.data / "cropped_aligned" / "validation_0"
    path = folder / "00001.jpg"
    exif = Image.Exif()
    exif[0x0112] = 6
    with Image.open(path) as image:
        image.load()
        image.save(path, exif=exif, quality=95)
    setting = f"data.exif_orientation={how}"
    status, out, _ = experiment.run(capsys, "prepare", f"--config.{setting}")
    assert status == 0
    words = f"validation: images whose EXIF orientation is not upright: 1, as {path}; "
    assert words + ("they are turned" if how == "apply" else "it is ignored") in out
    config = config_lib.load(experiment.config, [f"data.root={experiment.data}", setting])
    size = config.data.image_size
    for source in ("files", "memory"):
        data = dataclasses.replace(config.data, source=source)
        table = datasets.load_split(data, "validation", print)
        pixels = find_pixels(dataclasses.replace(config, data=data), table, print)
        row = table.paths().index(str(path))
        stored = images.read_image(path, size)
        expected = np.rot90(stored, -1) if how == "apply" else stored
        np.testing.assert_array_equal(pixels.picture(row), expected)
        (batch, *_) = data_input.eval_batches(
            table, batch_size=len(table), image_size=size, source=pixels.source
        )
        np.testing.assert_array_equal(batch["image"][row], expected)


def test_prepare_has_no_workdir(experiment, capsys):
    status, out, err = experiment.run(capsys, "prepare")
    assert (status, err) == (0, "")
    assert "next: python run.py train" in out
