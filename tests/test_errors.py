import pytest

from mtl_face.errors import UserError, escaped, exact, quoted


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("clip é 日本\u3000語 .mp4", "clip é 日本\u3000語 .mp4"),
        ("two\nlines", "two\nlines"),
        ("\x1b[31mred\x07\r\t\x7f\x9b", r"\x1b[31mred\x07\r\t\x7f\x9b"),
        ("gpj.\u202eexe", r"gpj.\u202eexe"),
        ("\udcff\u2028", r"\udcff\u2028"),
    ],
)
def test_what_nobody_sees_is_escaped(text, shown):
    assert escaped(text) == shown
    assert shown.encode()  # can be written
    assert escaped(shown) == shown


def test_the_message_of_an_error_is_escaped_and_its_parts_are_not():
    error = UserError("holds \x1b[2J", path="a\nb\x07", line=3, remedy="rename \u202ea")
    assert str(error) == "a\\nb\\x07, line 3: holds \\x1b[2J\n  -> rename \\u202ea"
    assert error.path == "a\nb\x07"


def test_long_values_are_cut():
    assert quoted("a\tb") == r"'a\tb'"
    assert quoted("x" * 81) == "'" + "x" * 80 + "'..."
    assert quoted("x" * 80) == "'" + "x" * 80 + "'"
    assert quoted("abc", 2) == "'ab'..."


def test_numbers_have_the_digits_that_matter():
    assert exact(9.0) == "9"
    assert exact(-5) == "-5"
    assert exact(1.0000001) == "1.0000001"
    assert exact(2.5) == "2.5"
    assert exact(float("inf")) == "inf"
    assert float(exact(0.1 + 0.2)) == 0.1 + 0.2
