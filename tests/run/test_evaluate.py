"""`run.py evaluate` of a run: what can fail at once does so before the data are made or read."""

import drawn_run
import pytest
from small_experiment import Experiment

import mtl_face
from mtl_face import config as config_lib
from mtl_face.errors import WorkdirError
from mtl_face.run import workdir as workdirs


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
