"""Hosts of one run: in which settings they may differ, and the folder that they share."""

import dataclasses

import pytest

from mtl_face import config as config_lib
from mtl_face import locks
from mtl_face.errors import WorkdirError
from mtl_face.run import processes
from mtl_face.run import workdir as workdirs
from mtl_face.training.processes import distributed

CONFIG = config_lib.Config()


def changed(part, **values):
    return dataclasses.replace(
        CONFIG, **{part: dataclasses.replace(getattr(CONFIG, part), **values)}
    )


@pytest.fixture
def later_process(monkeypatch):
    """Process 0 has done its part elsewhere."""
    monkeypatch.setattr(distributed, "first", lambda action: None)


def test_settings_that_may_differ():
    assert processes.digest(changed("data", root="/a")) == processes.digest(CONFIG)
    assert processes.digest(changed("data", shards="/a")) == processes.digest(CONFIG)
    assert processes.digest(changed("data", image_size=96)) != processes.digest(CONFIG)
    assert processes.digest(dataclasses.replace(CONFIG, seed=1)) != processes.digest(CONFIG)


def test_a_host_whose_files_lie_elsewhere(tmp_path, later_process):
    workdirs.open_for_training(tmp_path, CONFIG)
    for config in (CONFIG, changed("data", shards="/elsewhere"), changed("data", root="/else")):
        assert processes.open_workdir(tmp_path, config) == tmp_path.resolve()


def test_a_folder_that_is_not_shared(tmp_path, later_process, monkeypatch):
    monkeypatch.setattr(processes, "_PATIENCE", 0.0)
    with pytest.raises(WorkdirError, match="not the folder that process 0 has written to"):
        processes.open_workdir(tmp_path, CONFIG)


def test_process_0_holds_the_folder_for_all(tmp_path, later_process):
    with processes.own_workdir(tmp_path / "run", print) as require:
        require()
    assert not (tmp_path / "run").exists()


def test_a_folder_that_another_run_has_taken(tmp_path, monkeypatch):
    with processes.own_workdir(tmp_path, print) as require:
        (lock,) = tmp_path.iterdir()
        lock.write_text("{}")
        require()
        monkeypatch.setattr(locks.time, "time", lambda: 4e9)  # its heartbeat stood still
        with pytest.raises(WorkdirError, match="was taken over"):
            require()
    assert list(tmp_path.iterdir()) == [lock]
