"""Slow modules that other libraries import without need are spared, and can be had afterwards."""

import importlib
import subprocess
import sys

import pytest

from mtl_face import libraries

NAME = "a_slow_module"


@pytest.fixture
def module(tmp_path, monkeypatch):
    (tmp_path / f"{NAME}.py").write_text("Callback = 'the real one'")
    monkeypatch.syspath_prepend(tmp_path)
    yield NAME
    sys.modules.pop(NAME, None)


def test_a_stand_in_has_every_name(module):
    with libraries.without(module, libraries.NOTHING):
        assert importlib.import_module(module).Callback is None
        assert importlib.import_module(module).another_of_a_later_release is None
    assert importlib.import_module(module).Callback == "the real one"


def test_without_a_stand_in_the_import_fails(module):
    with libraries.without(module), pytest.raises(ImportError):
        importlib.import_module(module)
    assert importlib.import_module(module).Callback == "the real one"


def test_a_loaded_module_stays(module):
    loaded = importlib.import_module(module)
    with libraries.without(module, libraries.NOTHING):
        assert importlib.import_module(module) is loaded
    assert sys.modules[module] is loaded


def test_training_and_decoding_load_no_keras():
    code = (
        "import sys\nimport data_pipeline.decoding, mtl_face.training.trainer\n"
        "print(*[name for name in sys.modules if name.split('.')[0] == 'keras'])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""
