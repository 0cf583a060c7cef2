"""Exports come back bit for bit, and whatever is wrong with one is said."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mtl_face.errors import WorkdirError
from mtl_face.weights import export

CARD = {"tasks": {"va": {"outputs": ["valence", "arousal"]}}, "step": 12}


def make_variables(seed=0):
    random = np.random.default_rng(seed)
    return {
        "params": {
            "backbone": {"kernel": random.normal(size=(3, 3, 3, 8)).astype(np.float32)},
            "head_va": {
                "kernel": random.normal(size=(8, 2)).astype(np.float32),
                "bias": np.zeros(2, np.float32),
            },
        },
        "batch_stats": {"backbone": {"mean": random.normal(size=8).astype(np.float32)}},
    }


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "export"


@pytest.fixture
def exported(folder):
    export.save(folder, make_variables(), CARD)
    return folder


def assert_same(found, expected):
    assert jax.tree.structure(found) == jax.tree.structure(expected)
    for leaf, other in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        assert isinstance(leaf, np.ndarray)
        assert leaf.dtype == other.dtype
        np.testing.assert_array_equal(leaf, other)


def test_round_trip(exported):
    variables, card = export.load(exported)
    assert_same(variables, make_variables())
    assert card == {
        "schema": export.SCHEMA,
        **CARD,
        "weights_sha256": export.weights_sha256(make_variables()),
    }
    assert {path.name for path in exported.iterdir()} == {"params", "model.json"}


def test_relative_path_and_other_folder(exported, monkeypatch, tmp_path):
    moved = tmp_path / "elsewhere" / "model"
    shutil.copytree(exported, moved)
    monkeypatch.chdir(moved.parent)
    assert_same(export.load(Path("model"))[0], make_variables())


def test_another_process_reads_it(exported):
    """On one device, though eight were here when it was written."""
    code = (
        "import sys; from pathlib import Path; from mtl_face.weights import export;"
        "print(export.load(Path(sys.argv[1]))[1]['weights_sha256'])"
    )
    result = subprocess.run(
        [sys.executable, "-c", code, str(exported)],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    assert result.stdout.strip() == export.weights_sha256(make_variables())
    assert result.stderr == ""


def test_replaces_an_export(exported):
    export.save(exported, make_variables(1), CARD)
    assert_same(export.load(exported)[0], make_variables(1))
    assert [path.name for path in exported.parent.iterdir()] == ["export"]


def test_what_a_kill_left_is_replaced(folder):
    (folder.parent / "export.incomplete" / "params").mkdir(parents=True)
    folder.mkdir()
    export.save(folder, make_variables(), CARD)
    assert_same(export.load(folder)[0], make_variables())
    assert [path.name for path in folder.parent.iterdir()] == ["export"]


@pytest.mark.parametrize("names", [["photo.jpg"], ["model.json", "photo.jpg"], ["model.json"]])
def test_a_folder_of_someone_else(folder, names):
    folder.mkdir()
    for name in names:
        (folder / name).write_text("mine")
    with pytest.raises(WorkdirError, match="holds something that is no export"):
        export.save(folder, make_variables(), CARD)
    assert sorted(path.name for path in folder.iterdir()) == sorted(names)


def test_an_export_with_a_file_of_the_users(exported):
    (exported / "notes.txt").write_text("mine")
    with pytest.raises(WorkdirError, match="holds something that is no export"):
        export.save(exported, make_variables(1), CARD)
    assert_same(export.load(exported)[0], make_variables())


def test_a_file_in_the_way(folder):
    folder.write_text("mine")
    with pytest.raises(WorkdirError, match="holds something that is no export"):
        export.save(folder, make_variables(), CARD)
    with pytest.raises(WorkdirError, match="cannot be written: Not a directory"):
        export.save(folder / "below", make_variables(), CARD)
    assert folder.read_text() == "mine"


def test_folder_that_cannot_be_written():
    with pytest.raises(WorkdirError, match="/proc/export: cannot be written"):
        export.save(Path("/proc/export"), make_variables(), CARD)


def test_full_disk(folder, monkeypatch):
    def fail(*arguments, **options):
        raise ValueError("RESOURCE_EXHAUSTED: [os_error_code='28'] [tensorstore_spec='{}']")

    monkeypatch.setattr(export.ocp.StandardCheckpointer, "save", fail)
    with pytest.raises(WorkdirError, match="cannot be written: No space left on device"):
        export.save(folder, make_variables(), CARD)
    assert not folder.exists()


def test_the_older_export_stays_if_the_new_one_fails(exported, monkeypatch):
    def fail(*arguments, **options):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(export.ocp.StandardCheckpointer, "save", fail)
        with pytest.raises(WorkdirError, match="No space left"):
            export.save(exported, make_variables(1), CARD)
    assert_same(export.load(exported)[0], make_variables())


def change_card(folder, **changes):
    path = folder / export.CARD
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def error_of(folder):
    with pytest.raises(WorkdirError) as raised:
        export.load(folder)
    assert raised.value.remedy
    assert str(folder) in str(raised.value)
    return raised.value.problem


def test_newer_schema(exported):
    change_card(exported, schema=export.SCHEMA + 1)
    assert error_of(exported) == f"has schema {export.SCHEMA + 1}, this version reads up to 1"


@pytest.mark.parametrize("content", ["", "{", "[]", "3", '{"schema": "1"}', "\x00", "{}"])
def test_other_card(exported, content):
    (exported / export.CARD).write_text(content)
    assert error_of(exported).startswith(("is no export", "has no schema number"))


def test_other_bytes_in_the_card(exported):
    (exported / export.CARD).write_bytes(b"\xff\xfe\xfa")
    assert error_of(exported).startswith("is no export")


def test_not_an_export(tmp_path):
    (tmp_path / "file").write_text("mine")
    for path in (tmp_path, tmp_path / "absent", tmp_path / "file"):
        assert error_of(path).startswith("is no export")


def test_other_weights(exported, tmp_path):
    other = tmp_path / "other"
    export.save(other, make_variables(1), CARD)
    shutil.rmtree(exported / "params")
    shutil.copytree(other / "params", exported / "params")
    assert error_of(exported).startswith("arrays hash to ")
    change_card(exported, weights_sha256=None)
    assert error_of(exported).startswith("arrays hash to ")


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("damage", ["gone", "cut", "empty", "metadata"])
def test_damaged_weights(exported, damage):
    params = exported / "params"
    if damage == "gone":
        shutil.rmtree(params)
    elif damage == "empty":
        shutil.rmtree(params)
        params.mkdir()
    elif damage == "metadata":
        (params / "_METADATA").write_text("{")
    else:
        for path in params.rglob("d/*"):
            path.write_bytes(path.read_bytes()[:10])
    assert error_of(exported).startswith("cannot be read: ")


def test_hash_covers_names_shapes_types_and_values():
    variables = make_variables()
    hashes = [export.weights_sha256(variables)]
    assert hashes[0] == export.weights_sha256(jax.tree.map(jnp.asarray, variables))

    def changed(change):
        other = make_variables()
        change(other["params"]["head_va"])
        hashes.append(export.weights_sha256(other))

    changed(lambda part: part.update(kernel=part["kernel"].reshape(2, 8)))
    changed(lambda part: part.update(kernel=part["kernel"].astype(np.float64)))
    changed(lambda part: part.update(scale=part.pop("bias")))
    changed(lambda part: part["kernel"].__setitem__((0, 0), 0.0))
    changed(lambda part: part["bias"].__setitem__(0, -0.0))
    changed(lambda part: part.update(kernel=part["kernel"].T.copy().T))
    assert hashes[-1] == hashes[0]  # the order in memory is no part of it
    assert len(set(hashes[:-1])) == 6
