import csv
import errno
import os
import tempfile

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mtl_face.errors import WorkdirError
from mtl_face.files import (
    disk_failure,
    make_folder,
    plain_cell,
    reason,
    replacing,
    replacing_folder,
    safe_cell,
    sha256,
    unreadable,
    unwritable,
    write_csv,
    write_text,
)


def test_a_block_that_raises_leaves_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / "result.txt"
    path.write_text("old")

    def write_half():
        with replacing(path) as temporary:
            temporary.write_text("half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_half()
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_the_file_is_replaced_at_the_end_of_the_block(tmp_path):
    path = tmp_path / "new folder" / "result.txt"
    with replacing(path) as temporary:
        temporary.write_text("new")
        assert not path.exists()
    assert path.read_text() == "new"
    assert list(path.parent.iterdir()) == [path]


def test_a_link_leads_to_the_file(tmp_path):
    (tmp_path / "target").write_text("old")
    (tmp_path / "link").symlink_to("target")
    write_text(tmp_path / "link", "new")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "target").read_text() == "new"


@pytest.mark.parametrize("linked", [False, True])
def test_a_pipe_is_not_replaced(tmp_path, linked):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link").symlink_to("pipe")
    path = tmp_path / ("link" if linked else "pipe")
    with pytest.raises(WorkdirError, match="device or a pipe"):
        write_text(path, "new")
    assert sorted(file.name for file in tmp_path.iterdir()) == ["link", "pipe"]


def test_permissions_are_those_of_any_new_file(tmp_path):
    (tmp_path / "plain").write_text("")
    with replacing(tmp_path / "replaced") as temporary:
        temporary.write_text("")
    assert (tmp_path / "replaced").stat().st_mode == (tmp_path / "plain").stat().st_mode


def test_a_disk_that_refuses_is_the_users_error(tmp_path):
    path = tmp_path / "result.txt"
    path.write_text("old")

    def write_too_much():
        with replacing(path):
            raise OSError(errno.ENOSPC, "Detail: [errno 28]")

    with pytest.raises(WorkdirError, match=r"result\.txt: cannot be written \(No space left"):
        write_too_much()
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EIO, errno.EINVAL, None])
def test_a_file_is_on_the_disk_before_it_takes_its_name(tmp_path, monkeypatch, code):
    """EINVAL: of a file system that cannot say."""
    path = tmp_path / "result.txt"
    path.write_text("old")
    seen = []

    def fsync(descriptor):
        seen.append((os.fstat(descriptor).st_size, path.read_text()))
        if code is not None:
            raise OSError(code, "")

    def write():
        with replacing(path) as temporary:
            temporary.write_text("newer")

    monkeypatch.setattr(os, "fsync", fsync)
    refused = code in (errno.ENOSPC, errno.EIO)
    if refused:
        with pytest.raises(WorkdirError, match="cannot be written"):
            write()
    else:
        write()
    assert seen == [(5, "old")]
    assert path.read_text() == ("old" if refused else "newer")
    assert list(tmp_path.iterdir()) == [path]


def test_a_folder_appears_whole_or_not_at_all(tmp_path):
    folder = tmp_path / "result"
    (tmp_path / "result.incomplete").mkdir()  # as a kill leaves it
    (tmp_path / "result.incomplete" / "old").write_text("")

    def write(content, error=None):
        with replacing_folder(folder) as temporary:
            assert list(temporary.iterdir()) == []
            (temporary / "file").write_text(content)
            if error is not None:
                raise error

    write("first")
    full = ValueError("RESOURCE_EXHAUSTED: [os_error_code='28'] [tensorstore_spec='{}']")
    for error in (OSError(errno.ENOSPC, ""), full):
        with pytest.raises(WorkdirError, match=r"result: cannot be written \(No space left"):
            write("second", error)
    with pytest.raises(KeyError):
        write("third", KeyError("a defect"))
    assert (folder / "file").read_text() == "first"
    assert list(tmp_path.iterdir()) == [folder]
    write("fourth")
    assert (folder / "file").read_text() == "fourth"


def test_failures_of_the_disk_are_told_from_others():
    denied = OSError(errno.EACCES, "what a library says")
    assert disk_failure(denied) is denied
    assert reason(denied) == "Permission denied"
    assert reason(disk_failure(ValueError("[os_error_code='30']"))) == "Read-only file system"
    assert disk_failure(ValueError("shapes differ")) is None


@pytest.mark.parametrize(
    ("code", "words"),
    [
        (errno.ENOSPC, "free some space, or choose"),
        (errno.EACCES, "correct the permissions, or choose"),
        (errno.EROFS, "make the file system writable, or choose"),
        (errno.ENAMETOOLONG, "shorten the name, or choose"),
        (errno.EIO, "check the disk, or choose"),
        (None, "check the disk, or choose"),
    ],
)
def test_the_remedy_fits_what_the_system_says(code, words):
    error = OSError("words of a library") if code is None else OSError(code, "")
    assert (unwritable("folder", error).remedy or "").startswith(words)


@pytest.mark.parametrize(
    ("code", "problem", "remedy"),
    [
        (errno.ENOENT, "the file does not exist", "check the path"),
        (errno.ENOTDIR, "the file does not exist", "check the path"),
        (errno.EISDIR, "this is a folder, not the file", "name the file inside it"),
        (errno.EACCES, "no permission to read the file", "make it readable"),
        (errno.ENAMETOOLONG, "cannot be read (File name too long)", "check the path"),
        (errno.EIO, "cannot be read (Input/output error)", "check the disk"),
    ],
)
def test_what_a_failed_reading_means(code, problem, remedy):
    said = unreadable(OSError(code, ""), "file")
    assert problem in said[0]
    assert remedy in said[1]


def test_a_folder_that_takes_no_file_is_refused_at_once(tmp_path, monkeypatch):
    def refuse(dir):
        raise OSError(errno.EROFS, "", str(dir))

    monkeypatch.setattr(tempfile, "TemporaryFile", refuse)
    with pytest.raises(WorkdirError, match=r"cannot be written \(Read-only file system\)"):
        make_folder(tmp_path)


def test_a_file_in_the_way_is_named_as_such(tmp_path):
    (tmp_path / "file").write_text("")
    for path in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(WorkdirError, match="the file that is in the way, or name another"):
            make_folder(path, otherwise="or name another")
    with (
        pytest.raises(WorkdirError, match="the file that is in the way, or choose another folder"),
        replacing_folder(tmp_path / "file"),
    ):
        pass


def test_sha256(tmp_path):
    path = tmp_path / "abc"
    path.write_bytes(b"abc")
    assert sha256(path).startswith("ba7816bf8f01cfea414140de5dae2223b00361a3")  # FIPS 180-4


@given(st.text("'=+-@\t\r\n ab1", max_size=6))
def test_no_spreadsheet_takes_a_cell_for_a_formula(text):
    cell = safe_cell(text)
    assert plain_cell(cell) == text
    assert cell[:1] not in [*"=+-@\t\r\n"]
    if text[:1] not in [*"'=+-@\t\r\n"]:
        assert cell == text


def test_csv_holds_numbers_as_they_are_and_names_as_safe_cells(tmp_path):
    rows = [
        ("name", "value"),
        ("=HYPERLINK(1)", -0.5),
        ("-1", -1),
        ('a,"b"\r', 1e-7),
        ("\udcff", 0),
    ]
    write_csv(tmp_path / "table.csv", rows)
    with (tmp_path / "table.csv").open(newline="", encoding="utf-8") as file:
        found = list(csv.reader(file))
    assert found == [
        ["name", "value"],
        ["'=HYPERLINK(1)", "-0.5"],
        ["'-1", "-1"],
        ['a,"b"\r', "1e-07"],
        ["\\udcff", "0"],
    ]
