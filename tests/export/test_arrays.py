"""Exports of either form come back bit for bit."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import orbax.checkpoint as ocp
import pytest
from docs_lines import lines_of_the_docs, run_the_lines_of_the_docs
from export_cases import assert_same, make_card, make_variables

from mtl_face import export
from mtl_face.errors import WorkdirError
from mtl_face.export import arrays
from mtl_face.weights import card as cards
from mtl_face.weights import exported
from mtl_face.weights.card import ExportError

ROOT = Path(__file__).parents[2]
CONTENTS = {
    "orbax": {"params", "model.json"},
    "safetensors": {"model.safetensors", "model.json"},
}


def test_round_trip(exported_folder, form):
    variables, card = exported.load(exported_folder)
    assert_same(variables, make_variables())
    expected = {
        **make_card(),
        "tensors": {
            "params/backbone/kernel": {"shape": [3, 3, 3, 8], "dtype": "float32"},
            "params/head_va/kernel": {"shape": [8, 2], "dtype": "float32"},
            "params/head_va/bias": {"shape": [2], "dtype": "float32"},
            "batch_stats/backbone/mean": {"shape": [8], "dtype": "float32"},
        },
        "weights_sha256": exported.weights_sha256(make_variables()),
    }
    assert card == cards.sealed(expected)
    assert exported.read_card(exported_folder) == card
    assert json.loads((exported_folder / "model.json").read_text()) == card
    assert {path.name for path in exported_folder.iterdir()} == CONTENTS[form]


def test_every_bit(folder, form):
    """Zeros of both signs, the least and the largest numbers, odd layouts, other dtypes."""
    extremes = np.array([0.0, -0.0, 1e-45, -1e-45, 1.17e-38, 3.4028235e38, 1 / 3], np.float32)
    variables = {
        "params": {
            "extremes": extremes,
            "columns": np.asfortranarray(np.arange(6, dtype=np.float32).reshape(2, 3)),
            "strided": np.arange(20, dtype=np.float32)[::3],
            "half": extremes[:2].astype(np.float16),
            "double": np.array([[np.pi]]),
            "counts": np.arange(3, dtype=np.int32),
        },
        "batch_stats": {"deep": {"er": {"still": np.ones((1, 1, 2), np.float32)}}},
    }
    export.save(folder, variables, make_card(), form=form)
    expected = jax.tree.map(lambda x: np.asarray(x, order="C"), variables)
    assert_same(exported.load(folder)[0], expected)


def test_both_forms_hold_the_same(tmp_path):
    for form in export.FORMATS:
        export.save(tmp_path / form, make_variables(), make_card(), form=form)
    (first, card), (second, other) = (exported.load(tmp_path / form) for form in export.FORMATS)
    assert_same(first, second)
    assert card == other


def test_safetensors_file_alone(folder, tmp_path):
    export.save(folder, make_variables(), make_card(), form="safetensors")
    alone = tmp_path / "anything.bin"
    shutil.copy(folder / "model.safetensors", alone)
    for path in (alone, str(alone), folder / "model.safetensors", str(folder)):
        variables, card = exported.load(path)
        assert_same(variables, make_variables())
        assert card["step"] == 12


def test_safetensors_bytes_depend_on_the_arrays_alone(tmp_path):
    for name in ("one", "two"):
        variables = make_variables()
        if name == "two":
            variables = dict(reversed(variables.items()))
        export.save(tmp_path / name, variables, make_card(), form="safetensors")
    one, two = (tmp_path / name / "model.safetensors" for name in ("one", "two"))
    assert one.read_bytes() == two.read_bytes()


def test_the_package_alone_reads_it(folder):
    """Names, arrays and the card, without this program."""
    from safetensors import safe_open
    from safetensors.numpy import load_file

    export.save(folder, make_variables(), make_card(), form="safetensors")
    arrays = load_file(folder / "model.safetensors")
    assert set(arrays) == set(exported.flatten(make_variables()))
    np.testing.assert_array_equal(
        arrays["params/head_va/kernel"], make_variables()["params"]["head_va"]["kernel"]
    )
    with safe_open(folder / "model.safetensors", "np") as file:
        assert json.loads(file.metadata()["model_json"])["tasks"]["au"]["outputs"][0] == "au1"


def test_numpy_alone_reads_it(folder, monkeypatch, capsys):
    """The lines of docs/export.md give every array bit for bit, and the card."""
    export.save(folder, make_variables(), make_card(), form="safetensors")
    monkeypatch.chdir(folder)
    found = run_the_lines_of_the_docs()
    variables, card = exported.load(folder)
    assert found["card"] == card
    assert_same(found["arrays"], exported.flatten(variables))
    assert "au26" in capsys.readouterr().out


def test_the_lines_of_the_docs_need_nothing_but_numpy(folder):
    export.save(folder, make_variables(), make_card(), form="safetensors")
    ban = (
        "import sys\n"
        "for name in ('mtl_face', 'jax', 'orbax', 'tensorflow', 'ml_dtypes', 'safetensors'):\n"
        "    sys.modules[name] = None\n"
    )
    result = subprocess.run(
        [sys.executable, "-I", "-c", ban + lines_of_the_docs()],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    assert "s-Aff-Wild2" in result.stdout
    assert "params/head_va/kernel (8, 2) float32" in result.stdout


def test_relative_path_and_other_folder(exported_folder, monkeypatch, tmp_path):
    moved = tmp_path / "elsewhere" / "model"
    shutil.copytree(exported_folder, moved)
    monkeypatch.chdir(moved.parent)
    assert_same(exported.load(Path("model"))[0], make_variables())


def test_another_process_reads_it(exported_folder, form):
    """On one device, though eight were here when it was written; the one form without JAX."""
    code = (
        "import sys; from mtl_face.weights import exported;"
        "print(exported.load(sys.argv[1])[1]['weights_sha256'], 'jax' in sys.modules)"
    )
    result = subprocess.run(
        [sys.executable, "-c", code, str(exported_folder)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
        timeout=600,
    )
    sha = exported.weights_sha256(make_variables())
    assert result.stdout.split() == [sha, str(form == "orbax")]
    assert result.stderr == ""


def test_replaces_an_export_of_either_form(exported_folder):
    for form in export.FORMATS:
        export.save(exported_folder, make_variables(1), make_card(), form=form)
        assert_same(exported.load(exported_folder)[0], make_variables(1))
        assert {path.name for path in exported_folder.iterdir()} == CONTENTS[form]
    assert [path.name for path in exported_folder.parent.iterdir()] == ["export"]


def test_what_a_kill_left_is_replaced(folder, form):
    (folder.parent / "export.incomplete" / "params").mkdir(parents=True)
    folder.mkdir()
    export.save(folder, make_variables(), make_card(), form=form)
    assert_same(exported.load(folder)[0], make_variables())
    assert [path.name for path in folder.parent.iterdir()] == ["export"]


@pytest.mark.parametrize("names", [["photo.jpg"], ["model.json", "photo.jpg"], ["model.json"]])
def test_a_folder_of_someone_else(folder, names):
    folder.mkdir()
    for name in names:
        (folder / name).write_text("mine")
    with pytest.raises(WorkdirError, match="holds something that is no export"):
        export.save(folder, make_variables(), make_card())
    assert sorted(path.name for path in folder.iterdir()) == sorted(names)


def test_an_export_with_a_file_of_the_users(exported_folder):
    (exported_folder / "notes.txt").write_text("mine")
    with pytest.raises(WorkdirError, match="holds something that is no export"):
        export.save(exported_folder, make_variables(1), make_card())
    assert_same(exported.load(exported_folder)[0], make_variables())


def test_a_file_in_the_way(folder):
    folder.write_text("mine")
    with pytest.raises(WorkdirError, match="holds something that is no export"):
        export.save(folder, make_variables(), make_card())
    with pytest.raises(WorkdirError, match=r"cannot be written \(Not a directory"):
        export.save(folder / "below", make_variables(), make_card())
    assert folder.read_text() == "mine"


def test_folder_that_cannot_be_written(form):
    with pytest.raises(WorkdirError, match="/proc/export: cannot be written"):
        export.save(Path("/proc/export"), make_variables(), make_card(), form=form)


def fail(*arguments, **options):
    raise OSError(28, "No space left on device")


def fail_as_orbax_does(*arguments, **options):
    raise ValueError("RESOURCE_EXHAUSTED: [os_error_code='28'] [tensorstore_spec='{}']")


def test_full_disk(folder, form, monkeypatch):
    monkeypatch.setattr(ocp.StandardCheckpointer, "save", fail_as_orbax_does)
    monkeypatch.setattr(arrays, "write_safetensors", fail)
    with pytest.raises(WorkdirError, match=r"cannot be written \(No space left on device"):
        export.save(folder, make_variables(), make_card(), form=form)
    assert not folder.exists()


def test_the_older_export_stays_if_the_new_one_fails(exported_folder, form, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(ocp.StandardCheckpointer, "save", fail)
        patch.setattr(arrays, "write_safetensors", fail)
        with pytest.raises(WorkdirError, match="No space left"):
            export.save(exported_folder, make_variables(1), make_card(), form=form)
    assert_same(exported.load(exported_folder)[0], make_variables())


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_values_that_are_not_finite_are_not_exported(folder, value):
    variables = make_variables()
    variables["params"]["head_va"]["bias"][1] = value
    with pytest.raises(ExportError, match=r"params/head_va/bias \(1 of 2 values\)"):
        export.save(folder, variables, make_card())
    assert not folder.exists()
