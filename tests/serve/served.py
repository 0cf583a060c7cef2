"""A running server with a constructed model, and what a client without a browser says to it."""

import contextlib
import dataclasses
import http.client
import io
import json
import struct
import threading
import time

import numpy as np
from PIL import Image

from mtl_face.face_table import FaceTable
from mtl_face.serve import server
from mtl_face.serve.app import COLUMN_NAMES, Limits


@dataclasses.dataclass
class ConstructedModel:
    """Answers that are known in advance: `faces` persons side by side in every picture.

    A black picture has none. `before` is called before each answer with the name of the source.
    """

    name: str = "constructed"
    faces: int = 1
    before: object = None
    streams: list = dataclasses.field(default_factory=list)

    def photo(self, picture, source):
        return self._answer(1, None, picture, source)

    def stream(self, source):
        self.streams.append(source)
        return _Stream(self, source)

    def _answer(self, number, seconds, picture, source):
        if self.before is not None:
            self.before(source)
        count = self.faces
        time_ms = np.nan if seconds is None else 1000 * seconds
        table = FaceTable.without_faces([source] * max(count, 1), [number] * max(count, 1),
                                        [time_ms] * max(count, 1))  # fmt: skip
        if not count or np.asarray(picture).max() < 10:
            return table.take(np.arange(1))
        width, height = picture.size
        middle = (np.arange(count) + 0.5) * width / count
        half = np.minimum(width / count, height) / 4
        probability = np.linspace(0.05, 0.95, 12)
        expression = np.full(8, 0.05)
        expression[4] = 0.65
        phase = 0.15 * number + np.arange(count)
        return dataclasses.replace(
            table,
            person=np.arange(count) + 1,
            status=np.full(count, "ok"),
            score=np.full(count, 0.97),
            box=np.stack([middle - half, np.full(count, height / 2 - half),
                          middle + half, np.full(count, height / 2 + half)], axis=1),
            pose=np.tile([8.0, -3.0, 1.0], (count, 1)),
            baseline=np.full(count, "running mean"),
            va=np.stack([0.6 * np.cos(phase), 0.5 * np.sin(phase)], axis=1),
            va_std=np.full((count, 2), 0.2),
            au_probability=np.tile(probability, (count, 1)),
            au_present=np.tile(probability > 0.5, (count, 1)),
            expression=np.full(count, 4),
            expression_probability=np.tile(expression, (count, 1)),
        )  # fmt: skip


@dataclasses.dataclass
class _Stream:
    model: ConstructedModel
    source: str

    def update(self, frames):
        return [
            self.model._answer(frame.number, frame.seconds, frame.picture, self.source)
            for frame in frames
        ]


@dataclasses.dataclass
class Served:
    """Where a server is; `printed` is what it said."""

    address: str
    printed: list

    @property
    def port(self):
        return int(self.address.rpartition(":")[2].partition("/")[0])

    def request(self, method, path, body=None, **headers):
        """Status, headers and body of a request with exactly these headers, and a Host."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=300)
        headers = {"host": f"127.0.0.1:{self.port}", **headers}
        with contextlib.closing(connection):
            chunked = "transfer-encoding" in headers
            connection.request(method, path, body, headers, encode_chunked=chunked)
            response = connection.getresponse()
            return response.status, dict(response.headers), response.read()

    def send(self, name, content, **headers):
        """Answers to a file, a list of objects."""
        status, _, body = self.request("POST", f"/api/file?name={name}", content, **headers)
        assert status == 200, body
        return [json.loads(line) for line in body.splitlines()]


@contextlib.contextmanager
def serving(model=None, *, limits=None, **options):
    """Serves in a thread on a free port until the block ends."""
    printed = []
    ready = threading.Event()
    running = []

    def say(line):
        printed.append(line)
        if line.startswith("Ctrl-C"):
            ready.set()

    def run():
        where = server.Options(port=0, limits=limits or Limits(), **options)
        server.serve(where, lambda: model or ConstructedModel(), say, started=running.append)

    thread = threading.Thread(target=run)
    thread.start()
    assert ready.wait(300)
    try:
        yield Served(printed[0].removeprefix("open "), printed)
    finally:
        running[0].should_exit = True
        thread.join(300)
        assert not thread.is_alive()


def jpeg(width=64, height=48, value=120):
    """A picture of one brightness as a JPEG file."""
    buffer = io.BytesIO()
    Image.new("RGB", (width, height), (value,) * 3).save(buffer, "JPEG")
    return buffer.getvalue()


def message(time_ms, content=None):
    """A camera's message."""
    return struct.pack(">d", time_ms) + (jpeg() if content is None else content)


def column(rows, name):
    """The values of a column of rows as they were sent."""
    return [row[COLUMN_NAMES.index(name)] for row in rows]


def wait_until(condition, seconds=300):
    """Waits for what another thread does."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)
