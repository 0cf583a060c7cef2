"""Rows without an image or that cannot be read, and folders that nothing is written into."""

import csv

import numpy as np
import pytest
from small_experiment import Experiment, assert_is_users_error

from data_pipeline.rendered_faces import generate
from mtl_face import config as config_lib
from mtl_face.cli import flags, main
from mtl_face.errors import AnnotationError, ConfigError, ImageError, UserError
from mtl_face.run import datasets, train
from mtl_face.tasks import EXPRESSION_NAMES

VOTES = (
    "Usage,Image name,neutral,happiness,surprise,sadness,anger,disgust,fear,contempt,unknown,NF\n"
    "Training,fer0000000.png,4,0,0,1,3,2,0,0,0,0\n"
    "Training,fer0000007.png,0,5,5,0,0,0,0,0,0,0\n"
)


@pytest.fixture
def experiment(tmp_path):
    return Experiment(tmp_path)


def test_images_missing(experiment, capsys):
    images = sorted((experiment.data / "cropped_aligned").rglob("*.jpg"))
    gone = [path for path in images if "training_1" in str(path)][:3]
    for path in gone:
        path.unlink()
    for command in ("train", "prepare"):
        result = experiment.run(capsys, command)
        assert_is_users_error(result, gone[0], "and 2 more", "--config.data.missing_images=skip")

    status, out, err = experiment.run(capsys, "prepare", "--config.data.missing_images=skip")
    assert (status, err) == (0, "")
    assert f"train: skipped 3 rows whose image file is missing: {gone[0]}" in out
    assert "train: 37 rows" in out
    assert "validation: 19 rows" in out
    assert "all rows and images are sound" in out


def test_a_root_is_looked_for_from_where_the_command_runs(experiment, capsys, monkeypatch):
    words = ["prepare", f"--config={experiment.config}", "--config.data.root=data"]
    monkeypatch.chdir(experiment.folder)
    assert main.main(words) == 0
    capsys.readouterr()
    monkeypatch.chdir("/")
    status, captured = main.main(words), capsys.readouterr()
    result = status, captured.out, captured.err
    problem = "data: the folder of the data set does not exist, looked for from / on"
    assert_is_users_error(result, problem, "--config.data.root=FOLDER")
    words[-1] = f"--config.data.root={experiment.config}"
    status, captured = main.main(words), capsys.readouterr()
    result = status, captured.out, captured.err
    assert_is_users_error(result, "this is a file, not the folder of a data set")


def test_the_root_of_a_mixtures_data_set_is_named(experiment, tmp_path):
    names = [f"data.mixture.mine.root={tmp_path / 'gone'}", "data.validation=mine"]
    data = config_lib.load(experiment.config, names).data
    with pytest.raises(ConfigError, match="does not exist") as caught:
        datasets.ensure_all(data, print)
    assert "data.mixture.mine.root" in caught.value.remedy


def test_soft_labels_are_for_training_that_asks_for_them(tmp_path):
    """Of FERPlus's own file, and per data set of a mixture."""
    (tmp_path / "votes.csv").write_text(VOTES)
    settings = {
        "kind": "manifest",
        "root": str(tmp_path),
        "train_annotations": "votes.csv",
        "missing_images": "skip",
        "soft_labels": True,
    }
    for name in ("fer0000000.png", "fer0000007.png"):
        image = tmp_path / "cropped_aligned" / "FER2013Train" / name
        image.parent.mkdir(parents=True, exist_ok=True)
        image.write_bytes(b"")
    said = []
    data = config_lib.validate({"data": settings}).data
    table, _ = datasets.load_training(data, seed=0, say=said.append)
    assert list(table.expression) == [0, -1]
    shares = dict(zip(EXPRESSION_NAMES, table.expression_shares()[0].tolist(), strict=True))
    assert {name: share for name, share in shares.items() if share} == pytest.approx(
        {"Neutral": 0.4, "Anger": 0.3, "Disgust": 0.2, "Sadness": 0.1}
    )
    assert table.expression_shares()[1, 4] == 0.5
    assert "soft labels: expressions of 2 rows, action units of 0; 0 rows count less than 1" in said
    hard = config_lib.validate({"data": {**settings, "soft_labels": False}}).data
    assert datasets.load_training(hard, seed=0, say=print)[0].is_hard
    entries = {"soft": settings, "hard": {**settings, "soft_labels": False}}
    mixed = config_lib.validate({"data": {"mixture": entries, "validation": "hard"}}).data
    both, _ = datasets.load_training(mixed, seed=0, say=print)
    known = ~np.isnan(both.expression_shares()[:, 0])
    assert dict(zip(both.dataset, known, strict=True)) == {"hard": False, "soft": True}


def test_labels_that_all_count_nothing(tmp_path):
    (tmp_path / "rows.csv").write_text("image,expression,label_weight\na.png,1,0\nb.png,,1\n")
    settings = {
        "kind": "manifest",
        "root": str(tmp_path),
        "train_annotations": "rows.csv",
        "manifest": {"video_from": "image"},
        "missing_images": "skip",
    }
    images = tmp_path / "cropped_aligned"
    images.mkdir()
    for name in ("a.png", "b.png"):
        (images / name).write_bytes(b"")
    soft = config_lib.validate({"data": settings | {"soft_labels": True}}).data
    with pytest.raises(AnnotationError, match="has a label and a label_weight above 0"):
        datasets.load_training(soft, seed=0, say=print)
    hard = config_lib.validate({"data": settings}).data
    assert len(datasets.load_training(hard, seed=0, say=print)[0]) == 2


def test_spread_of_annotators_is_for_training_that_asks_for_it(tmp_path):
    (tmp_path / "cropped_aligned").mkdir()
    (tmp_path / "cropped_aligned" / "a.jpg").write_bytes(b"")
    (tmp_path / "train.csv").write_text(
        "image,valence,arousal,valence_rater_std,arousal_rater_std,raters\na.jpg,0,0,0.1,0.2,3\n"
    )
    settings = {"kind": "manifest", "root": str(tmp_path), "soft_labels": True}
    said = []
    data = config_lib.validate({"data": settings}).data
    table, _ = datasets.load_training(data, seed=0, say=said.append)
    np.testing.assert_array_equal(table.raters, np.float32([[0.1, 0.2, 3]]))
    assert any("soft labels: annotators' spread of 1, expressions of 0 rows" in one for one in said)
    datasets.require_raters(table)
    hard = config_lib.validate({"data": {**settings, "soft_labels": False}}).data
    table, _ = datasets.load_training(hard, seed=0, say=print)
    with pytest.raises(ConfigError, match=r"loss\.va\.spread is set, and no row") as caught:
        datasets.require_raters(table)
    assert "data.soft_labels=true" in caught.value.remedy


def test_half_of_a_label_is_told(experiment):
    path = experiment.data / "training_set_annotations.txt"
    lines = path.read_text().splitlines()
    image, _, rest = lines[1].split(",", 2)
    lines[1] = f"{image},-5,0.5,{rest.split(',', 1)[1]}"
    path.write_text("\n".join(lines) + "\n")
    said = []
    data = config_lib.DataConfig(root=str(experiment.data))
    datasets.load_split(data, "train", said.append)
    assert "train: 1 rows have one of valence and arousal alone, which is no label of va" in said


def test_videos_of_both_splits_are_told(experiment, capsys):
    """By the training and by its preparation: they flatter the scores."""
    lists = [
        experiment.data / f"{split}_set_annotations.txt" for split in ("training", "validation")
    ]
    row = lists[0].read_text().splitlines()[1]
    lists[1].write_text(lists[1].read_text().rstrip("\n") + f"\n{row}\n")
    video = row.partition("/")[0]
    status, out, err = experiment.run(capsys, "prepare")
    assert (status, err) == (0, "")
    assert f"warning: 1 videos are in the training and the validation set, as {video}" in out


def test_skipped_rows_are_gone_from_the_table(experiment):
    (experiment.data / "cropped_aligned" / "training_0" / "00001.jpg").unlink()
    said = []
    data = config_lib.DataConfig(root=str(experiment.data), missing_images="skip")
    table = datasets.load_split(data, "train", said.append)
    assert len(table) == 39
    assert "skipped 1 rows" in said[0]
    with pytest.raises(ImageError, match=r"training_0/00001\.jpg"):
        datasets.load_split(
            config_lib.DataConfig(root=str(experiment.data)),
            "train",
            said.append,
        )


def test_all_images_missing(experiment, capsys):
    for path in (experiment.data / "cropped_aligned").rglob("*.jpg"):
        path.unlink()
    result = experiment.run(capsys, "prepare", "--config.data.missing_images=skip")
    assert_is_users_error(result, "none of the 40 images exists")


def spoil(annotations):
    """Makes three rows unreadable; returns their lines."""
    lines = annotations.read_text().splitlines()
    for row, value in ((5, "7"), (9, "=1+1"), (20, "")):
        image, _, *others = lines[row].split(",")
        lines[row] = ",".join([image, value, *others])
    annotations.write_text("\n".join(lines) + "\n")
    return [6, 10, 21]


def test_bad_rows(experiment, capsys, tmp_path):
    lines = spoil(experiment.data / "training_set_annotations.txt")
    result = experiment.run(capsys, "prepare")
    assert_is_users_error(result, "valence is 7, outside", "line 10: valence is '=1+1'")
    for words in (["--skip_bad_rows"], ["--config.data.skip_bad_rows=true"]):
        status, out, err = experiment.run(capsys, "prepare", *words)
        assert (status, err) == (0, "")
        assert "train: left out 3 bad rows (skip_bad_rows):\n  training_set_annotations.txt" in out
        assert "train: 37 rows" in out
    audit = tmp_path / "audit"
    words = ["--audit", "--skip_bad_rows", f"--output={audit}"]
    assert experiment.run(capsys, "prepare", *words)[0] == 0
    with (audit / datasets.BAD_ROWS).open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [int(row["line"]) for row in rows] == lines
    assert rows[1]["problem"] == "valence is '=1+1', not a number"


def test_a_run_lists_the_rows_that_it_left_out(experiment, capsys, monkeypatch):
    spoil(experiment.data / "training_set_annotations.txt")

    def refuse(*arguments, **settings):
        raise ImageError("far enough")

    monkeypatch.setattr(train, "Experiment", refuse)
    status, _, err = experiment.run(capsys, "train", "--skip_bad_rows")
    assert (status, "far enough" in err) == (2, True)
    assert len((experiment.workdir / datasets.BAD_ROWS).read_text().splitlines()) == 4


def test_the_flag_is_the_setting_of_each_data_set():
    two = {"a": {"root": "x"}, "b": {"root": "y"}}
    config = config_lib.load_config("rendered_faces")
    assert flags.with_bad_rows_skipped(config).data.skip_bad_rows
    changes = {"data.mixture": two, "data.validation": "a"}
    config = flags.with_bad_rows_skipped(config_lib.load_config("rendered_faces", **changes))
    assert all(entry.skip_bad_rows for entry in config.data.mixture.values())


def test_a_message_names_the_setting_of_its_data_set(tmp_path, experiment, capsys):
    """The settings of `data` itself have no effect on a mixture."""
    own = tmp_path / "own"
    (own / "cropped_aligned").mkdir(parents=True)
    (own / "train.csv").write_text("image,au1\na.jpg,8\n")
    mixture = [
        f"--config.data.mixture.wild.root={experiment.data}",
        f"--config.data.mixture.own.root={own}",
        "--config.data.mixture.own.kind=manifest",
        "--config.data.validation=wild",
    ]
    result = experiment.run(capsys, "prepare", *mixture)
    setting = "--config.data.mixture.own.manifest.missing_values=-1,-5,8"
    assert_is_users_error(result, f" marks a missing label, {setting}")


def without_labels(experiment, *tasks, split="training"):
    """Writes the markers of missing labels into an annotation file; returns it."""
    path = experiment.data / f"{split}_set_annotations.txt"
    header, *lines = path.read_text().splitlines()
    cells = [line.split(",") for line in lines]
    for row in cells:
        if "va" in tasks:
            row[1:3] = ["-5", "-5"]
        if "expr" in tasks:
            row[3] = "-1"
        if "au" in tasks:
            row[4:] = ["-1"] * 12
    path.write_text("\n".join([header, *map(",".join, cells)]) + "\n")
    return path


@pytest.mark.parametrize(
    ("command", "split", "count"),
    [("train", "training", 40), ("train", "validation", 19), ("prepare", "training", 40)],
)
def test_a_set_without_a_single_label(experiment, capsys, command, split, count):
    path = without_labels(experiment, "va", "au", "expr", split=split)
    result = experiment.run(capsys, command)
    assert_is_users_error(result, f"{path}: none of the {count} rows of the {split} set has")
    assert "docs/data_formats.md" in result[2]


def test_a_task_without_a_label_is_said(experiment, capsys):
    without_labels(experiment, "va", "expr")
    said = []
    data = config_lib.DataConfig(root=str(experiment.data))
    datasets.load_training(data, seed=0, say=said.append)
    notes = [line for line in said if line.startswith("note: ")]
    assert notes == [
        "note: no row of the training set has a label of va, expr: not trained, such outputs are "
        "left out"
    ]


def test_a_data_set_of_a_mixture_without_a_label_of_its_tasks(experiment, capsys):
    path = without_labels(experiment, "au")
    entry = {"root": str(experiment.data)}
    mixture = {"one": entry | {"tasks": ["va"]}, "two": entry | {"tasks": ["au"]}}
    config = config_lib.validate({"data": {"mixture": mixture, "validation": "one"}})
    with pytest.raises(AnnotationError, match="has a label of au") as raised:
        datasets.load_training(config.data, seed=0, say=print)
    assert raised.value.path == str(path)


def contents(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


@pytest.fixture(params=["own data", "empty", "absent", "file"])
def no_rendered_faces(request, experiment):
    """Where `data.root` points by mistake, as with a forgotten `data.kind`."""
    root = experiment.folder / "theirs"
    if request.param == "own data":
        return experiment.data
    if request.param == "empty":
        root.mkdir()
    if request.param == "file":
        root.write_text("mine")
    return root


def test_reading_never_writes_into_a_folder_that_the_user_named(experiment, no_rendered_faces):
    data = config_lib.DataConfig(kind="rendered_faces", root=str(no_rendered_faces))
    before = contents(experiment.folder)
    for read in (datasets.load_split, lambda data, split, say: datasets.ensure_data(data, say)):
        with pytest.raises(ConfigError, match=r"data\.kind is rendered_faces") as raised:
            read(data, "validation", print)
        assert raised.value.path == str(no_rendered_faces)
        assert "--config.data.kind=" in raised.value.remedy
        assert "run.py prepare" in raised.value.remedy
        assert "delete" not in str(raised.value)
    assert contents(experiment.folder) == before


@pytest.mark.parametrize("command", ["train", "prepare"])
@pytest.mark.parametrize("kind", ["own data", "file"])
def test_faces_are_rendered_into_no_folder_of_other_files(experiment, capsys, command, kind):
    root = experiment.data if kind == "own data" else experiment.config
    before = contents(experiment.data), experiment.config.read_bytes()
    result = experiment.run(
        capsys, command, "--config.data.kind=rendered_faces", f"--config.data.root={root}"
    )
    words = {
        "own data": "holds other files, and no rendered faces, and data.kind is rendered_faces",
        "file": "is a file, not a folder of rendered faces, and data.kind is rendered_faces",
    }
    assert_is_users_error(result, f"{root}: {words[kind]}", "name a new or empty folder")
    assert "delete" not in result[2]
    assert (contents(experiment.data), experiment.config.read_bytes()) == before
    if kind == "own data":  # the files tell which kind it is
        assert "--config.data.kind=s_aff_wild2; or" in result[2]


def test_a_description_of_the_users_own_is_not_to_be_deleted(experiment):
    (experiment.data / "dataset.json").write_text("no JSON")
    data = config_lib.DataConfig(kind="rendered_faces", root=str(experiment.data))
    with pytest.raises(UserError, match=r"dataset\.json") as raised:
        datasets.ensure_data(data, print, write=True)
    assert "delete" not in str(raised.value)
    (experiment.data / "dataset.json").write_text('{"name": "mine"}')
    with pytest.raises(ConfigError, match="holds other files"):
        datasets.ensure_data(data, print, write=True)


def test_time_left_of_rendering_leaves_out_what_came_before_the_first_video(tmp_path, monkeypatch):
    """The renderer is compiled in it: minutes would become hours."""
    now, said = [0.0], []
    monkeypatch.setattr("time.monotonic", lambda: now[0])

    def generated(root, *, progress, **arguments):
        now[0] = 60.0
        for done in range(1, 21):
            progress(done, 20)
            now[0] += 1.0

    monkeypatch.setattr(generate, "generate", generated)
    data = config_lib.load_config("rendered_faces", **{"data.root": str(tmp_path / "new")}).data
    datasets.ensure_data(data, said.append, write=True)
    assert said == [
        f"rendering faces into {tmp_path / 'new'} ...",
        "rendered videos: 2 of 20, 1 a second, 18 s left",
        "rendered videos: 13 of 20, 1 a second, 7 s left",
        "rendered videos: 20 of 20, 1 a second, 0 s left",
    ]
