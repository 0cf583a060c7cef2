"""The same settings, seed and devices give the same bits; other devices nearly the same numbers."""

import numpy as np
import pytest
from forked_run import Launcher
from test_kill_and_resume import (
    Runs,
    assert_same_state,
    curves,
    environment,
    final_state,
    metrics,
)

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def completed(tmp_path_factory):
    """Completed runs on one and on eight devices: two that share compiled programs, one alone."""

    def complete(devices, launcher):
        runs = Runs(tmp_path_factory.mktemp(f"on_{devices}"), launcher, devices=devices)
        folder = runs.experiment.folder
        runs.complete(folder / "first")
        runs.complete(folder / "second")  # its programs come out of the cache
        runs.environment = environment(folder, devices=devices, cached=False)
        runs.complete(folder / "without_cache")
        return folder

    with Launcher(environment(tmp_path_factory.mktemp("launcher"))) as launcher:
        return {devices: complete(devices, launcher) for devices in (1, 8)}


@pytest.mark.parametrize("devices", [1, 8])
@pytest.mark.parametrize("name", ["second", "without_cache"])
def test_two_runs(completed, devices, name):
    folder = completed[devices]
    assert_same_state(folder / name, folder / "first")
    assert curves(folder / name) == curves(folder / "first")
    assert metrics(folder / name) == metrics(folder / "first")


def test_one_and_eight_devices(completed):
    """The figures of docs/determinism.md."""
    one, eight = (final_state(completed[devices] / "first") for devices in (1, 8))
    largest, norm, difference = 0.0, 0.0, 0.0
    for name, leaf in one.items():
        if not name.startswith("['params']"):
            continue
        value, other = np.asarray(leaf, np.float64), np.asarray(eight[name], np.float64)
        largest = max(largest, float(np.abs(value - other).max()))
        norm += float(np.sum(value**2))
        difference += float(np.sum((value - other) ** 2))
    relative = np.sqrt(difference / norm)
    print(f"largest difference {largest:.3g}, relative norm of the difference {relative:.3g}")
    assert 0 < largest < 1e-4
    assert relative < 1e-5
