"""Submissions: the prediction of each row of a test list, and the commands."""

import numpy as np
import pytest
from evaluation_tables import without
from submission_tables import listing, prediction_table

from data_pipeline.formats.submission import read_submission
from data_pipeline.formats.test_list import load_test_list
from mtl_face.cli import main
from mtl_face.errors import AnnotationError
from mtl_face.evaluation import prediction_files
from mtl_face.run.submit import match_list
from mtl_face.tables import PredictionError
from mtl_face.weights import provenance


def test_rows_are_found_by_their_key(tmp_path):
    table = prediction_table([("b", 7), ("a", 1), ("b", 2), ("a", 4)])
    # another order, one twice, one not asked for
    path = listing(tmp_path, [("b", 2), ("b", 7), ("a", 1), ("b", 2)])
    rows, filled = match_list(load_test_list(path, ""), table, list_path=path)
    assert rows.tolist() == [2, 0, 1, 2]
    assert not filled.any()


def test_rows_without_a_prediction(tmp_path):
    table = prediction_table([("a", 10), ("a", 20)])
    path = listing(tmp_path, [("a", 10), ("a", 14), ("a", 15), ("a", 16), ("a", 99), ("b", 1)])
    wanted = load_test_list(path, "")
    with pytest.raises(AnnotationError) as caught:
        match_list(wanted, table, list_path=path)
    assert caught.value.line == 3
    assert [f"a/{n:05d}.jpg" in caught.value.problem for n in (10, 14, 15, 16, 99)] == [
        False, True, True, True, True
    ]  # fmt: skip
    assert "--fill=nearest" in caught.value.remedy
    with pytest.raises(AnnotationError, match=r"line 7: .*any other frame of its video") as caught:
        match_list(wanted, table, list_path=path, fill="nearest")
    rows, filled = match_list(wanted.take(range(5)), table, list_path=path, fill="nearest")
    assert rows.tolist() == [0, 0, 0, 1, 1]  # of two equally near, the earlier
    assert filled.tolist() == [False, True, True, True, True]


def test_several_predictions_of_one_image(tmp_path):
    table = prediction_table([("a", 1), ("a", 1), ("b", 1)])
    path = listing(tmp_path, [("a", 1), ("a", 1), ("b", 1)])
    rows, _ = match_list(load_test_list(path, ""), table, list_path=path)
    assert rows.tolist() == [0, 1, 2]  # one for each row of the list
    path = listing(tmp_path, [("a", 1), ("b", 1)])
    with pytest.raises(PredictionError, match=r"1 rows have several predictions .*/a frame 1"):
        match_list(load_test_list(path, ""), table, list_path=path)
    same = table.take(np.array([0, 0, 2]))
    rows, _ = match_list(load_test_list(path, ""), same, list_path=path)
    assert rows.tolist() == [0, 2]


def run(capsys, *arguments):
    status = main.main([str(argument) for argument in arguments])
    return status, *capsys.readouterr()


def test_commands(tmp_path, capsys):
    keys = [("b", 1), ("a", 1), ("a", 2)]
    table = prediction_table(keys, {"provenance": provenance.record(training_data=["s-Aff-Wild2"])})
    prediction_files.write(table, tmp_path / "p.parquet")
    common = ("--edition=abaw7_mtl", f"--test_list={listing(tmp_path, [*keys, ('a', 5)])}")
    output = tmp_path / "out.txt"
    submit = ("submit", f"--predictions={tmp_path / 'p.parquet'}", f"--output={output}", *common)
    status, out, err = run(capsys, *submit)
    assert (status, out) == (2, "")
    assert "list.txt, line 5: no prediction for a/00005.jpg" in err
    assert not output.exists()

    diverged = table.take(np.arange(3))
    diverged.valence[2] = np.nan
    prediction_files.write(diverged, tmp_path / "nan.parquet")
    words = [word.replace("p.parquet", "nan.parquet") for word in submit]
    status, _, err = run(capsys, *words)
    assert status == 2
    assert "1 of 3 predictions are not finite, the first at s_aff_wild2/a frame 2" in err

    status, out, err = run(capsys, *submit, "--fill=nearest")
    assert (status, err) == (0, "")
    assert "warning" not in out
    assert f"clipped to [-1, 1]: {(np.abs(table.valence) > 1).sum()}\n" in out
    assert "filled from the nearest frame of their video: 1\n" in out
    assert f"the submission: {output}" in out
    assert "next: " in out

    validate = ("validate", f"--submission={output}", *common)
    status, out, err = run(capsys, *validate)
    assert (status, err) == (0, "")
    assert "accepted" in out

    output.write_text(output.read_text().replace("a/00002.jpg", "a/00003.jpg") + "\n")
    status, out, err = run(capsys, *validate)
    assert (status, err) == (1, "")
    assert f"{output}, line 4: 'a/00003.jpg' is not in the list" in out
    assert "list.txt, line 4: 'a/00002.jpg' has no row in" in out
    assert f"{output}, line 6: a blank line" in out
    assert "rejected: 3 deviations" in out

    status, _, err = run(capsys, *validate[:-1], f"--test_list={tmp_path / 'none'}")
    assert status == 2
    assert "does not exist" in err
    status, out, _ = run(capsys, *validate[:2], "--edition=abaw5_va", common[1])
    assert status == 1
    assert out.startswith("the header is not that of abaw5_va: is it the right --edition?\n")
    for command in (validate, submit):  # an unknown edition is reported before faults of the files
        words = [*command[:-2], "--edition=abaw9_mtl", f"--test_list={tmp_path / 'none'}"]
        status, _, err = run(capsys, *words)
        assert status == 2
        assert "unknown edition 'abaw9_mtl'" in err


def test_submit_warns_of_weights_that_the_rules_forbid(tmp_path, capsys):
    listed = listing(tmp_path, [("a", 1), ("a", 2)])
    for number, (origin, words) in enumerate(
        [
            (
                provenance.record(training_data=["x"], pretrained_on=["Aff-Wild2"]),
                "warning: weights pre-trained on Aff-Wild2 were used",
            ),
            (None, "warning: the weights record no provenance"),
        ]
    ):
        metadata = {} if origin is None else {"provenance": origin}
        path = tmp_path / f"{number}.parquet"
        prediction_files.write(prediction_table([("a", 1), ("a", 2)], metadata), path)
        status, out, _ = run(
            capsys,
            *("submit", f"--predictions={path}", f"--output={tmp_path / 'f' / str(number)}"),
            *("--edition=abaw3_expr", f"--test_list={listed}"),
        )
        assert status == 0
        assert words in out
        assert (tmp_path / "f" / str(number) / "a.txt").exists()


def test_submit_takes_calibrated_decisions_and_warns_for_each_member(tmp_path, capsys):
    keys = [("a", 1), ("a", 2), ("b", 1)]
    clean = provenance.record(training_data=["x"])
    forbidden = provenance.record(training_data=["x"], pretrained_on=["Aff-Wild2"])
    thresholds = np.linspace(-2.0, 2.0, 12)
    biases = np.linspace(3.0, -3.0, 8)
    table = prediction_table(
        keys,
        {
            "ensemble": {"members": [{"provenance": clean}, {"provenance": forbidden}]},
            "decisions": {
                "au_thresholds": thresholds.tolist(),
                "expression_biases": biases.tolist(),
            },
        },
    )
    prediction_files.write(table, tmp_path / "p.parquet")
    output = tmp_path / "out.txt"
    status, out, _ = run(
        capsys,
        *("submit", f"--predictions={tmp_path / 'p.parquet'}", f"--output={output}"),
        *("--edition=abaw7_mtl", f"--test_list={listing(tmp_path, keys)}"),
    )
    assert status == 0
    assert "warning: weights pre-trained on Aff-Wild2 were used" in out
    assert "no provenance" not in out
    written, _ = read_submission(output)
    np.testing.assert_array_equal(written.au, table.au_logits > thresholds)
    np.testing.assert_array_equal(
        written.expression, np.argmax(table.expression_logits + biases, axis=1)
    )
    assert (written.au != (table.au_logits > 0)).any()


def test_a_submission_of_a_task_that_was_never_trained_is_refused_unless_forced(tmp_path, capsys):
    keys = [("a", 1), ("a", 2)]
    decisions = {"au_thresholds": [-9.0] * 12, "expression_biases": [0.0] * 7 + [9.0]}
    table = prediction_table(keys, {"decisions": decisions})
    output = tmp_path / "out.txt"
    listed = listing(tmp_path, keys)

    def submit(table, edition, *more):
        prediction_files.write(table, tmp_path / "p.parquet")
        words = (f"--predictions={tmp_path / 'p.parquet'}", f"--output={output}")
        return run(capsys, "submit", *words, f"--edition={edition}", f"--test_list={listed}", *more)

    status, out, err = submit(without(table, "va"), "abaw7_mtl")
    assert (status, out) == (2, "")
    assert "trained without a label of va, which abaw7_mtl asks for" in err
    assert "--fill_untrained" in err
    assert not output.exists()
    status, out, err = submit(without(table, "va"), "abaw7_mtl", "--fill_untrained")
    assert (status, err) == (0, "")
    assert "warning: va was never trained" in out
    written, _ = read_submission(output)
    np.testing.assert_array_equal(written.va, 0)
    np.testing.assert_array_equal(written.au, table.au)
    assert submit(without(table, "au", "expr"), "abaw7_mtl", "--fill_untrained")[0] == 0
    written, _ = read_submission(output)
    assert not written.au.any()
    assert not written.expression.any()
    np.testing.assert_allclose(written.va, np.clip(table.va, -1, 1), atol=1e-6)
    assert submit(without(table, "va"), "abaw6_au")[0] == 0  # which asks for no valence
