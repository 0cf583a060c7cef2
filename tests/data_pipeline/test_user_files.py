import pandas as pd
import pytest

from data_pipeline.formats.user_files import peek, read_columns
from mtl_face.errors import AnnotationError


@pytest.mark.parametrize(
    ("content", "rows"),
    [
        (b"\xef\xbb\xbfa, b ,c\r\n1, 2,3\r\n", [["a", "b", "c"], ["1", "2", "3"]]),
        (b'\n\n"frame", "AU01_r"\n1;2\n', [["frame", "AU01_r"], ["1;2"]]),
        (b'a;"b;c"\n', [["a", "b;c"]]),
        (b"x/a.jpg  5\n", [["x/a.jpg", "5"]]),
        (b"two words\n", [["two words"]]),
        (b"\n", []),
        (b"\xff\xfe\x00,\x01\n", [["\ufffd\ufffd\x00", "\x01"]]),
    ],
)
def test_first_rows(tmp_path, content, rows):
    path = tmp_path / "table"
    path.write_bytes(content)
    assert peek(path) == rows


def test_few_rows_are_looked_at(tmp_path):
    path = tmp_path / "table"
    path.write_text("a\n" * 100)
    assert len(peek(path)) == 3


def test_names_of_a_parquet_file(tmp_path):
    pd.DataFrame({"image": ["a.jpg"], "AU01": [1]}).to_parquet(tmp_path / "table")
    assert peek(tmp_path / "table") == [["image", "AU01"]]
    (tmp_path / "table").write_bytes(b"PAR1 no such thing")
    with pytest.raises(AnnotationError, match="no readable Parquet"):
        peek(tmp_path / "table")


def test_columns_without_a_header(tmp_path):
    path = tmp_path / "list.txt"
    path.write_text("a.jpg 5\n\nb.jpg  6\n")
    columns = read_columns(path, lambda name: name != "x", header=["image", "x"])
    assert (columns.cells, columns.others, columns.lines) == (
        {"image": ["a.jpg", "b.jpg"]},
        ["x"],
        [1, 3],
    )
    path.write_text("a.jpg 5\nb.jpg\n")
    with pytest.raises(AnnotationError, match="1 cells, the header has 2") as caught:
        read_columns(path, lambda name: True, header=["image", "expression"])
    assert caught.value.line == 2
