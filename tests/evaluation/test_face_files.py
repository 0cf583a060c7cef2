"""Tables of faces on disk: what is written is read again, and what is missing stays missing."""

import csv
import dataclasses
import errno
import json
import math

import numpy as np
import pandas as pd
import pytest

from mtl_face.errors import WorkdirError
from mtl_face.evaluation import face_files
from mtl_face.evaluation.face_files import FaceFileError
from mtl_face.face_table import FaceTable


def table_of(count=5, *, mesh=False, metadata=None):
    """Rows with faces, the second without one and the fourth without answers."""
    random = np.random.default_rng(0)
    table = FaceTable.without_faces(
        [f"=talk, {chr(34)}1{chr(34)}.mp4"] * count,
        range(1, count + 1),
        [1e6 * math.pi + 40 * row for row in range(count)],
        mesh=mesh,
        metadata=metadata,
    )
    fields = {
        "person": np.arange(1, count + 1),
        "status": np.asarray(["small+blurred"] * count),
        "baseline": np.asarray(["running mean"] * count),
        "expression": np.arange(count) % 8,
        "au_present": random.integers(0, 2, (count, 12)),
    }
    for name in ("score", "box", "landmarks", "pose", "va", "va_std", "au_probability"):
        fields[name] = random.uniform(-1, 2000, getattr(table, name).shape)
    probability = random.uniform(0, 1, (count, 8))
    fields["expression_probability"] = probability / probability.sum(axis=1, keepdims=True)
    if mesh:
        fields["mesh"] = random.uniform(0, 1000, (count, 468, 3))
    full = dataclasses.replace(table, **fields)
    silent = dataclasses.replace(
        full,
        **{
            name: getattr(table, name)
            for name in ("va", "va_std", "au_probability", "au_present", "expression", "baseline")
        },
        expression_probability=table.expression_probability,
    )
    parts = [full.take([0]), table.take([1]), full.take([2]), silent.take([3]), full.take([4])]
    return FaceTable.joined(parts[:count])


def assert_same(found, expected, *, exact):
    for name in expected._fields():
        one, other = getattr(found, name), getattr(expected, name)
        if one.dtype.kind == "f" and not exact:
            np.testing.assert_allclose(one, other, rtol=1e-5, atol=0)
        else:
            np.testing.assert_array_equal(one, other)
    assert found._fields() == expected._fields()


@pytest.mark.parametrize("mesh", [False, True])
@pytest.mark.parametrize("ending", face_files.ENDINGS)
def test_what_is_written_is_read(tmp_path, ending, mesh):
    table = table_of(mesh=mesh, metadata={"model": "a"})
    path = tmp_path / f"deep/er/t{ending}"
    face_files.write(table, path)
    found = face_files.read(path)
    assert_same(found, table, exact=ending == ".parquet")
    assert found.metadata == ({"model": "a"} if ending == ".parquet" else {})
    np.testing.assert_allclose(found.time_ms, table.time_ms, rtol=0, atol=0.0006)


@pytest.mark.parametrize("ending", face_files.ENDINGS)
def test_parts_are_joined(tmp_path, ending):
    table = table_of()
    path = tmp_path / f"t{ending.upper()}"
    with face_files.writing(path, mesh=False, metadata={}) as write:
        write(table.take([0, 1]))
        write(table.take(np.arange(0)))
        write(table.take([2, 3, 4]))
        assert not path.exists()
    assert_same(face_files.read(path), table, exact=ending == ".parquet")


@pytest.mark.parametrize("ending", face_files.ENDINGS)
def test_a_table_without_rows(tmp_path, ending):
    path = tmp_path / f"t{ending}"
    face_files.write(FaceTable.joined([]), path)
    assert len(face_files.read(path)) == 0


def test_others_read_the_files(tmp_path):
    """What is missing is missing for pandas and json, and no decision is -1."""
    table = table_of()
    for ending in face_files.ENDINGS:
        face_files.write(table, tmp_path / f"t{ending}")
    frames = {
        ".csv": pd.read_csv(tmp_path / "t.csv"),
        ".parquet": pd.read_parquet(tmp_path / "t.parquet"),
        ".jsonl": pd.read_json(tmp_path / "t.jsonl", lines=True),
    }
    for frame in frames.values():
        assert frame.person.tolist() == [1, 0, 3, 4, 5]
        assert frame.valence.isna().tolist() == [False, True, False, True, False]
        assert frame.au12_present.isna().tolist() == [False, True, False, True, False]
        assert set(frame.au12_present.dropna()) <= {0, 1}
        np.testing.assert_allclose(frame.valence, table.va[:, 0], rtol=1e-5)
        assert frame.expression.fillna("").tolist() == table.expression_name.tolist()
    assert [list(frame.columns) for frame in frames.values()] == [list(table.columns())] * 3
    first = json.loads((tmp_path / "t.jsonl").read_text().splitlines()[1])
    assert first["person"] == 0
    assert first["valence"] is None
    with (tmp_path / "t.csv").open(newline="") as file:
        assert next(csv.DictReader(file))["source"].startswith("'=")  # no formula


def test_a_name_that_is_no_text(tmp_path):
    table = FaceTable.without_faces(["caf\udce9.mp4"], [1], [0.0])
    for ending in face_files.ENDINGS:
        face_files.write(table, tmp_path / f"t{ending}")
        assert face_files.read(tmp_path / f"t{ending}").source.tolist() == ["caf\\udce9.mp4"]


@pytest.mark.parametrize("ending", face_files.ENDINGS)
def test_a_full_disk_leaves_nothing(tmp_path, ending):
    path = tmp_path / f"t{ending}"
    path.write_text("before")

    def fill():
        with face_files.writing(path, mesh=False, metadata={}) as write:
            write(table_of())
            raise OSError(errno.ENOSPC, "full")

    with pytest.raises(WorkdirError, match="No space left on device"):
        fill()
    assert path.read_text() == "before"
    assert list(tmp_path.iterdir()) == [path]


def test_names_of_no_format(tmp_path):
    for name, words in (("t.xlsx", r"ends in '\.xlsx'"), ("t", "has no ending")):
        with pytest.raises(FaceFileError, match=words):
            face_files.write(table_of(), tmp_path / name)
    assert list(tmp_path.iterdir()) == []


def test_files_that_are_no_tables(tmp_path):
    def fails(name, content, words):
        path = tmp_path / name
        path.write_bytes(content)
        with pytest.raises(FaceFileError, match=words) as raised:
            face_files.read(path)
        assert raised.value.remedy
        return raised.value

    with pytest.raises(FaceFileError, match="does not exist"):
        face_files.read(tmp_path / "gone.csv")
    fails("a.parquet", b"PAR1", "no readable Parquet")
    fails("a.csv", b"frame,source\n1,a\n", "no column time_ms")
    fails("b.csv", b"\xff\xfe\x00", "is no CSV")
    face_files.write(table_of(), tmp_path / "c.csv")
    text = (tmp_path / "c.csv").read_text()
    lines = text.splitlines()
    assert fails("d.csv", "\n".join([*lines, "1,2"]).encode(), "has 2 fields").line == 7
    fails("e.csv", text.replace(",small+blurred,", ",small+blurred,x", 1).encode(), "no number")
    fails("f.csv", text.replace("Happiness", "Angst").encode(), "'Angst' is no expression")
    face_files.write(table_of(), tmp_path / "g.jsonl")
    rows = (tmp_path / "g.jsonl").read_text()
    fails("i.jsonl", b"[" * 100_000, "is no row of a table")
    assert fails("h.jsonl", (rows + "{}\n").encode(), "other columns").line == 6
    assert fails("i.jsonl", (rows + "[]\n").encode(), "no row of a table").line == 6
