import csv
import dataclasses

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
from evaluation_tables import make_labels, make_predictions, without
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from mtl_face.errors import UserError, WorkdirError
from mtl_face.evaluation.prediction_files import lost, read, write
from mtl_face.tables import PredictionTable


def assert_equal_tables(actual, expected, *, metadata=True):
    for field in dataclasses.fields(expected):
        left, right = getattr(actual, field.name), getattr(expected, field.name)
        if field.name == "metadata":
            assert not metadata or left == right
        elif right is None:
            assert left is None
        else:
            assert left.dtype.kind == right.dtype.kind
            np.testing.assert_array_equal(left, right)


NAMES = st.text(
    st.characters(codec="utf-8", exclude_characters="\x00", exclude_categories=["Cs"]), max_size=8
)
FLOATS = st.floats(allow_nan=True, allow_infinity=True)


@st.composite
def tables(draw):
    n = draw(st.integers(0, 5))
    text = [np.array(draw(st.lists(NAMES, min_size=n, max_size=n)), np.str_) for _ in range(3)]
    with_std, with_spread = draw(st.booleans()), draw(st.booleans())
    values = [draw(hnp.arrays(np.float64, n, elements=FLOATS)) for _ in range(4)]
    spread = draw(hnp.arrays(np.float64, (n, 22), elements=FLOATS))
    return PredictionTable(
        dataset=text[0],
        video=text[1],
        image=text[2],
        frame=draw(hnp.arrays(np.int64, n, elements=st.integers(-(2**63), 2**63 - 1))),
        valence=values[0],
        arousal=values[1],
        valence_std=values[2] if with_std else None,
        arousal_std=values[3] if with_std else None,
        valence_epistemic_std=spread[:, 0] if with_spread else None,
        arousal_epistemic_std=spread[:, 1] if with_spread else None,
        au_epistemic_std=spread[:, 2:14] if with_spread else None,
        expression_epistemic_std=spread[:, 14:] if with_spread else None,
        au_logits=draw(hnp.arrays(np.float64, (n, 12), elements=FLOATS)),
        expression_logits=draw(hnp.arrays(np.float64, (n, 8), elements=FLOATS)),
        metadata=draw(st.dictionaries(NAMES, st.one_of(st.none(), st.integers(), NAMES))),
    )


@pytest.mark.parametrize("ending", ["parquet", "csv"])
@settings(
    deadline=None,
    derandomize=True,
    max_examples=60,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(table=tables())
def test_files_read_back_bit_for_bit(tmp_path, ending, table):
    path = tmp_path / f"predictions.{ending}"
    write(table, path)
    assert_equal_tables(read(path), table, metadata=ending == "parquet")
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


def test_columns_on_disk(tmp_path):
    table = make_predictions(make_labels(3))
    write(table, tmp_path / "p.parquet")
    names = pyarrow.parquet.read_schema(tmp_path / "p.parquet").names
    assert names[:8] == [
        "dataset", "video", "frame", "image", "valence", "arousal", "au1_logit", "au2_logit",
    ]  # fmt: skip
    assert names[17:19] == ["au26_logit", "expr_neutral_logit"]
    assert names[-1] == "expr_other_logit"


def test_names_in_csv_are_no_formulas(tmp_path):
    names = ["=cmd|'/c calc'!A0", "+1", "-1", "@x", "'=y", "plain"]
    table = make_predictions(make_labels(20))
    table = table.take(np.arange(len(names)))
    table = dataclasses.replace(table, video=np.array(names), image=np.array(names))
    write(table, tmp_path / "table.csv")
    with (tmp_path / "table.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert all(row["video"][0] not in "=+-@" for row in rows)
    assert [float(row["valence"]) for row in rows] == table.valence.tolist()
    assert_equal_tables(read(tmp_path / "table.csv"), table, metadata=False)


def test_a_csv_does_not_keep_that_it_was_smoothed():
    raw = make_predictions(make_labels(4))
    smoothed = dataclasses.replace(raw, metadata={"smoothing": {"kernel": "box"}})
    assert lost(smoothed, "a.parquet") == []
    assert lost(raw, "a.csv") == []
    (line,) = lost(smoothed, "a.csv")
    assert "does not say that it was smoothed" in line
    calibrated = dataclasses.replace(
        smoothed, metadata={**smoothed.metadata, "calibration": {"a": 1}}
    )
    assert lost(calibrated, "a.csv") == []


def test_csv_carries_the_decisions(tmp_path):
    table = make_predictions(make_labels(20))
    write(table, tmp_path / "p.csv")
    with open(tmp_path / "p.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 20
    for i, row in enumerate(rows):
        assert row["au7_present"] == str(int(table.au_logits[i, 4] > 0))
        logits = {k: float(v) for k, v in row.items() if k.startswith("expr_")}
        assert (
            max(logits, key=lambda name: logits[name]) == f"expr_{row['expression'].lower()}_logit"
        )


def test_thresholds_and_biases_of_the_metadata_decide():
    table = make_predictions(make_labels(50))
    thresholds, biases = np.linspace(-1, 1, 12), np.linspace(2, -2, 8)
    decisions = {"au_thresholds": list(thresholds), "expression_biases": list(biases)}
    decided = dataclasses.replace(table, metadata={"decisions": decisions}).take(np.arange(49))
    for row in range(49):
        assert list(decided.au[row]) == [
            logit > t for logit, t in zip(table.au_logits[row], thresholds, strict=True)
        ]
        biased = [x + b for x, b in zip(table.expression_logits[row], biases, strict=True)]
        assert decided.expression[row] == biased.index(max(biased))
    assert (decided.expression != table.expression[:49]).any()


def test_a_table_in_float32_is_widened_exactly():
    table = make_predictions(make_labels(5))
    narrow = dataclasses.replace(table, valence=table.valence.astype(np.float32))
    assert narrow.valence.dtype == np.float64
    np.testing.assert_array_equal(narrow.valence, table.valence.astype(np.float32))


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("valence", np.zeros(4)),
        ("au_logits", np.zeros((3, 11))),
        ("expression_logits", np.zeros(3)),
        ("video", np.array(["a"])),
        ("valence_std", np.zeros(3)),
        ("au_epistemic_std", np.zeros((3, 12))),
        ("metadata", {"decisions": {"au_thresholds": [float("nan")] * 12}}),
        ("metadata", {"decisions": {"expression_biases": [0.0]}}),
    ],
)
def test_wrong_shapes_are_refused(column, value):
    with pytest.raises(ValueError, match=column):
        dataclasses.replace(make_predictions(make_labels(3)), **{column: value})


def test_fractional_frame_numbers_are_refused():
    with pytest.raises(TypeError, match="safe"):
        dataclasses.replace(make_predictions(make_labels(3)), frame=np.array([0.5, 1.0, 2.0]))


def test_a_failed_write_leaves_the_old_file(tmp_path):
    path = tmp_path / "p.parquet"
    table = make_predictions(make_labels(3))
    write(table, path)
    before = path.read_bytes()
    with pytest.raises(TypeError):
        write(dataclasses.replace(table, metadata={"x": object()}), path)
    assert path.read_bytes() == before
    assert len(list(tmp_path.iterdir())) == 1


def test_places_that_cannot_be_written(tmp_path):
    table = make_predictions(make_labels(3))
    (tmp_path / "file").write_text("")
    (tmp_path / "folder.csv").mkdir()
    for path in (tmp_path / "file" / "p.csv", tmp_path / "folder.csv"):
        with pytest.raises(WorkdirError) as error:
            write(table, path)
        assert error.value.path
        assert error.value.remedy


def test_unknown_ending(tmp_path):
    with pytest.raises(UserError, match=r"\.xlsx"):
        write(make_predictions(make_labels(3)), tmp_path / "p.xlsx")


def test_a_file_from_before_there_was_a_choice_of_probability(tmp_path):
    temperatures = {"va": 0.3, "au": 2.0, "expr": 5.0}
    old = {"config": {"uncertainty": {"kind": "likelihood"}}, "temperatures": temperatures}
    fitted = {"definition": "fitted", "divisors": {"au": 2.0, "expr": 5.0}}
    table = make_predictions(make_labels(3))
    write(dataclasses.replace(table, metadata=old), tmp_path / "p.parquet")
    assert read(tmp_path / "p.parquet").metadata == {**old, "probability": fitted}


def test_a_renamed_file_is_recognised(tmp_path):
    table = make_predictions(make_labels(3))
    write(table, tmp_path / "p.parquet")
    (tmp_path / "p.parquet").rename(tmp_path / "p.csv")
    assert_equal_tables(read(tmp_path / "p.csv"), table)


def write_wrong_files(folder):
    table = make_predictions(make_labels(4))
    write(table, folder / "good.parquet")
    write(table, folder / "good.csv")
    whole = (folder / "good.parquet").read_bytes()
    lines = (folder / "good.csv").read_text().splitlines()
    (folder / "empty").write_bytes(b"")
    (folder / "cut.parquet").write_bytes(whole[: len(whole) // 2])
    (folder / "only_magic.parquet").write_bytes(b"PAR1")
    (folder / "picture.jpg").write_bytes(bytes(range(256)))
    (folder / "annotation.txt").write_text("image,valence,arousal\nvideo1/00001.jpg,0.1,0.2\n")
    (folder / "short.csv").write_text("\n".join([*lines[:3], lines[3].rsplit(",", 1)[0]]))
    (folder / "word.csv").write_text("\n".join([*lines[:2], lines[2].replace(".", "x")]))
    dataset, video, _, rest = lines[2].split(",", 3)
    far = ",".join([dataset, video, str(2**63), rest])
    (folder / "far.csv").write_text("\n".join([*lines[:2], far]))
    (folder / "twice.csv").write_text(lines[0] + ",video\n")
    (folder / "quote.csv").write_text(lines[0] + '\n"a"b,c\n')
    columns = {name: pyarrow.array(c) for name, c in table.columns().items()}
    for name, change in {
        "lacks": {"au7_logit": None},
        "text": {"valence": pyarrow.array(["a"] * 4)},
        "null": {"valence": pyarrow.array([0.1, None, 0.2, 0.3])},
        "float_frame": {"frame": pyarrow.array([0.5, 1.0, 2.0, 3.0])},
    }.items():
        changed = {k: v for k, v in {**columns, **change}.items() if v is not None}
        pyarrow.parquet.write_table(pyarrow.table(changed), folder / f"{name}.parquet")
    half = {**columns, "valence_std": pyarrow.array([0.1] * 4)}
    pyarrow.parquet.write_table(pyarrow.table(half), folder / "half.parquet")
    for name, metadata in {
        "damaged": b"{",
        "no_mapping": b"[1]",
        "decisions": b'{"decisions": {"au_thresholds": [0.5]}}',
    }.items():
        damaged = pyarrow.table(columns, metadata={b"mtl_face.predictions": metadata})
        pyarrow.parquet.write_table(damaged, folder / f"{name}.parquet")
    calibrated = {"decisions": {"au_thresholds": [9.0] * 12}}
    write(dataclasses.replace(table, metadata=calibrated), folder / "calibrated.csv")
    return folder


@pytest.mark.parametrize(
    ("name", "problem", "line"),
    [
        ("missing.parquet", "the file of predictions does not exist", None),
        (".", "this is a folder, not the file of predictions", None),
        ("empty", "is empty", None),
        ("cut.parquet", "no readable Parquet", None),
        ("only_magic.parquet", "no readable Parquet", None),
        ("picture.jpg", "neither Parquet nor CSV", None),
        ("annotation.txt", "has no column dataset, video, frame, and", 1),
        ("short.csv", "fields, the header has", 4),
        ("word.csv", "is no number", 3),
        ("far.csv", "is no frame number", 3),
        ("twice.csv", "'video' more than once", 1),
        ("quote.csv", "neither Parquet nor CSV", None),
        ("lacks.parquet", "no column au7_logit", None),
        ("text.parquet", "valence has type string", None),
        ("null.parquet", "valence has 1 empty values", None),
        ("float_frame.parquet", "frame has type double", None),
        ("half.parquet", "arousal_std not among them", None),
        ("damaged.parquet", "damaged metadata", None),
        ("no_mapping.parquet", "damaged metadata", None),
        ("decisions.parquet", "damaged metadata", None),
        ("calibrated.csv", "CSV does not carry the calibration", None),
    ],
)
def test_wrong_files_get_one_clear_message(tmp_path, name, problem, line):
    path = write_wrong_files(tmp_path) / name
    with pytest.raises(UserError, match=problem) as error:
        read(path)
    assert error.value.path == str(path)
    assert error.value.remedy
    assert error.value.line == line


@pytest.mark.parametrize("ending", ["parquet", "csv"])
def test_a_task_that_was_never_trained_stays_left_out(tmp_path, ending):
    table = without(make_predictions(make_labels(30)), "va", "expr")
    path = tmp_path / f"p.{ending}"
    write(table, path)
    found = read(path)
    assert_equal_tables(found, table, metadata=ending == "parquet")
    assert found.untrained == ("va", "expr")
