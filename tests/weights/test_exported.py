"""Exports of other versions, and whatever can be wrong with one, in words."""

import hashlib
import json
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
import pytest
from export_cases import assert_same, card_text, make_card, make_variables, schema_1_card

from mtl_face import export
from mtl_face.errors import WeightsError
from mtl_face.export import arrays
from mtl_face.weights import card as cards
from mtl_face.weights import exported, safetensors_file
from mtl_face.weights.card import ExportError


def error_of(path, place=None):
    with pytest.raises(ExportError) as raised:
        exported.load(path)
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
        card = schema_1_card(exported.weights_sha256(make_variables()))
        (folder / "model.json").write_text(json.dumps(card, indent=2) + "\n")
        return folder

    def test_older_schema_is_read(self, schema_1):
        variables, card = exported.load(schema_1)
        assert_same(variables, make_variables())
        assert (card["schema"], card["read_from_schema"]) == (cards.SCHEMA, 1)
        assert card["provenance"]["training_data"] == ["s-Aff-Wild2"]

    def test_older_schema_is_still_checked(self, schema_1):
        change_card(schema_1, weights_sha256="0" * 64)
        assert error_of(schema_1).startswith("arrays hash to ")

    def test_newer_schema(self, exported_folder):
        change_card(exported_folder, schema=cards.SCHEMA + 1)
        problem = (
            f"has a card of schema {cards.SCHEMA + 1}, this version reads up to {cards.SCHEMA}"
        )
        assert error_of(exported_folder) == problem
        with pytest.raises(ExportError, match="newer"):
            exported.read_card(exported_folder)

    def test_other_labels(self, exported_folder):
        tasks = make_card()["tasks"]
        tasks["va"]["outputs"].reverse()
        change_card(exported_folder, tasks=tasks)
        assert "output 0 is arousal in the export, valence here" in error_of(exported_folder)


def rewrite(path, change):
    """Writes a safetensors file again with other tensors or metadata; the card beside it too."""
    tensors, metadata = safetensors_file.read(path)
    tensors, metadata = dict(tensors), dict(metadata)
    change(tensors, metadata)
    arrays.write_safetensors(path, tensors, metadata)
    path.with_name("model.json").write_text(metadata.get("model_json", ""))


def change_card(folder, **changes):
    """Changes entries of an export's card, wherever it lies, and its hash with them."""
    file = folder / "model.safetensors"
    if file.exists():

        def change(tensors, metadata):
            card = cards.sealed(json.loads(metadata["model_json"]) | changes)
            metadata["model_json"] = json.dumps(card)

        rewrite(file, change)
    else:
        path = folder / "model.json"
        path.write_text(json.dumps(cards.sealed(json.loads(path.read_text()) | changes)))


def test_older_export_is_written_again_as_of_today(folder, tmp_path):
    export.save(folder, make_variables(), make_card(), form="safetensors")
    old = schema_1_card(exported.weights_sha256(make_variables()))
    rewrite(
        folder / "model.safetensors",
        lambda tensors, metadata: metadata.update(model_json=json.dumps(old)),
    )
    variables, card = exported.load(folder)
    export.save(tmp_path / "new", variables, card)
    again = exported.load(tmp_path / "new")[1]
    assert (again["schema"], again["read_from_schema"]) == (cards.SCHEMA, 1)
    assert again["config"] == card["config"]


@pytest.mark.parametrize("card", ["", "[1]", b"\xff", None])
def test_another_card_beside_a_safetensors_file(folder, card):
    """What stands in model.json is taken for true by who reads it, and changes nothing."""
    export.save(folder, make_variables(), make_card(), form="safetensors")
    beside = folder / "model.json"
    text = json.dumps(json.loads(beside.read_text()) | {"step": 7}) if card is None else card
    beside.write_bytes(text if isinstance(text, bytes) else text.encode())
    for path in (folder, folder / "model.safetensors"):
        assert "is not the card that lies inside model.safetensors" in error_of(path, beside)
    beside.unlink()
    exported.load(folder)


def test_orbax_arrays_that_no_bytes_stand_for(folder):
    """Zeros pack to nothing: their shape alone would take the memory."""
    folder.mkdir()
    with ocp.StandardCheckpointer() as checkpointer:
        checkpointer.save(folder / "params", {"params": {"x": np.zeros(20_000_000, np.float32)}})
    (folder / "model.json").write_text(card_text())
    assert "it claims more memory than a file of" in error_of(folder, folder / "params")


def test_not_an_export(tmp_path):
    assert error_of(tmp_path).startswith("is no export")
    assert error_of(tmp_path / "absent").startswith("is no export: No such file")
    (tmp_path / "empty").write_bytes(b"")
    assert error_of(tmp_path / "empty") == "is empty"
    for text in ("short", "mine, a photo or what not"):
        (tmp_path / "text").write_text(text)
        assert error_of(tmp_path / "text").startswith("is neither a run nor an export")


def test_hash(exported_folder):
    change_card(exported_folder, weights_sha256="0" * 64)
    assert error_of(exported_folder).startswith("arrays hash to ")


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
    assert "params/head_va/bias is absent, the card says float32 [2]" in problem
    assert "params/head_expr/bias is float32 [2], the card says absent" in problem
    assert "batch_stats/backbone/mean is float32 [9], the card says float32 [8]" in problem


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
            expected = {0: "is empty", 5: "is neither", 8: "is neither"}.get(length, "cut off")
            assert expected in error_of(file), length
            with pytest.raises(ExportError):
                exported.read_card(file)

    def test_bytes_after_the_end(self, file):
        file.write_bytes(file.read_bytes() + b"x")
        assert "file not fully covered" in error_of(file)

    def test_header(self, file):
        whole = file.read_bytes()
        for place in (9, 12, 40):
            file.write_bytes(whole[:place] + b"\xff" + whole[place + 1 :])
            assert "header" in error_of(file)

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
                exported.load(file)  # which may pass: a word of the card's prose
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
        assert "params/head_va/bias is absent, the card says float32 [2]" in error_of(file)

    def test_surplus_tensor(self, file):
        rewrite(file, lambda tensors, metadata: tensors.update({"params/x": np.zeros(3)}))
        assert "params/x is float64 [3], the card says absent" in error_of(file)

    def test_wrong_shape(self, file):
        def change(tensors, metadata):
            tensors["params/head_va/kernel"] = tensors["params/head_va/kernel"].T

        rewrite(file, change)
        assert "head_va/kernel is float32 [2, 8], the card says float32 [8, 2]" in error_of(file)

    def test_wrong_dtype(self, file):
        def change(tensors, metadata):
            tensors["params/head_va/bias"] = tensors["params/head_va/bias"].astype(np.float16)

        rewrite(file, change)
        assert "head_va/bias is float16 [2], the card says float32 [2]" in error_of(file)

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
            metadata["model_json"] = json.dumps(cards.sealed(card))

        rewrite(file, change)
        assert f"a tensor named {name}, which fits nowhere" in error_of(file)

    def test_folder_instead_of_a_file(self, folder):
        (folder / "model.safetensors").mkdir(parents=True)
        assert error_of(folder).startswith("is no export")


def test_hash_covers_names_shapes_types_and_values():
    variables = make_variables()
    hashes = [exported.weights_sha256(variables)]
    assert hashes[0] == exported.weights_sha256(jax.tree.map(jnp.asarray, variables))

    def changed(change):
        other = make_variables()
        change(other["params"]["head_va"])
        hashes.append(exported.weights_sha256(other))

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
    variables = make_variables()
    variables["params"]["b_10"] = variables["params"]["b_9"] = {"x": np.ones(3, np.float32)}
    digest = hashlib.sha256()
    for path, leaf in jax.tree_util.tree_flatten_with_path(variables)[0]:
        digest.update(jax.tree_util.keystr(path).encode())
        digest.update(str((leaf.shape, leaf.dtype.str)).encode())
        digest.update(np.ascontiguousarray(leaf).tobytes())
    assert exported.weights_sha256(variables) == digest.hexdigest()


def test_tensors_that_differ():
    good = {f"params/{i}": ((2, i), "float32") for i in range(6)}
    assert exported.tensor_differences(good, good, expected_by="the card") == []
    found = {name: spec for name, spec in good.items() if name != "params/3"}
    found |= {"params/4": ((4, 2), "float32"), "params/5": ((2, 5), "float16")}
    found |= {"params/x": ((), "float32"), "params/y": ((), "float32")}
    assert exported.tensor_differences(found, good, expected_by="the card") == [
        "params/3 is absent, the card says float32 [2, 3]",
        "params/4 is float32 [4, 2], the card says float32 [2, 4]",
        "params/5 is float16 [2, 5], the card says float32 [2, 5]",
        "params/x is float32 [], the card says absent",
        "params/y is float32 [], the card says absent",
    ]
    many = dict.fromkeys(good, ((9,), "float32"))
    assert exported.tensor_differences(many, good, expected_by="it")[-1] == "and 1 more"
