"""Answers of the local page as a browser sees them: how long one takes, and how often they come.

    python -m benchmarks.serve --model=RUN --output=docs/benchmarks/serve.json

A client sends frames of 1280 x 720 as JPEG, as the page does: the next one when an answer is back.
They show one rendered face, which sways. Each round is measured twice, the second time beside a
client whose video is analysed. Server and clients share the processor. The server's processor time
is disturbed less by other programs than delays are.
"""

import argparse
import contextlib
import io
import re
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from struct import pack

import av
import numpy as np
import psutil
from numpy.typing import NDArray
from PIL import Image
from websockets.sync.client import connect

from benchmarks import comparison, heads

SIZE = (1280, 720)
HEAD_PX = 400
"""Side of the picture of the head."""

FRAMES = 30  # different ones
GOALS = {"delay": 150, "from answer to answer": 100}
"""Milliseconds, on two quiet cores."""

ALONE, BESIDE = "one camera", "one camera, beside a video"


def main() -> None:
    """Prints delays, intervals and processor time."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    comparison.add_arguments(parser, rounds=5)
    parser.add_argument("--model", help="of run.py serve; its own default if left out")
    parser.add_argument("--answers", type=int, default=100, help="of a round")
    options = parser.parse_args()
    pictures = frames()
    messages = [encoded(pixels) for pixels in pictures]
    delays: dict[str, list[float]] = {ALONE: [], BESIDE: []}
    intervals: dict[str, list[float]] = {ALONE: [], BESIDE: []}
    work: dict[str, list[float]] = {ALONE: []}
    with served(options.model) as (address, server), tempfile.TemporaryDirectory() as folder:
        video = write_video(Path(folder) / "video.mp4", pictures).read_bytes()
        measure(address, messages, options.answers)  # compiles, and fills caches
        for _ in range(options.rounds):
            for way in (ALONE, BESIDE):
                other = beside(address, video) if way == BESIDE else contextlib.nullcontext()
                before = processor_seconds(server)
                with other:
                    seconds, total = measure(address, messages, options.answers)
                if way == ALONE:
                    work[ALONE].append(1000 * (processor_seconds(server) - before) / len(seconds))
                delays[way].append(1000 * float(np.median(seconds)))
                intervals[way].append(1000 * total / len(seconds))
    comparison.report(
        "The local page",
        [
            comparison.Group("Delay of an answer, median of a round", ALONE, "ms", delays),
            comparison.Group("From answer to answer", ALONE, "ms", intervals),
            comparison.Group("Processor time of the server", ALONE, "ms an answer", work),
        ],
        options.output,
    )
    print(f"goals in ms: {GOALS}")


def frames() -> list[NDArray[np.uint8]]:
    """A head that turns and sways in a room, uint8 [720, 1280, 3] each."""
    room = heads.background(3, *SIZE)
    result = []
    for turn in np.sin(np.linspace(0, 2 * np.pi, FRAMES, endpoint=False)).tolist():
        frame = room.copy()
        head = heads.cut_out(3, size=HEAD_PX, eyes_px=HEAD_PX / 5, yaw=10 * turn)
        head.put_on(frame, 440 + round(60 * turn), 140)
        result.append(frame)
    return result


def encoded(pixels: NDArray[np.uint8]) -> bytes:
    """A frame as the page's canvas encodes it."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=85)
    return buffer.getvalue()


def write_video(path: Path, pictures: list[NDArray[np.uint8]], *, repeats: int = 40) -> Path:
    """The frames over and over, as H.264."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=Fraction(30))
        stream.width, stream.height = SIZE
        stream.pix_fmt = "yuv420p"
        stream.options = {"preset": "ultrafast"}
        for pixels in pictures * repeats:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(stream.encode())
    return path


@contextlib.contextmanager
def served(model: str | None) -> Iterator[tuple[str, psutil.Process]]:
    """Host and port of a server, and its process."""
    command = [sys.executable, "run.py", "serve", "--port=0"]
    command += [] if model is None else [f"--model={model}"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            for line in process.stdout:
                if found := re.match(r"open http://([^/]*)/", line):
                    yield found[1], psutil.Process(process.pid)
                    break
            else:
                raise SystemExit("the server did not start")
        finally:
            process.terminate()


def processor_seconds(process: psutil.Process) -> float:
    """Of all threads of a process."""
    times = process.cpu_times()
    return times.user + times.system


def measure(address: str, messages: list[bytes], count: int) -> tuple[list[float], float]:
    """Seconds from each frame to its answer, and of all together."""
    delays = []
    with connect(f"ws://{address}/api/camera", compression=None) as socket:
        begin = time.perf_counter()
        for place in range(count):
            sent = time.perf_counter()
            socket.send(pack(">d", 1000 * (sent - begin)) + messages[place % len(messages)])
            answer = socket.recv()
            delays.append(time.perf_counter() - sent)
            assert '"ok"' in str(answer), answer
        return delays, time.perf_counter() - begin


@contextlib.contextmanager
def beside(address: str, video: bytes) -> Iterator[None]:
    """A video is analysed while the block runs; SystemExit if it ended before."""
    stop, begun, ended = threading.Event(), threading.Event(), threading.Event()

    def run() -> None:
        request = urllib.request.Request(f"http://{address}/api/file?name=a.mp4", video)
        with urllib.request.urlopen(request) as response:
            for _ in response:
                begun.set()
                if stop.is_set():
                    return
        ended.set()

    thread = threading.Thread(target=run)
    thread.start()
    begun.wait()
    yield
    if ended.is_set():
        raise SystemExit("the video was over before the round: ask for fewer --answers")
    stop.set()
    thread.join()


if __name__ == "__main__":
    main()
