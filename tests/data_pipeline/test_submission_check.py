import itertools
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_pipeline.formats.submission_check import longest_ascent, validate_submission
from data_pipeline.formats.test_list import load_test_list
from mtl_face.errors import AnnotationError, ConfigError

HEADER = "image,valence,arousal,expression,aus"
AUS = "0,1,0,1,0,1,0,1,0,1,0,1"
IMAGES = [
    "b/00003.jpg", "b/00001.jpg", "a/00001.jpg", "b/00001.jpg", "a/00009.jpg", "c_left/00002.jpg"
]  # fmt: skip


def row(image, affect="0.25,-0.5", expression="3", units=AUS):
    return f"{image},{affect},{expression},{units}"


ROWS = [row(image) for image in IMAGES]


@pytest.fixture
def listed(tmp_path):
    """A list as it is handed out: a header, trailing commas, an image twice, no order."""
    path = tmp_path / "list.txt"
    path.write_text("\n".join([HEADER, *(f"{image}," for image in IMAGES)]) + "\n")
    return path


def validate(tmp_path, listed, lines, edition="abaw7_mtl", end="\n"):
    """(line, problem) of each deviation, lines of the test list marked."""
    path = tmp_path / "submission.txt"
    path.write_text("\n".join(lines) + end)
    found = validate_submission(
        path,
        edition=edition,
        test_list=load_test_list(listed, tmp_path),
        list_path=listed,
    )
    return [
        (
            deviation.line if deviation.path == str(path) else f"list {deviation.line}",
            deviation.kind,
        )
        for deviation in found
    ]


def test_accepts_what_is_asked_for(tmp_path, listed):
    assert validate(tmp_path, listed, [HEADER, *ROWS]) == []
    assert validate(tmp_path, listed, [HEADER, *ROWS], end="") == []
    assert validate(tmp_path, listed, [HEADER, *ROWS], edition="abaw3_mtl") == []


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({1: None}, [(6, "row count"), ("list 2", "missing")]),
        ({1: ROWS[0] + "\n" + ROWS[0]}, [(3, "duplicate"), (8, "row count")]),
        ({1: ROWS[1], 2: ROWS[0]}, [(2, "order")]),
        ({1: ROWS[5], 6: ROWS[0]}, [(2, "order"), (7, "order")]),
        ({3: row("z/00001.jpg")}, [(4, "surplus"), ("list 4", "missing")]),
        ({3: row("a/1.jpg")}, [(4, "image id")]),
        ({3: row("a\\00001.jpg")}, [(4, "image id"), (4, "image id")]),
        ({0: HEADER + ",x"}, [(1, "header")]),
        ({0: ROWS[0]}, [(1, "header"), (2, "duplicate"), (7, "row count")]),
        ({4: ROWS[3] + ","}, [(5, "trailing comma")]),
        ({4: ROWS[3][:-2]}, [(5, "fields")]),
        ({4: ROWS[3] + ",1"}, [(5, "fields")]),
        ({4: row(IMAGES[3], affect="1.01,nan")}, [(5, "range"), (5, "not finite")]),
        ({4: row(IMAGES[3], affect="-5,-inf")}, [(5, "range"), (5, "not finite")]),
        ({4: row(IMAGES[3], affect=",0")}, [(5, "number")]),
        ({4: row(IMAGES[3], expression="8")}, [(5, "range")]),
        ({4: row(IMAGES[3], expression="-1")}, [(5, "range")]),
        ({4: row(IMAGES[3], expression="3.0")}, [(5, "spelling")]),
        ({4: row(IMAGES[3], units=AUS[:-1] + "2")}, [(5, "range")]),
        ({4: row(IMAGES[3], units="0.7" + AUS[1:])}, [(5, "range")]),
        ({4: "\n" + ROWS[3]}, [(5, "blank line")]),
        ({4: " " + ROWS[3]}, [(5, "blanks")]),
        ({4: ROWS[3] + "\r"}, [(1, "line ends")]),
    ],
)
def test_names_each_deviation_by_line(tmp_path, listed, change, expected):
    lines: list[str | None] = [HEADER, *ROWS]
    for position, line in change.items():
        lines[position] = line
    assert validate(tmp_path, listed, [line for line in lines if line is not None]) == expected


def test_another_kind_of_file_is_not_told_image_by_image(tmp_path, listed):
    assert validate(tmp_path, listed, ["<html>"]) == [(1, "header"), (1, "row count")]
    assert validate(tmp_path, listed, [HEADER]) == [(1, "row count")]
    found = validate(tmp_path, listed, [HEADER, row("z/00001.jpg")])
    assert [kind for _, kind in found].count("missing") == len(ROWS)


def test_names_all_of_many(tmp_path, listed):
    lines = [HEADER, *(line + "," for line in ROWS)]
    lines[2] = row(IMAGES[1], affect="2,x", expression="9", units="3" + AUS[1:]) + ",,"
    assert validate(tmp_path, listed, lines) == [
        *[(2, "trailing comma"), (3, "trailing comma"), (3, "range"), (3, "number")],
        *[(3, "range"), (3, "range")],
        *[(number, "trailing comma") for number in (4, 5, 6, 7)],
    ]


def test_messages(tmp_path, listed):
    path = tmp_path / "submission.txt"
    path.write_text("\n".join([HEADER, *ROWS[1:], ROWS[0]]) + "\n")
    (found,) = validate_submission(
        path, edition="abaw4_mtl", test_list=load_test_list(listed, ""), list_path=listed
    )
    assert str(found) == (
        f"{path}, line 7: 'b/00003.jpg' is out of order: it is line 2 there ({listed})"
    )


@settings(deadline=None, derandomize=True, max_examples=100)
@given(st.lists(st.sampled_from(range(30)), unique=True, max_size=10), st.randoms())
def test_moved_rows_alone_are_out_of_order(moved, source):
    order = list(range(30))
    for value in moved:
        order.remove(value)
    rest = list(order)
    for value in moved:
        order.insert(source.randrange(len(order) + 1), value)
    kept = longest_ascent(order)
    assert [order[index] for index in kept] == sorted(order[index] for index in kept)
    assert len(kept) >= len(rest)  # never more rows named than were moved


def test_longest_ascent_against_all_subsets():
    source = random.Random(0)
    for _ in range(50):
        values = [source.randrange(6) for _ in range(8)]
        best = 0
        for subset in range(1 << len(values)):
            chosen = [value for bit, value in enumerate(values) if subset >> bit & 1]
            if all(a < b for a, b in itertools.pairwise(chosen)):
                best = max(best, len(chosen))
        assert len(longest_ascent(values)) == best


def one_file_a_video(tmp_path, files, listing="a,2\nb_left,1\n"):
    folder = tmp_path / "submission"
    folder.mkdir()
    for name, text in files.items():
        (folder / name).write_text(text)
    path = tmp_path / "list.txt"
    path.write_text(listing)
    found = validate_submission(
        folder, edition="abaw3_va", test_list=load_test_list(path, ""), list_path=path
    )
    return [(d.path.removeprefix(f"{folder}/"), d.line, d.kind) for d in found]


def test_one_file_a_video(tmp_path):
    good = {"a.txt": "valence,arousal\n0,0\n0,1\n", "b_left.txt": "valence,arousal\n0,0\n"}
    for number, (change, expected) in enumerate(
        [
            ({}, []),
            ({"a.txt": "valence,arousal\n0,0\n"}, [("a.txt", 2, "row count")]),
            ({"a.txt": "valence,arousal\n0,0\n0,0\n0,0"}, [("a.txt", 4, "row count")]),
            ({"a.txt": "valence,arousal\n0,0\n0,2\n"}, [("a.txt", 3, "range")]),
            ({"a.txt": "0,0\n0,0\n"}, [("a.txt", 1, "header")]),
            ({"b.txt": "valence,arousal\n0,0\n"}, [("b.txt", 1, "surplus")]),
        ]
    ):
        place = tmp_path / str(number)
        place.mkdir()
        assert one_file_a_video(place, good | change) == expected
    (tmp_path / "missing").mkdir()
    del good["b_left.txt"]
    assert one_file_a_video(tmp_path / "missing", good) == [("b_left.txt", 1, "missing")]


def test_the_list_must_fit_the_edition(tmp_path, listed):
    table = load_test_list(listed, "")
    with pytest.raises(AnnotationError, match="frame 3 of video 'b' comes where frame 1") as caught:
        validate_submission(tmp_path, edition="abaw3_va", test_list=table, list_path=listed)
    assert caught.value.line == 2
    with pytest.raises(ConfigError, match="unknown edition 'abaw9_mtl'"):
        validate_submission(tmp_path, edition="abaw9_mtl", test_list=table, list_path=listed)
    path = tmp_path / "counts.txt"
    path.write_text("a,2\n")
    table = load_test_list(path, "")
    with pytest.raises(AnnotationError, match="no folder"):
        validate_submission(path, edition="abaw3_va", test_list=table, list_path=path)


def test_lists_of_frame_counts(tmp_path):
    path = tmp_path / "list.txt"
    path.write_text("video,frames\n1-30-1280x720,2,\n\nb_left,1\n")
    table = load_test_list(path, "/images")
    assert list(table.image) == [
        "1-30-1280x720/00001.jpg", "1-30-1280x720/00002.jpg", "b_left/00001.jpg"
    ]  # fmt: skip
    assert list(table.row) == [2, 2, 4]
    for text, line, words in [
        ("a\nb\n", 1, "'a' has no number of frames"),
        ("a,2\nb,x\n", 2, "no video and number of frames"),
        ("a,0\n", 1, "0 frames"),
        ("a,99999999999\n", 1, "99999999999 frames"),
        ("a,2\na,2\n", 2, "video 'a' stands on line 1 already"),
        ("..,2\n", 1, "no name of a video"),
        ("a,2\nb,2\n../c,2\n", 3, "no name of a video"),
        ("a,2\nb,2\nc\\d,2\n", 3, "no name of a video"),
        ("a,9000000\nb,9000000\n", 1, "more than 10,000,000"),
        ("video,frames\n", 1, "no videos"),
    ]:
        path.write_text(text)
        with pytest.raises(AnnotationError) as caught:
            load_test_list(path, "/images")
        assert (caught.value.path, caught.value.line) == (str(path), line)
        assert words in caught.value.problem


def test_lists_of_the_one_task_challenges(tmp_path):
    path = tmp_path / "list.txt"
    for header in (
        "image_location,valence,arousal",
        "image_location,Neutral,Anger,Disgust,Fear,Happiness,Sadness,Surprise,Other",
        "image_location,AU1,AU2,AU4,AU6,AU7,AU10,AU12,AU15,AU23,AU24,AU25,AU26",
        "image",
    ):
        path.write_text(f"{header}\nb/00001.jpg,,\na/00001.jpg,\n")
        table = load_test_list(path, "/images")
        assert list(table.image) == ["b/00001.jpg", "a/00001.jpg"]
        assert (list(table.row), set(table.dataset)) == ([2, 3], {"s-aff-wild2"})
