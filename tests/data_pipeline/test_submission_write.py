import dataclasses

import numpy as np
import pytest
from submission_tables import listing, prediction_table

from data_pipeline.formats.submission import read_submission
from data_pipeline.formats.submission_write import write_submission
from data_pipeline.formats.test_list import load_test_list
from mtl_face.errors import UserError, WorkdirError

KEYS = [("b", 7), ("a", 1), ("b", 2), ("a", 4)]


@pytest.mark.parametrize(
    "edition", ["abaw3_mtl", "abaw11_mtl", "abaw5_va", "abaw6_expr", "abaw8_au"]
)
def test_what_is_written_reads_back(tmp_path, edition):
    table = prediction_table(KEYS)
    keys = [KEYS[2], KEYS[0], KEYS[1], KEYS[2]]  # another order, one twice, one not asked for
    path = listing(tmp_path, keys)
    wanted = load_test_list(path, "")
    rows = np.array([2, 0, 1, 2])
    output = tmp_path / "new" / "predictions.txt"
    for _ in range(2):  # the second replaces the first
        assert write_submission(
            output,
            edition=edition,
            test_list=wanted,
            predictions=table,
            rows=rows,
            list_path=path,
        ) == [output]
    back, _ = read_submission(output)
    assert list(zip(back.video, back.frame, strict=True)) == keys
    if "va" in back.tasks:
        np.testing.assert_allclose(back.valence, table.valence[rows].clip(-1, 1), atol=5e-7, rtol=0)
        np.testing.assert_allclose(back.arousal, table.arousal[rows].clip(-1, 1), atol=5e-7, rtol=0)
    if "expr" in back.tasks:
        np.testing.assert_array_equal(back.expression, table.expression[rows])
    if "au" in back.tasks:
        np.testing.assert_array_equal(back.au, table.au[rows])
    assert sorted(tmp_path.joinpath("new").iterdir()) == [output]  # nothing half-written stays


def test_small_values_are_written_without_exponent(tmp_path):
    table = prediction_table(KEYS[:1])
    table.valence[0], table.arousal[0] = 1e-5, -1e-9
    path = listing(tmp_path, KEYS[:1])
    output = tmp_path / "out.txt"
    write_submission(
        output,
        edition="abaw5_va",
        test_list=load_test_list(path, ""),
        predictions=table,
        rows=np.array([0]),
        list_path=path,
    )
    assert output.read_text() == ("image_location,valence,arousal\nb/00007.jpg,0.000010,0.000000\n")


def test_tasks_that_are_not_answered(tmp_path):
    path = listing(tmp_path, [("a", 1)])
    silent = dataclasses.replace(prediction_table([("a", 1)]), au_logits=None)
    with pytest.raises(UserError, match="no answer for au, which abaw7_mtl asks for"):
        write_submission(
            tmp_path / "out.txt",
            edition="abaw7_mtl",
            test_list=load_test_list(path, ""),
            predictions=silent,
            rows=np.array([0]),
            list_path=path,
        )
    assert not (tmp_path / "out.txt").exists()


def test_places_that_cannot_be_written(tmp_path):
    path = listing(tmp_path, [("a", 1)])
    arguments = {
        "test_list": load_test_list(path, ""),
        "predictions": (prediction_table([("a", 1)])),
        "rows": np.array([0]),
        "list_path": path,
    }
    with pytest.raises(WorkdirError, match="cannot be written"):
        write_submission(path / "x.txt", edition="abaw4_mtl", **arguments)
    with pytest.raises(WorkdirError, match="no empty folder"):
        write_submission(tmp_path, edition="abaw3_va", **arguments)


def test_names_are_written_exactly_as_the_list_has_them(tmp_path):
    """What a spreadsheet would take for a formula included: a server compares the bytes."""
    keys = [("=1+1", 1), ("-b", 2), ("@c", 3)]
    path = listing(tmp_path, keys)
    wanted = load_test_list(path, "")
    write_submission(
        tmp_path / "predictions.txt",
        edition="abaw5_va",
        test_list=wanted,
        predictions=prediction_table(keys),
        rows=np.arange(3),
        list_path=path,
    )
    rows = (tmp_path / "predictions.txt").read_bytes().split(b"\n")[1:-1]
    assert [row.split(b",")[0].decode() for row in rows] == list(wanted.image)
    assert rows[0].startswith(b"=1+1/")
