"""The protocol, against a server that runs: files, frames, limits, and what stays secret."""

import contextlib
import http.client
import io
import json
import math
import re
import socket
import tempfile
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import small_videos
import websockets
from PIL import Image
from served import ConstructedModel, column, jpeg, message, serving, wait_until
from websockets.sync.client import connect

from mtl_face.errors import ImageError
from mtl_face.face_table import FaceTable
from mtl_face.serve.access import SECURITY_HEADERS
from mtl_face.serve.app import COLUMN_NAMES, FRAME_BYTES, Limits, rows
from mtl_face.tasks import AU_NAMES, EXPRESSION_NAMES


@pytest.fixture(scope="module")
def served():
    with serving() as served:
        yield served


def camera(served, name="camera", **how):
    return connect(f"ws://127.0.0.1:{served.port}/api/camera?name={name}", **how)


def test_rows_are_the_columns_of_the_table_without_nan():
    table = FaceTable.without_faces(["a.jpg"], [1], [math.nan])
    (row,) = rows(table)
    assert json.loads(json.dumps(row, allow_nan=False)) == row
    written = dict(zip(COLUMN_NAMES, row, strict=True))
    assert list(written) == list(table.columns())
    assert written["source"] == "a.jpg"
    assert written["status"] == "no face"
    assert written["time_ms"] is None
    assert written["au12_present"] == -1


def test_the_page_and_what_it_needs(served):
    kinds = {"/": "html", "/style.css": "css", "/app.js": "javascript", "/icon.svg": "svg"}
    for path, kind in kinds.items():
        status, headers, body = served.request("GET", path)
        assert (status, kind in headers["content-type"]) == (200, True), path
        assert body
    status, headers, body = served.request("GET", "/api/about")
    about = json.loads(body)
    assert about["columns"] == list(COLUMN_NAMES)
    assert list(about["aus"]) == list(AU_NAMES)
    assert about["expressions"] == list(EXPRESSION_NAMES)
    assert about["model"] == "constructed"
    assert headers["cache-control"] == "no-store"


def test_the_page_names_no_other_host_and_has_no_inline_code():
    folder = Path(__file__).parents[2] / "mtl_face/serve/page"
    for path in folder.iterdir():
        text = path.read_text(encoding="utf-8")
        found = set(re.findall(r"\w+://[\w.]*\w", text)) - {"http://www.w3.org", "http://127.0.0.1"}
        assert not found, path
    page = (folder / "index.html").read_text(encoding="utf-8")
    assert not re.search(r"\son\w+=|\sstyle=|<style|<script(?![^>]*\ssrc=)", page)


@pytest.mark.parametrize(
    "path",
    ["/app.py", "/../app.py", "/page/index.html", "/%2e%2e/app.py", "/etc/passwd", "/index.html",
     "//etc/passwd", "/api/", "/style.css/..", "/..%2fapp.py"],
)  # fmt: skip
def test_nothing_else_can_be_reached(served, path):
    status, headers, _ = served.request("GET", path)
    assert status == 404
    assert SECURITY_HEADERS.items() <= headers.items()


def test_a_photo(served):
    picture, done = served.send("C:\\photos\\anna.JPG", jpeg(200, 100))
    assert done == {"done": True}
    assert (picture["kind"], picture["width"], picture["height"]) == ("photo", 200, 100)
    assert column(picture["rows"], "source") == ["anna.JPG"]
    assert column(picture["rows"], "face_left") == [75.0]
    assert column(picture["rows"], "expression") == ["Happiness"]
    assert column(picture["rows"], "time_ms") == [None]


def test_a_photo_is_turned_upright(served):
    buffer = io.BytesIO()
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (200, 100), "white").save(buffer, "JPEG", exif=exif)
    picture, _ = served.send("anna.jpg", buffer.getvalue())
    assert (picture["width"], picture["height"]) == (100, 200)


def test_a_picture_without_a_face_is_a_row(served):
    picture, _ = served.send("dark.jpg", jpeg(value=0))
    assert column(picture["rows"], "status") == ["no face"]
    assert column(picture["rows"], "person") == [0]


def test_the_first_of_several_pictures_is_named(served):
    buffer = io.BytesIO()
    shades = [Image.new("RGB", (32, 32), (40 * i + 40,) * 3) for i in range(3)]
    shades[0].save(buffer, "GIF", save_all=True, append_images=shades[1:])
    picture, _ = served.send("moving.gif", buffer.getvalue())
    assert picture["is_first"] is True


def test_a_video(served, tmp_path):
    path = small_videos.write(tmp_path / "a.mp4", small_videos.grey_steps(10), rate=25)
    head, *answers, done = served.send("two%20words.mp4", path.read_bytes())
    assert head == {"kind": "video", "frames": 10}
    assert done == {"done": True}
    found = [row for answer in answers for row in answer["rows"]]
    assert column(found, "frame") == list(range(1, 11))
    assert column(found, "time_ms") == [40.0 * i for i in range(10)]
    assert set(column(found, "source")) == {"two words.mp4"}
    assert answers[-1]["damaged"] == 0


def test_frames_that_cannot_be_decoded_are_rows(served, tmp_path):
    pixels = np.random.default_rng(0).integers(0, 255, (12, 64, 96, 3), np.uint8)
    path = small_videos.write(
        tmp_path / "a.avi", list(pixels), codec="mjpeg", pixel_format="yuvj420p"
    )
    content = bytearray(path.read_bytes())
    starts = [found.start() for found in re.finditer(b"\xff\xd8\xff", bytes(content))]
    assert len(starts) == 12
    for start in (starts[4], starts[11]):  # one inside, and the last
        content[start : start + 1500] = b"\0" * 1500
    _, *answers, done = served.send("a.avi", bytes(content))
    found = [row for answer in answers for row in answer["rows"]]
    assert column(found, "frame") == list(range(1, 13))
    lost = [n for n, s in enumerate(column(found, "status"), 1) if s == "not decoded"]
    assert lost == [5, 12]
    assert answers[-1]["damaged"] > 0
    assert done == {"done": True}


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("note.jpg", b"not a picture", "note.jpg: this is a text file"),
        ("empty.png", b"", "empty.png: the file is empty"),
        ("note.mp4", b"not a video\n" * 100, "note.mp4: "),
        ("list.mp4", b"ffconcat version 1.0\nfile /etc/hostname\n", "list.mp4: this is no video"),
        ("cut.jpg", jpeg(400, 400)[:600], "cut.jpg: the image is "),
        ("evil\x1b[2J.jpg", b"x", "evil\\x1b[2J.jpg: "),
    ],
)
def test_a_bad_file_is_refused_with_a_message(served, name, content, words):
    (answer,) = served.send(name.replace("\x1b", "%1b"), content)
    assert answer["error"].startswith(words)
    assert tempfile.gettempdir() not in answer["error"]
    assert answer["remedy"]


def test_a_defect_is_no_silent_end(served, capfd):
    """Of an answer that breaks off, the page says so, since the last line is missing."""

    def fail(source):
        raise RuntimeError("a defect")

    with serving(ConstructedModel(before=fail)) as broken:
        status, _, body = 0, {}, b""
        with contextlib.suppress(Exception):
            status, _, body = broken.request("POST", "/api/file?name=a.jpg", jpeg())
    assert status in (0, 200)
    assert b"done" not in body
    assert "a defect" in capfd.readouterr().err


def test_nothing_is_kept(tmp_path, monkeypatch):
    """While a video is worked on, it lies in a folder of its own, which is gone afterwards."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    seen = []
    model = ConstructedModel(before=lambda source: seen.append(sorted(tmp_path.rglob("*"))))
    path = small_videos.write(tmp_path.parent / "a.mp4", small_videos.grey_steps(3))
    with serving(model) as served:
        served.send("private.mp4", path.read_bytes())
        served.send("private.jpg", jpeg())
        served.send("private.mp4", b"no video")
        served.request("POST", "/api/file?name=a.jpg", jpeg(), host="evil.example")
        assert list(tmp_path.iterdir()) == []
    names = {path.name for paths in seen for path in paths}
    assert "video" in names
    assert not any("private" in name for name in names)
    assert seen[-1][1:] == []  # of the photo, the empty folder is left


def test_a_client_that_leaves_leaves_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    path = small_videos.write(tmp_path.parent / "a.mp4", small_videos.grey_steps(30))
    entered, go_on = threading.Event(), threading.Event()

    def before(source):
        entered.set()
        assert go_on.wait(300)

    with serving(ConstructedModel(before=before), limits=Limits(clients=1)) as served:
        connection = http.client.HTTPConnection("127.0.0.1", served.port)
        connection.request("POST", "/api/file?name=a.mp4", path.read_bytes())
        assert entered.wait(300)
        assert list(tmp_path.iterdir())
        connection.close()
        go_on.set()
        wait_until(lambda: not list(tmp_path.iterdir()))
        assert served.send("a.jpg", jpeg())[-1] == {"done": True}  # its place is free


class TestLimits:
    def test_size_as_declared_and_as_it_comes(self):
        with serving(limits=Limits(upload_bytes=1_000_000)) as served:
            for encoding in ({}, {"transfer-encoding": "chunked"}):
                body = bytes(1_500_000) if not encoding else iter([bytes(500_000)] * 3)
                try:
                    status, _, text = served.request(
                        "POST", "/api/file?name=a.jpg", body, **encoding
                    )
                except (ConnectionError, BrokenPipeError):
                    continue  # the server need not read what it refuses
                assert status == 413
                assert "1 MB" in json.loads(text)["error"]
            assert served.send("a.jpg", jpeg())[-1] == {"done": True}

    def test_pixels(self):
        with serving(limits=Limits(pixels=5000)) as served:
            assert "more than 5,000 pixels" in served.send("a.jpg", jpeg(100, 60))[0]["error"]
            with camera(served) as desk:
                desk.send(message(0, jpeg(100, 60)))
                answer = json.loads(desk.recv())
            assert column(answer["rows"], "status") == ["not decoded"]

    def test_pixels_of_a_video(self, tmp_path):
        path = small_videos.write(tmp_path / "a.mp4", small_videos.grey_steps(2, (128, 96)))
        with serving(limits=Limits(pixels=5000)) as served:
            _, answer = served.send("a.mp4", path.read_bytes())
        assert "more than 5,000 pixels" in answer["error"]

    def test_a_large_photo_is_not_read_into_memory(self):
        with serving(limits=Limits(photo_bytes=100)) as served:
            (answer,) = served.send("a.jpg", jpeg())
        assert "at most 0 MB" in answer["error"]

    def test_time(self, tmp_path):
        """Long enough for the file to arrive; the first answer takes longer."""
        path = small_videos.write(tmp_path / "a.mp4", small_videos.grey_steps(30))
        waits = [3.1]
        model = ConstructedModel(before=lambda source: waits and time.sleep(waits.pop()))
        with serving(model, limits=Limits(seconds=3.0)) as served:
            _, first, last = served.send("a.mp4", path.read_bytes())
        assert first["frame"] < 30
        assert "stopped after 0.05 minutes" in last["error"]
        assert "--max_minutes" in last["remedy"]

    def test_a_silent_upload_ends(self):
        with (
            serving(limits=Limits(idle_seconds=0.1)) as served,
            socket.create_connection(("127.0.0.1", served.port)) as client,
        ):
            client.sendall(
                b"POST /api/file?name=a.jpg HTTP/1.1\r\nHost: localhost\r\n"
                b"Content-Length: 100\r\n\r\nhalf"
            )
            assert b" 408 " in client.makefile("rb").readline()

    def test_a_silent_camera_ends(self):
        with (
            serving(limits=Limits(idle_seconds=0.1)) as served,
            camera(served) as desk,
            pytest.raises(websockets.ConnectionClosedOK, match="no frame"),
        ):
            desk.recv()

    def test_number(self):
        with serving(limits=Limits(clients=1)) as served:
            with camera(served) as desk:
                desk.send(message(0))
                desk.recv()
                status, _, body = served.request("POST", "/api/file?name=a.jpg", jpeg())
                assert status == 503
                assert "try again" in json.loads(body)["error"]
                with (
                    camera(served) as second,
                    pytest.raises(websockets.ConnectionClosed, match="try again"),
                ):
                    second.recv()
            wait_until(lambda: served.request("POST", "/api/file?name=a", jpeg())[0] == 200)


class TestCamera:
    def test_answers_come_in_order_with_the_times_of_the_frames(self, served):
        with camera(served, "desk") as desk:
            for time_ms in (0.0, 33.5, 70.25):
                desk.send(message(time_ms, jpeg(64, 48)))
            answers = [json.loads(desk.recv()) for _ in range(3)]
        assert [answer["frame"] for answer in answers] == [1, 2, 3]
        found = [row for answer in answers for row in answer["rows"]]
        assert column(found, "time_ms") == [0.0, 33.5, 70.25]
        assert column(found, "source") == ["desk"] * 3
        assert (answers[0]["width"], answers[0]["height"]) == (64, 48)

    def test_a_damaged_frame_is_a_row_and_the_next_is_answered(self, served):
        with camera(served) as desk:
            desk.send(message(0, b"no JPEG"))
            desk.send(message(1))
            answers = [json.loads(desk.recv()) for _ in range(2)]
        statuses = [column(answer["rows"], "status") for answer in answers]
        assert statuses == [["not decoded"], ["ok"]]
        assert column(answers[0]["rows"], "frame") == [1]

    @pytest.mark.parametrize(
        ("content", "code"),
        [
            ("text", 1003),
            (b"short", 1007),
            (message(math.nan), 1007),
            (message(math.inf), 1007),
        ],
    )
    def test_what_is_no_message_ends_it(self, served, content, code):
        with camera(served) as desk:
            desk.send(content)
            with pytest.raises(websockets.ConnectionClosed) as closed:
                desk.recv()
        assert closed.value.rcvd.code == code

    def test_a_large_message_ends_it(self, served):
        with camera(served) as desk:
            with contextlib.suppress(websockets.ConnectionClosed):
                desk.send(bytes(FRAME_BYTES + 1))
            with pytest.raises(websockets.ConnectionClosed):
                desk.recv()
        with camera(served) as desk:
            desk.send(message(0))
            assert json.loads(desk.recv())["frame"] == 1

    def test_time_rises(self, served):
        with camera(served) as desk:
            desk.send(message(5))
            desk.recv()
            desk.send(message(5))
            with pytest.raises(websockets.ConnectionClosed, match="rising"):
                desk.recv()

    def test_a_second_client_is_answered_between_the_frames_of_the_first(self, tmp_path):
        """The frames of a video are many; the camera does not wait for it."""
        path = small_videos.write(tmp_path / "a.mp4", small_videos.grey_steps(28, (32, 32)))
        order = []
        model = ConstructedModel(before=order.append)
        with serving(model) as served, camera(served) as desk:
            desk.send(message(0))
            desk.recv()
            order.clear()
            thread = threading.Thread(target=served.send, args=("a.mp4", path.read_bytes()))
            thread.start()
            for number in range(1, 6):
                wait_until(lambda n=number: order.count("a.mp4") > n or not thread.is_alive())
                desk.send(message(number))
                desk.recv()
            thread.join()
        assert order.count("a.mp4") == 28
        assert order.count("camera") == 5
        assert "a.mp4" in order[order.index("camera") :]
        assert model.streams == ["camera", "a.mp4"]


class TestForeignPages:
    @pytest.mark.parametrize(
        "headers", [{"host": "evil.example"}, {"origin": "http://evil.example"}]
    )
    def test_of_requests(self, served, headers):
        for method, path in (("GET", "/"), ("POST", "/api/file?name=a.jpg")):
            status, answered, _ = served.request(method, path, jpeg(), **headers)
            assert status == 403
            assert "access-control-allow-origin" not in answered

    def test_of_sockets(self, served):
        with pytest.raises(websockets.InvalidStatus, match="403"):
            camera(served, origin="http://evil.example").close()
        with camera(served, origin=f"http://127.0.0.1:{served.port}") as desk:
            desk.send(message(0))
            assert json.loads(desk.recv())["frame"] == 1


def test_a_token_is_asked_for_and_kept_in_a_cookie():
    token = "a-long-secret-of-tests"
    with serving(token=token) as served:
        assert served.address.endswith(f"#token={token}")
        assert served.request("GET", "/")[0] == 200
        assert served.request("GET", "/api/about")[0] == 401
        with pytest.raises(websockets.InvalidStatus, match="403"):
            camera(served).close()
        bearer = {"authorization": f"Bearer {token}"}
        status, headers, _ = served.request("POST", "/api/session", **bearer)
        assert status == 204
        cookie = headers["set-cookie"]
        assert "HttpOnly" in cookie
        assert "SameSite=strict" in cookie
        kept = {"cookie": cookie.partition(";")[0]}
        assert served.request("GET", "/api/about", **kept)[0] == 200
        with camera(served, additional_headers=kept) as desk:
            desk.send(message(0))
            assert json.loads(desk.recv())["frame"] == 1
        assert served.request("POST", "/api/session", authorization="Bearer wrong")[0] == 401


def test_errors_of_the_model_reach_the_page():
    def fail(source):
        raise ImageError("the picture is odd", path="/secret/path", remedy="take another")

    with serving(ConstructedModel(before=fail)) as served:
        (answer,) = served.send("a.jpg", jpeg())
    assert answer == {"error": "a.jpg: the picture is odd", "remedy": "take another"}
