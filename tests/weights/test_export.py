"""Exports of either form come back bit for bit, and whatever is wrong with one is said."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
import pytest
from export_cases import make_card, make_variables, schema_1_card

from mtl_face.errors import WeightsError, WorkdirError
from mtl_face.weights import card as cards
from mtl_face.weights import export, provenance, safetensors_file
from mtl_face.weights.card import ExportError

ROOT = Path(__file__).parents[2]
CONTENTS = {
    "orbax": {"params", "model.json"},
    "safetensors": {"model.safetensors", "model.json"},
}


@pytest.fixture(params=export.FORMATS)
def form(request):
    return request.param


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "export"


@pytest.fixture
def exported(folder, form):
    export.save(folder, make_variables(), make_card(), form=form)
    return folder


def assert_same(found, expected):
    assert jax.tree.structure(found) == jax.tree.structure(expected)
    for leaf, other in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        assert isinstance(leaf, np.ndarray)
        assert leaf.dtype == other.dtype
        assert leaf.shape == other.shape
        assert leaf.tobytes() == other.tobytes()


def test_round_trip(exported, form):
    variables, card = export.load(exported)
    assert_same(variables, make_variables())
    assert card == {
        **make_card(),
        "tensors": {
            "params/backbone/kernel": {"shape": [3, 3, 3, 8], "dtype": "float32"},
            "params/head_va/kernel": {"shape": [8, 2], "dtype": "float32"},
            "params/head_va/bias": {"shape": [2], "dtype": "float32"},
            "batch_stats/backbone/mean": {"shape": [8], "dtype": "float32"},
        },
        "weights_sha256": export.weights_sha256(make_variables()),
    }
    assert export.read_card(exported) == card
    assert json.loads((exported / "model.json").read_text()) == card
    assert {path.name for path in exported.iterdir()} == CONTENTS[form]


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
    assert_same(export.load(folder)[0], jax.tree.map(lambda x: np.asarray(x, order="C"), variables))


def test_both_forms_hold_the_same(tmp_path):
    for form in export.FORMATS:
        export.save(tmp_path / form, make_variables(), make_card(), form=form)
    (first, card), (second, other) = (export.load(tmp_path / form) for form in export.FORMATS)
    assert_same(first, second)
    assert card == other


def test_safetensors_file_alone(folder, tmp_path):
    export.save(folder, make_variables(), make_card(), form="safetensors")
    alone = tmp_path / "anything.bin"
    shutil.copy(folder / "model.safetensors", alone)
    for path in (alone, str(alone), folder / "model.safetensors", str(folder)):
        variables, card = export.load(path)
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


def test_the_package_and_numpy_alone_read_it(folder):
    """Without anything of ours: names, arrays, card."""
    from safetensors import safe_open
    from safetensors.numpy import load_file

    export.save(folder, make_variables(), make_card(), form="safetensors")
    arrays = load_file(folder / "model.safetensors")
    assert set(arrays) == set(export.flatten(make_variables()))
    np.testing.assert_array_equal(
        arrays["params/head_va/kernel"], make_variables()["params"]["head_va"]["kernel"]
    )
    with safe_open(folder / "model.safetensors", "np") as file:
        assert json.loads(file.metadata()["model_json"])["tasks"]["au"]["outputs"][0] == "au1"


def example_of_the_docs():
    """The Python block of docs/export.md that reads a file without this program."""
    text = (ROOT / "docs" / "export.md").read_text()
    (block,) = [
        block
        for block in (part.split("```")[0] for part in text.split("```python\n")[1:])
        if "safetensors.numpy" in block
    ]
    return block


def test_example_of_the_docs(folder):
    """It runs as printed, where neither this program nor JAX can be imported."""
    code = example_of_the_docs()
    assert len([line for line in code.splitlines() if line.strip()]) <= 12
    export.save(folder, make_variables(), make_card(), form="safetensors")
    ban = (
        "import sys\n"
        "for name in ('mtl_face', 'jax', 'flax', 'orbax', 'tensorflow', 'ml_dtypes'):\n"
        "    sys.modules[name] = None\n"
    )
    result = subprocess.run(
        [sys.executable, "-I", "-c", ban + code],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    assert "au26" in result.stdout
    assert "s-Aff-Wild2" in result.stdout
    assert "params/head_va/kernel (8, 2) float32" in result.stdout


def test_relative_path_and_other_folder(exported, monkeypatch, tmp_path):
    moved = tmp_path / "elsewhere" / "model"
    shutil.copytree(exported, moved)
    monkeypatch.chdir(moved.parent)
    assert_same(export.load(Path("model"))[0], make_variables())


def test_another_process_reads_it(exported, form):
    """On one device, though eight were here when it was written; the one form without JAX."""
    code = (
        "import sys; from mtl_face.weights import export;"
        "print(export.load(sys.argv[1])[1]['weights_sha256'], 'jax' in sys.modules)"
    )
    result = subprocess.run(
        [sys.executable, "-c", code, str(exported)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    sha = export.weights_sha256(make_variables())
    assert result.stdout.split() == [sha, str(form == "orbax")]
    assert result.stderr == ""


def test_replaces_an_export_of_either_form(exported):
    for form in export.FORMATS:
        export.save(exported, make_variables(1), make_card(), form=form)
        assert_same(export.load(exported)[0], make_variables(1))
        assert {path.name for path in exported.iterdir()} == CONTENTS[form]
    assert [path.name for path in exported.parent.iterdir()] == ["export"]


def test_what_a_kill_left_is_replaced(folder, form):
    (folder.parent / "export.incomplete" / "params").mkdir(parents=True)
    folder.mkdir()
    export.save(folder, make_variables(), make_card(), form=form)
    assert_same(export.load(folder)[0], make_variables())
    assert [path.name for path in folder.parent.iterdir()] == ["export"]


@pytest.mark.parametrize("names", [["photo.jpg"], ["model.json", "photo.jpg"], ["model.json"]])
def test_a_folder_of_someone_else(folder, names):
    folder.mkdir()
    for name in names:
        (folder / name).write_text("mine")
    with pytest.raises(WorkdirError, match="holds something that is no export"):
        export.save(folder, make_variables(), make_card())
    assert sorted(path.name for path in folder.iterdir()) == sorted(names)


def test_an_export_with_a_file_of_the_users(exported):
    (exported / "notes.txt").write_text("mine")
    with pytest.raises(WorkdirError, match="holds something that is no export"):
        export.save(exported, make_variables(1), make_card())
    assert_same(export.load(exported)[0], make_variables())


def test_a_file_in_the_way(folder):
    folder.write_text("mine")
    with pytest.raises(WorkdirError, match="holds something that is no export"):
        export.save(folder, make_variables(), make_card())
    with pytest.raises(WorkdirError, match="cannot be written: Not a directory"):
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
    monkeypatch.setattr(safetensors_file, "write", fail)
    with pytest.raises(WorkdirError, match="cannot be written: No space left on device"):
        export.save(folder, make_variables(), make_card(), form=form)
    assert not folder.exists()


def test_the_older_export_stays_if_the_new_one_fails(exported, form, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(ocp.StandardCheckpointer, "save", fail)
        patch.setattr(safetensors_file, "write", fail)
        with pytest.raises(WorkdirError, match="No space left"):
            export.save(exported, make_variables(1), make_card(), form=form)
    assert_same(export.load(exported)[0], make_variables())


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_values_that_are_not_finite_are_not_exported(folder, value):
    variables = make_variables()
    variables["params"]["head_va"]["bias"][1] = value
    with pytest.raises(ExportError, match=r"params/head_va/bias \(1 of 2 values\)"):
        export.save(folder, variables, make_card())
    assert not folder.exists()


def test_an_ancestor_of_another_run(exported, form):
    source = export.source(exported)
    assert source == {
        "file": "export",
        "format": f"mtl_face export ({form})",
        "sha256": export.weights_sha256(make_variables()),
        "step": 12,
        "provenance": make_card()["provenance"],
    }
    child = provenance.record(training_data=["own"], initial_weights=source)
    assert child["pretrained_on"] == ["s-Aff-Wild2"]


def error_of(path, place=None):
    with pytest.raises(ExportError) as raised:
        export.load(path)
    assert raised.value.remedy
    assert str(place or path) in str(raised.value)
    return raised.value.problem


class TestOlderAndNewer:
    """Cards of the orbax form lie in model.json, those of safetensors in the file itself."""

    @pytest.fixture
    def schema_1(self, folder):
        """An export byte for byte as version 0.1.0 wrote it."""
        folder.mkdir()
        with ocp.StandardCheckpointer() as checkpointer:
            checkpointer.save(folder / "params", make_variables())
        card = schema_1_card(export.weights_sha256(make_variables()))
        (folder / "model.json").write_text(json.dumps(card, indent=2) + "\n")
        return folder

    def test_older_schema_is_read(self, schema_1):
        variables, card = export.load(schema_1)
        assert_same(variables, make_variables())
        assert (card["schema"], card["read_from_schema"]) == (cards.SCHEMA, 1)
        assert card["provenance"]["training_data"] == ["s-Aff-Wild2"]

    def test_older_schema_is_still_checked(self, schema_1):
        change_card(schema_1, weights_sha256="0" * 64)
        assert error_of(schema_1).startswith("arrays hash to ")

    def test_newer_schema(self, exported):
        change_card(exported, schema=cards.SCHEMA + 1)
        problem = f"has a card of schema {cards.SCHEMA + 1}, this version reads up to 2"
        assert error_of(exported) == problem
        with pytest.raises(ExportError, match="newer"):
            export.read_card(exported)

    def test_other_labels(self, exported):
        tasks = make_card()["tasks"]
        tasks["va"]["outputs"].reverse()
        change_card(exported, tasks=tasks)
        assert "output 0 is arousal in the export, valence here" in error_of(exported)


def rewrite(path, change):
    """Writes a safetensors file again with other tensors or metadata."""
    tensors, metadata = safetensors_file.read(path)
    tensors, metadata = dict(tensors), dict(metadata)
    change(tensors, metadata)
    safetensors_file.write(path, tensors, metadata)


def change_card(folder, **changes):
    """Changes entries of an export's card, wherever it lies."""
    file = folder / "model.safetensors"
    if file.exists():

        def change(tensors, metadata):
            metadata["model_json"] = json.dumps(json.loads(metadata["model_json"]) | changes)

        rewrite(file, change)
    else:
        path = folder / "model.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def test_not_an_export(tmp_path):
    assert error_of(tmp_path).startswith("is no export")
    assert error_of(tmp_path / "absent").startswith("is no export: No such file")
    (tmp_path / "empty").write_bytes(b"")
    assert error_of(tmp_path / "empty") == "is cut off: it holds 0 bytes"
    (tmp_path / "text").write_text("mine, a photo or what not")
    assert error_of(tmp_path / "text").startswith("is no safetensors file")


def test_hash(exported):
    change_card(exported, weights_sha256="0" * 64)
    assert error_of(exported).startswith("arrays hash to ")


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("damage", ["gone", "cut", "empty", "metadata"])
def test_damaged_orbax(folder, damage):
    export.save(folder, make_variables(), make_card())
    params = folder / "params"
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
    assert error_of(folder).startswith("cannot be read: ")


def test_orbax_arrays_of_another_network(folder, tmp_path):
    export.save(folder, make_variables(), make_card())
    other = make_variables()
    other["params"]["head_expr"] = other["params"].pop("head_va")
    other["batch_stats"]["backbone"]["mean"] = np.zeros(9, np.float32)
    export.save(tmp_path / "other", other, make_card())
    shutil.rmtree(folder / "params")
    shutil.copytree(tmp_path / "other" / "params", folder / "params")
    problem = error_of(folder)
    assert "2 tensors of the card missing: params/head_va/bias, params/head_va/kernel" in problem
    assert "2 tensors unknown to the card: params/head_expr/bias" in problem
    assert "batch_stats/backbone/mean has shape [9], the card says [8]" in problem


class TestDamagedSafetensors:
    @pytest.fixture
    def file(self, folder):
        export.save(folder, make_variables(), make_card(), form="safetensors")
        return folder / "model.safetensors"

    def test_cut_anywhere(self, file):
        whole = file.read_bytes()
        header = 8 + int.from_bytes(whole[:8], "little")
        for length in (0, 5, 8, 9, header - 1, header, header + 1, len(whole) - 1):
            file.write_bytes(whole[:length])
            assert "cut off" in error_of(file), length
            with pytest.raises(ExportError):
                export.read_card(file)

    def test_bytes_after_the_end(self, file):
        file.write_bytes(file.read_bytes() + b"x")
        assert error_of(file).startswith("has bytes after its end")

    def test_header(self, file):
        whole = file.read_bytes()
        for damaged in (whole[:8] + b"\xff" + whole[9:], whole[:8] + b"[" + whole[9:]):
            file.write_bytes(damaged)
            assert error_of(file).startswith("has a damaged header")

    @pytest.mark.parametrize(
        "header",
        [
            "[]",
            "3",
            "{}",
            "[" * 5000,
            '{"x": 3}',
            '{"x": {}}',
            '{"x": {"data_offsets": []}}',
            '{"x": {"data_offsets": [0, "a"]}}',
            '{"__metadata__": 3}',
            '{"__metadata__": {}}',
            '{"__metadata__": {"model_json": 3}}',
        ],
    )
    def test_header_of_another_kind(self, file, header):
        text = header.encode()
        file.write_bytes(len(text).to_bytes(8, "little") + text)
        assert error_of(file)

    def test_every_flipped_bit_of_the_arrays_is_seen(self, file):
        whole = bytearray(file.read_bytes())
        start = 8 + int.from_bytes(whole[:8], "little")
        for place in range(start, len(whole), 97):
            damaged = bytearray(whole)
            damaged[place] ^= 1
            file.write_bytes(damaged)
            assert error_of(file).startswith("arrays hash to "), place

    def test_flipped_bits_of_the_header(self, file):
        """Nothing but the user's error, wherever the damage is."""
        whole = bytearray(file.read_bytes())
        length = 8 + int.from_bytes(whole[:8], "little")
        for place in range(0, length, 41):
            damaged = bytearray(whole)
            damaged[place] ^= 4
            file.write_bytes(damaged)
            error = None
            try:
                export.load(file)  # which may pass: a word of the card's prose
            except WeightsError as raised:
                error = raised
            assert error is None or error.remedy

    def test_pointer_of_git_lfs(self, file):
        file.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 3\n")
        assert error_of(file) == "is a pointer of Git LFS, not the file itself"

    def test_without_card(self, file):
        rewrite(file, lambda tensors, metadata: metadata.clear())
        assert "without a card" in error_of(file)

    def test_missing_tensor(self, file):
        rewrite(file, lambda tensors, metadata: tensors.pop("params/head_va/bias"))
        assert "1 tensor of the card missing: params/head_va/bias" in error_of(file)

    def test_surplus_tensor(self, file):
        rewrite(file, lambda tensors, metadata: tensors.update({"params/x": np.zeros(3)}))
        assert "1 tensor unknown to the card: params/x" in error_of(file)

    def test_wrong_shape(self, file):
        def change(tensors, metadata):
            tensors["params/head_va/kernel"] = tensors["params/head_va/kernel"].T

        rewrite(file, change)
        assert "params/head_va/kernel has shape [2, 8], the card says [8, 2]" in error_of(file)

    def test_wrong_dtype(self, file):
        def change(tensors, metadata):
            tensors["params/head_va/bias"] = tensors["params/head_va/bias"].astype(np.float16)

        rewrite(file, change)
        assert "params/head_va/bias is float16, the card says float32" in error_of(file)

    def test_nan(self, file):
        def change(tensors, metadata):
            kernel = tensors["params/head_va/kernel"].copy()
            kernel[3] = np.nan
            tensors["params/head_va/kernel"] = kernel

        rewrite(file, change)
        problem = "holds values that are not finite: params/head_va/kernel (2 of 16 values)"
        assert error_of(file) == problem

    @pytest.mark.parametrize("name", ["params", "other/x", "params/head_va/bias/x", "params//"])
    def test_name_that_fits_nowhere(self, file, name):
        def change(tensors, metadata):
            tensors[name] = np.zeros(1, np.float32)
            card = json.loads(metadata["model_json"])
            card["tensors"][name] = {"shape": [1], "dtype": "float32"}
            metadata["model_json"] = json.dumps(card)

        rewrite(file, change)
        assert f"a tensor named {name}, which fits nowhere" in error_of(file)

    def test_folder_instead_of_a_file(self, folder):
        (folder / "model.safetensors").mkdir(parents=True)
        assert error_of(folder).startswith("is no export")


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


def test_hash_is_that_of_schema_1():
    """Which was made of JAX's own names and order of the leaves."""
    import hashlib

    variables = make_variables()
    variables["params"]["b_10"] = variables["params"]["b_9"] = {"x": np.ones(3, np.float32)}
    digest = hashlib.sha256()
    for path, leaf in jax.tree_util.tree_flatten_with_path(variables)[0]:
        digest.update(jax.tree_util.keystr(path).encode())
        digest.update(str((leaf.shape, leaf.dtype.str)).encode())
        digest.update(np.ascontiguousarray(leaf).tobytes())
    assert export.weights_sha256(variables) == digest.hexdigest()
