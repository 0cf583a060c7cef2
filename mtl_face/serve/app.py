"""The page and its questions: files over HTTP, frames of a camera over a WebSocket.

    GET  /, /style.css, ...   files of the page, read once at the start
    GET  /api/about           model, names of the columns, limits
    POST /api/session         keeps the token of the Authorization header in a cookie
    POST /api/file?name=NAME  the body is a photo or a video; the answer is JSON Lines
    WS   /api/camera?name=... a message: time in ms as a big-endian float64, then a JPEG image;
                              the answer: one JSON object

A page that answers by itself (`in_page`) has no use for the last two, and there are none then:

    GET  /api/networks/NAME.onnx, /runtime/NAME

Rows of `FaceTable` travel as lists in the order of `COLUMN_NAMES`, null for NaN. Nothing is kept:
a photo stays in memory, a video lies in a temporary folder until its answer is complete.
"""

import asyncio
import contextlib
import dataclasses
import importlib.resources
import itertools
import json
import math
import struct
import tempfile
from collections.abc import AsyncIterator, Callable, Generator, Iterator, Sequence
from pathlib import Path, PurePath
from typing import Any

import anyio
from anyio.streams.memory import MemoryObjectSendStream
from PIL import Image
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import BaseRoute, Route, WebSocketRoute
from starlette.types import ASGIApp
from starlette.websockets import WebSocket, WebSocketDisconnect

from mtl_face import pictures
from mtl_face.errors import ImageError, UserError, escaped
from mtl_face.face_table import COLUMNS, NO_BASELINE, NOT_DECODED, RUNNING_MEAN, FaceTable
from mtl_face.faces import video as videos
from mtl_face.faces.video import VideoFrame
from mtl_face.serve.access import IN_PAGE_HEADERS, Access, Guard
from mtl_face.serve.in_page import InPage
from mtl_face.serve.model import Model, Stream, Turns
from mtl_face.tasks import AU_DESCRIPTIONS, AU_NAMES, EXPRESSION_NAMES

COLUMN_NAMES = tuple(name for field, names in COLUMNS.items() if field != "mesh" for name in names)
"""Columns of the rows that are sent: all but the mesh."""

FRAME_BYTES = 4_000_000
"""Most bytes of a message of a camera."""

_MEDIA_TYPES = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".mjs": "text/javascript; charset=utf-8",
    ".onnx": "application/octet-stream",
    ".svg": "image/svg+xml",
    ".wasm": "application/wasm",
}
_BATCH = 8  # frames of a video for one turn, while nobody else waits for one
_TIME = struct.Struct(">d")
_MOST_MS = 1e12

_CameraFrame = tuple[int, float, Image.Image | None]
"""Number, time in ms, and picture; None if it cannot be decoded."""


@dataclasses.dataclass(frozen=True)
class Limits:
    """What one client may ask for.

    Attributes:
        upload_bytes: of one file.
        photo_bytes: of one photo, which is read into memory.
        pixels: of one photo or frame.
        seconds: for one file, from its first byte to its last row.
        clients: files and cameras that are worked on at the same time.
        idle_seconds: without a byte of a file or a frame of a camera.
    """

    upload_bytes: int = 1_000_000_000
    photo_bytes: int = 100_000_000
    pixels: int = 50_000_000
    seconds: float = 3600.0
    clients: int = 8
    idle_seconds: float = 60.0


class _RefusedError(Exception):
    """A file that is not accepted: status and reason."""

    def __init__(self, status: int, reason: str) -> None:
        self.status, self.reason = status, reason


def make_app(
    model: Model | InPage,
    *,
    limits: Limits,
    access: Access,
    secure: bool = False,
    is_stopping: Callable[[], bool] = lambda: False,
) -> ASGIApp:
    """The application.

    Args:
        model: what answers, or what the page needs to do so by itself.
        limits: of each client.
        access: who may ask.
        secure: whether it is reached by https alone.
        is_stopping: whether work that takes long should end.
    """

    async def session(request: Request) -> Response:
        response = Response(status_code=204)
        if access.token is not None:
            response.set_cookie(
                access.cookie, access.token, httponly=True, samesite="strict", secure=secure
            )
        return response

    routes: list[BaseRoute] = [*_page(), Route("/api/session", session, methods=["POST"])]
    if isinstance(model, InPage):
        routes += _in_page(model, limits)
        return Guard(Starlette(routes=routes), access, IN_PAGE_HEADERS)
    service = _Service(model, limits, is_stopping)
    routes += [
        Route("/api/about", service.about),
        Route("/api/file", service.file, methods=["POST"]),
        WebSocketRoute("/api/camera", service.camera),
    ]
    return Guard(Starlette(routes=routes), access)


def _page() -> Iterator[Route]:
    """A route for each file of the page. No other file can be reached."""
    for file in importlib.resources.files("mtl_face.serve").joinpath("page").iterdir():
        media_type = _MEDIA_TYPES.get(PurePath(file.name).suffix)
        if media_type is not None:
            path = "/" if file.name == "index.html" else f"/{file.name}"
            yield Route(path, _constant(file.read_bytes(), media_type))


def _in_page(model: InPage, limits: Limits) -> Iterator[Route]:
    """What a page that answers by itself asks for."""
    networks = model.networks
    about = {
        **_about(model.name, min(limits.upload_bytes, limits.photo_bytes)),
        "videos": [],
        "in_page": True,
        "pixels": limits.pixels,
        "crop_size": networks.crop_size,
        "baselines": [NO_BASELINE, RUNNING_MEAN] if networks.takes_points else [],
        "decisions": networks.decisions,
        "precision": networks.precision,
        "empty": rows(FaceTable.without_faces([""], [1], [math.nan]))[0],
    }
    yield Route("/api/about", _constant(json.dumps(about).encode(), "application/json"))
    for name, content in networks.files().items():
        yield Route(f"/api/networks/{name}.onnx", _constant(content, _MEDIA_TYPES[".onnx"]))
    for name, content in model.runtime.items():
        yield Route(f"/runtime/{name}", _constant(content, _MEDIA_TYPES[PurePath(name).suffix]))


def _about(name: str, upload_bytes: int) -> dict[str, Any]:
    """What the page needs to know at its start."""
    return {
        "model": name,
        "columns": COLUMN_NAMES,
        "aus": dict(zip(AU_NAMES, AU_DESCRIPTIONS, strict=True)),
        "expressions": EXPRESSION_NAMES,
        "videos": sorted(pictures.VIDEO_ENDINGS),
        "photos": sorted(pictures.endings()),
        "upload_bytes": upload_bytes,
    }


def _constant(content: bytes, media_type: str) -> Any:
    async def answer(request: Request) -> Response:
        return Response(content, media_type=media_type)

    return answer


def rows(table: FaceTable) -> list[list[Any]]:
    """The rows of a table as JSON values in the order of `COLUMN_NAMES`."""
    columns = table.columns()
    return [
        list(row)
        for row in zip(
            *([_json(value) for value in columns[name].tolist()] for name in COLUMN_NAMES),
            strict=True,
        )
    ]


def _json(value: Any) -> Any:
    if isinstance(value, float):
        return round(value, 4) if math.isfinite(value) else None
    return value


class _Service:
    """Answers for one model. Files and cameras take turns at its network."""

    def __init__(self, model: Model, limits: Limits, is_stopping: Callable[[], bool]) -> None:
        self._model, self._limits, self._is_stopping = model, limits, is_stopping
        self._turns = Turns()
        self._clients = 0

    async def about(self, request: Request) -> Response:
        """What the page needs to know at its start."""
        return JSONResponse(_about(self._model.name, self._limits.upload_bytes))

    @contextlib.contextmanager
    def _place(self) -> Iterator[None]:
        """One of the places for clients; _RefusedError if all are taken."""
        if self._clients >= self._limits.clients:
            raise _RefusedError(
                503, f"{self._clients} files and cameras are being worked on: try again later"
            )
        self._clients += 1
        try:
            yield
        finally:
            self._clients -= 1

    async def file(self, request: Request) -> Response:
        """Faces of a photo or a video that the body holds."""
        name = _displayed(request.query_params.get("name", ""))
        is_video = PurePath(name).suffix.lower() in pictures.VIDEO_ENDINGS
        deadline = asyncio.get_running_loop().time() + self._limits.seconds
        with contextlib.ExitStack() as stack:
            try:
                stack.enter_context(self._place())
                folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="mtl_face_"))
                # The name of the user's file reaches no path.
                path = Path(folder) / ("video" if is_video else "photo")
                async with asyncio.timeout_at(deadline):
                    await self._receive(request, path)
            except _RefusedError as error:
                return JSONResponse({"error": error.reason}, error.status)
            except TimeoutError:
                return JSONResponse({"error": "the file arrived too slowly"}, 408)
            except ClientDisconnect:
                return Response(status_code=400)
            except OSError as error:  # of the temporary folder
                return JSONResponse({"error": f"the server cannot store it: {error.strerror}"}, 507)
            answers = self._video(path, name, deadline) if is_video else self._photo(path, name)
            lines = self._lines(answers, stack.pop_all(), name)
        return StreamingResponse(lines, media_type="application/x-ndjson")

    async def _receive(self, request: Request, path: Path) -> None:
        """Writes the body to a file."""
        most = self._limits.upload_bytes
        too_large = _RefusedError(413, f"the file is larger than {_megabytes(most)}")
        declared = request.headers.get("content-length", "")
        if declared.isdecimal() and int(declared) > most:
            raise too_large
        size = 0
        with path.open("wb") as file:
            chunks = request.stream()
            while True:
                async with asyncio.timeout(self._limits.idle_seconds):
                    chunk = await anext(chunks, None)
                if chunk is None:
                    return
                size += len(chunk)
                if size > most:
                    raise too_large
                file.write(chunk)

    async def _lines(
        self, answers: AsyncIterator[dict[str, Any]], stack: contextlib.ExitStack, name: str
    ) -> AsyncIterator[str]:
        """The answers as JSON Lines; the last one says that all is done, or what went wrong."""
        with stack:
            last: dict[str, Any] = {"done": True}
            try:
                async with contextlib.aclosing(answers):  # type: ignore[type-var]
                    async for answer in answers:
                        yield json.dumps(answer) + "\n"
            except UserError as error:  # its own text would name the temporary file
                last = {"error": escaped(f"{name}: {error.problem}"), "remedy": error.remedy}
            yield json.dumps(last) + "\n"

    async def _photo(self, path: Path, name: str) -> AsyncIterator[dict[str, Any]]:
        picture = await run_in_threadpool(_read_photo, path, self._limits)
        path.unlink()
        image = picture.upright()
        table = await self._turns.run(self._model.photo, image, name)
        yield {
            "kind": "photo",
            "width": image.width,
            "height": image.height,
            "is_first": picture.is_first,
            "rows": rows(table),
        }

    async def _video(self, path: Path, name: str, deadline: float) -> AsyncIterator[dict[str, Any]]:
        video = await run_in_threadpool(videos.open_video, path)
        yield {"kind": "video", "frames": video.frames}
        stream = await self._turns.run(self._model.stream, name)
        frames = _decoded(video, self._limits.pixels)
        last = 0
        try:
            # Decoding goes on in PyAV's own threads while the network works.
            while batch := await run_in_threadpool(
                _take, frames, 1 if self._clients > 1 else _BATCH
            ):
                tables = await self._turns.run(stream.update, batch)
                answered = []
                for frame, table in zip(batch, tables, strict=True):
                    answered += [_lost(name, range(last + 1, frame.number)), table]
                    last = frame.number
                width, height = batch[-1].picture.size
                yield {
                    "frame": last,
                    "width": width,
                    "height": height,
                    "rows": rows(FaceTable.joined(answered)),
                }
                self._check_time(deadline)
            lost = _lost(name, range(last + 1, video.frames + 1))
            yield {"frame": video.frames, "rows": rows(lost), "damaged": video.damaged}
        finally:  # a thread, since it waits for those of the decoder; whole, if the client left
            with anyio.CancelScope(shield=True):
                await run_in_threadpool(frames.close)

    def _check_time(self, deadline: float) -> None:
        """Raises VideoError when the time is over, or the server stops."""
        if self._is_stopping():
            raise videos.VideoError("the server is stopping, and the rest is not analysed")
        if asyncio.get_running_loop().time() > deadline:
            raise videos.VideoError(
                f"stopped after {self._limits.seconds / 60:g} minutes",
                remedy="analyse it with run.py predict, or raise --max_minutes",
            )

    async def camera(self, socket: WebSocket) -> None:
        """Faces of a camera's frames; an answer for each, in order."""
        await socket.accept()
        source = _displayed(socket.query_params.get("name", "camera"))
        try:
            with self._place():
                stream = await self._turns.run(self._model.stream, source)
                send, decoded = anyio.create_memory_object_stream[_CameraFrame](1)
                async with anyio.create_task_group() as group, decoded:
                    group.start_soon(self._decode, socket, send)
                    async for frame in decoded:
                        try:
                            answer = await self._answer(stream, source, frame)
                            await socket.send_text(json.dumps(answer))
                        except WebSocketDisconnect:
                            break
                    group.cancel_scope.cancel()
        except _RefusedError as error:
            await socket.close(1013, error.reason)

    async def _answer(self, stream: Stream, source: str, frame: _CameraFrame) -> dict[str, Any]:
        number, time_ms, picture = frame
        if picture is None:
            table = _lost(source, [number], time_ms)
            width, height = 0, 0
        else:
            width, height = picture.size
            one = VideoFrame(number, time_ms / 1000, picture)
            (table,) = await self._turns.run(stream.update, [one])
        return {
            "frame": number,
            "time_ms": time_ms,
            "width": width,
            "height": height,
            "rows": rows(table),
        }

    async def _decode(
        self, socket: WebSocket, decoded: MemoryObjectSendStream[_CameraFrame]
    ) -> None:
        """Decodes one frame ahead of the network, until the client leaves or falls silent."""
        latest = -math.inf
        with decoded:
            for number in itertools.count(1):
                try:
                    async with asyncio.timeout(self._limits.idle_seconds):
                        message = await socket.receive_bytes()
                except WebSocketDisconnect:
                    return
                except TimeoutError:
                    return await socket.close(1000, "no frame for too long")
                except KeyError:  # a message of text
                    return await socket.close(1003, "frames are binary messages")
                time_ms = _TIME.unpack_from(message)[0] if len(message) >= _TIME.size else math.nan
                if not latest < time_ms < _MOST_MS:
                    return await socket.close(1007, "a message is a time in ms, rising, and a JPEG")
                latest = time_ms
                content = message[_TIME.size :]
                picture = await run_in_threadpool(_read_frame, content, self._limits.pixels)
                await decoded.send((number, time_ms, picture))


def _displayed(name: str) -> str:
    """The last part of a file's name as the browser gave it, at most 120 characters."""
    last = name.replace("\\", "/").rpartition("/")[2]
    return escaped(last).strip()[-120:] or "file"


def _megabytes(size: int) -> str:
    return f"{size / 1e6:,.0f} MB"


def _read_photo(path: Path, limits: Limits) -> pictures.Picture:
    if path.stat().st_size > limits.photo_bytes:
        raise ImageError(f"photos of at most {_megabytes(limits.photo_bytes)} are read")
    return pictures.decode(path.read_bytes(), path, most_pixels=limits.pixels)


def _read_frame(content: bytes, most_pixels: int) -> Image.Image | None:
    """A camera's frame, or None if it cannot be decoded."""
    try:
        return pictures.decode(content, "frame", formats=("JPEG",), most_pixels=most_pixels).image
    except UserError:
        return None


def _decoded(video: videos.Video, most_pixels: int) -> Generator[VideoFrame, None, None]:
    """The frames of a video; VideoError for large ones."""
    for frame in video:
        if math.prod(frame.picture.size) > most_pixels:
            raise videos.VideoError(f"its frames have more than {most_pixels:,} pixels")
        yield frame


def _take(frames: Iterator[VideoFrame], count: int) -> list[VideoFrame]:
    return list(itertools.islice(frames, count))


def _lost(source: str, numbers: Sequence[int], time_ms: float = math.nan) -> FaceTable:
    """Rows of frames that cannot be decoded."""
    count = len(numbers)
    return FaceTable.without_faces(
        [source] * count, list(numbers), [time_ms] * count, status=NOT_DECODED
    )
