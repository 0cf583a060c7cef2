"""The same settings, seed and devices give the same bits; other devices nearly the same numbers."""

import numpy as np
import pytest
from test_kill_and_resume import Runs, assert_same_state, curves, final_state, metrics

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module", params=[1, 8])
def runs(request, tmp_path_factory):
    return Runs(tmp_path_factory.mktemp("runs"), devices=request.param)


def test_two_runs_and_a_resume(runs):
    folder = runs.experiment.folder
    runs.complete(folder / "first")
    runs.complete(folder / "second")  # its programs come out of the cache
    assert_same_state(folder / "second", folder / "first")
    assert curves(folder / "second") == curves(folder / "first")
    assert metrics(folder / "second") == metrics(folder / "first")
    process = runs.start(folder / "resumed")
    assert process.wait_for(r"^step 8/")
    process.process.kill()
    process.finish()
    runs.complete(folder / "resumed")
    assert_same_state(folder / "resumed", folder / "first")


def test_a_cache_changes_nothing(runs):
    folder = runs.experiment.folder
    runs.complete(folder / "with_cache")
    environment = dict(runs.environment)
    try:
        for name in list(runs.environment):
            if "CACHE" in name:
                del runs.environment[name]
        runs.environment["JAX_ENABLE_COMPILATION_CACHE"] = "false"
        runs.complete(folder / "without_cache")
    finally:
        runs.environment = environment
    assert_same_state(folder / "without_cache", folder / "with_cache")


def test_one_and_eight_devices(tmp_path):
    """The figures of docs/determinism.md."""
    states = []
    for devices in (1, 8):
        (tmp_path / str(devices)).mkdir()
        runs = Runs(tmp_path / str(devices), devices=devices, cached=False)
        runs.complete(tmp_path / str(devices) / "run")
        states.append(final_state(tmp_path / str(devices) / "run"))
    largest, norm, difference = 0.0, 0.0, 0.0
    for name, one in states[0].items():
        if not name.startswith("['params']"):
            continue
        one, eight = np.asarray(one, np.float64), np.asarray(states[1][name], np.float64)
        largest = max(largest, float(np.abs(one - eight).max()))
        norm += float(np.sum(one**2))
        difference += float(np.sum((one - eight) ** 2))
    relative = np.sqrt(difference / norm)
    print(f"largest difference {largest:.3g}, relative norm of the difference {relative:.3g}")
    assert 0 < largest < 1e-4
    assert relative < 1e-5
