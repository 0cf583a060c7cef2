"""`run.py evaluate` of a run: what can fail at once does so before the data are made or read."""

import json
import shutil

import drawn_run
import pytest
from small_experiment import Experiment

import mtl_face
from mtl_face import config as config_lib
from mtl_face.errors import AnnotationError, ConfigError, WorkdirError
from mtl_face.run import datasets, postprocess
from mtl_face.run import workdir as workdirs
from mtl_face.run.rows import Rows


def test_an_output_that_cannot_be_written_is_noticed_first(tmp_path, capsys):
    experiment = Experiment(tmp_path)
    drawn_run.write(experiment, experiment.workdir)
    status, out, err = experiment.run(capsys, "evaluate", f"--output={experiment.config}/results")
    assert (status, out) == (2, "")
    assert "small.py/results: cannot be written (Not a directory)" in err
    status, out, err = experiment.run(
        capsys, "evaluate", "--calibration=none.json", f"--output={tmp_path / 'results'}"
    )
    assert (status, out) == (2, "")
    assert "none.json: the calibration does not exist" in err
    assert not (tmp_path / "results").exists()


def test_a_run_without_a_checkpoint_renders_no_faces(tmp_path):
    config = config_lib.load(
        Experiment(tmp_path).config,
        [
            *("data.kind=rendered_faces", f"data.root={tmp_path / 'faces'}"),
            "data.rendered_faces.num_videos=4",
        ],
    )
    run = workdirs.open_for_training(tmp_path / "run", config)
    said = []
    with pytest.raises(WorkdirError, match="has no evaluated checkpoint yet") as raised:
        mtl_face.evaluate(run, say=said.append)
    assert "mtl_face.train" in raised.value.remedy
    assert not said
    assert not (tmp_path / "faces").exists()


def test_one_file_has_no_training_split(tmp_path):
    experiment = Experiment(tmp_path)
    drawn_run.write(experiment, experiment.workdir)
    labels = experiment.data / "training_set_annotations.txt"
    with pytest.raises(ConfigError, match=r"names one file, .* it has no split train"):
        mtl_face.evaluate(experiment.workdir, split="train", data=labels, say=print)


def test_rows_without_a_label_have_no_score(tmp_path):
    experiment = Experiment(tmp_path)
    drawn_run.write(experiment, experiment.workdir)
    path = experiment.data / "validation_set_annotations.txt"
    head, *rows = path.read_text().splitlines()
    unlabelled = [f"{row.split(',')[0]},-5,-5,-1{',-1' * 12}" for row in rows]
    path.write_text("\n".join([head, *unlabelled]) + "\n")
    with pytest.raises(AnnotationError, match=r"none of the .* rows of the validation set has a l"):
        mtl_face.evaluate(experiment.workdir, say=print)
    assert not (experiment.workdir / "evaluation").exists()


@pytest.mark.slow
def test_other_rows_than_those_of_the_training(tmp_path):
    """Changed rows are counted aloud; results of another data set have a folder of their own."""
    experiment = Experiment(tmp_path)
    data = config_lib.load(experiment.config, [f"data.root={experiment.data}"]).data
    rows = Rows.of({split: datasets.load_split(data, split, print) for split in datasets.SPLITS})
    run = experiment.workdir
    drawn_run.write(experiment, run, rows=rows)

    def evaluate(root):
        said = []
        config = workdirs.own_config(run, [f"data.root={root}"])
        warnings = mtl_face.evaluate(run, config, say=said.append)["warnings"]
        assert [line for line in said if "other validation rows" in line] == [
            f"warning: {line}" for line in warnings
        ]
        return warnings

    def number_of_rows(folder):
        metrics = json.loads((run / folder / "metrics.json").read_text())
        return metrics["num_rows"]

    moved = tmp_path / "moved"
    shutil.copytree(experiment.data, moved)
    assert evaluate(moved) == []  # the same rows elsewhere
    assert number_of_rows("evaluation") == 19

    labels = moved / "validation_set_annotations.txt"
    labels.write_text("".join(labels.read_text().splitlines(keepends=True)[:-1]))
    (warning,) = evaluate(moved)
    assert warning.endswith("than those of its training: 1 gone (18 rows, before 19)")
    assert (number_of_rows("evaluation"), number_of_rows("evaluation_moved")) == (19, 18)

    labels.replace(experiment.data / "validation_set_annotations.txt")
    assert len(evaluate(experiment.data)) == 1
    assert number_of_rows("evaluation") == 18
    said = []
    postprocess.labelled_workdir(workdirs.own_config(run), run, said.append)
    assert f"warning: {warning.replace(' validation', '')}" in said
