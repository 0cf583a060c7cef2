"""Prediction end to end: crops beside PyTorch and ONNX Runtime, a video, a photo in a new process.

    python -m benchmarks.predict --output=docs/benchmarks/predict.json
    python -m benchmarks.predict --parts video photo --model=RUN    # without PyTorch

- crops: `Predictor.predict_arrays`, from uint8 crops to a table, beside PyTorch in inference mode
  (channels-last) and ONNX Runtime with PyTorch's own export. All three have the same weights, and
  their outputs are compared first. The others only run the network, from uint8 to its outputs.
- video: 1280 x 720 at 30 frames/s with one face, by the function of `run.py predict`, to a CSV
  file. Its parts are also run alone, one after the other, each on what the one before it gave.
- photo: `run.py predict photo.jpg` as a process of its own. Cold means that no compiled program is
  kept, warm that those of an earlier start are.
"""

import argparse
import dataclasses
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from PIL import Image

import mtl_face
from benchmarks import comparison, serve, startup
from mtl_face.evaluation import face_files
from mtl_face.face_table import FaceTable
from mtl_face.faces.detect import FaceFinder
from mtl_face.faces.search import candidates_of
from mtl_face.faces.video import VideoFrame, open_video
from mtl_face.inference.predictor import Predictor
from mtl_face.inference.stream import FaceStream
from mtl_face.run import environment
from mtl_face.run.faces.predict_faces import Request, predict_faces
from mtl_face.run.postprocess import PostProcessing

PARTS = ("crops", "video", "photo")

GOALS = {"video": 25, "photo": 6}
"""Frames/s at least, and seconds at most, on two quiet cores."""

OURS = "mtl_face"

WHOLE = "run.py predict"
"""The way that holds all parts of a video."""

TOGETHER = 8  # frames answered at a time, as in `run.py predict`

STAGES = """
import json, sys, time
begin, marks = time.perf_counter(), {}
def mark(name):
    marks[name] = time.perf_counter() - begin
from mtl_face.cli import main
from mtl_face.cli.commands import predict
from mtl_face.run import environment, models
from mtl_face.run.faces import predict_faces
from mtl_face.faces.detect import FaceFinder
mark("imports")
model = models.load(sys.argv[1])
mark("model")
from mtl_face import pictures
picture = pictures.read(sys.argv[2]).upright()
mark("decoding")
faces = FaceFinder()(picture)
mark("finding the face, with compiling")
from mtl_face.inference.stream import Sight, see
see(model, [Sight(sys.argv[2], 1, None, picture, faces, [1] * len(faces))]).answered()
mark("answer, with compiling")
print(json.dumps(marks))
"""
"""Prints seconds since its start after each stage; the argument is a model, then a photo."""


def main() -> None:
    """Prints times and ratios of each part, and the goals."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    comparison.add_arguments(parser, rounds=5)
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS)
    parser.add_argument("--experiments", nargs="+", default=["paper", "rendered_faces"])
    parser.add_argument("--batch-sizes", type=int, nargs="+", default=[1, 8, 64])
    parser.add_argument("--model", default="geometry", help="of videos and photos")
    options = parser.parse_args()
    environment.keep_freed_memory()  # as `run.py predict` does; it holds for all
    groups: list[comparison.Group] = []
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        if "crops" in options.parts:
            from benchmarks.predict_crops import crops

            for name in options.experiments:
                settings = mtl_face.load_config(name, **{"data.root": "."})
                groups += crops(settings, options.batch_sizes, options.rounds, folder)
        if "video" in options.parts:
            path = serve.write_video(folder / "video.mp4", serve.frames(), repeats=10)
            groups += video(mtl_face.load(options.model), path, options.rounds, folder)
        if "photo" in options.parts:
            Image.fromarray(serve.frames()[0]).save(folder / "photo.jpg", quality=90)
            groups += photo(options.model, folder / "photo.jpg", options.rounds, folder)
    comparison.report("Prediction", groups, options.output)
    print(f"goals: video {GOALS['video']} frames/s, photo {GOALS['photo']} s")


def video(predictor: Predictor, path: Path, rounds: int, folder: Path) -> list[comparison.Group]:
    """Wall time of a video beside that of decoding it, and processor time of its parts."""
    count = open_video(path).frames
    output = folder / "faces.csv"

    def predict() -> None:
        output.unlink(missing_ok=True)
        request = Request([path], [output])
        quiet: Callable[..., None] = lambda *_: None  # noqa: E731
        predict_faces(predictor, request, steps=PostProcessing(), say=quiet, progress=quiet)

    def decode() -> None:
        for _ in open_video(path):
            pass

    wall = comparison.time_in_turn({OURS: predict, "decoding alone": decode}, rounds=rounds)
    wall = {way: [1e3 * one / count for one in found] for way, found in wall.items()}
    work: dict[str, list[float]] = {}
    for _ in range(rounds):
        begin = time.process_time()
        predict()
        parts = {WHOLE: time.process_time() - begin}
        parts |= part_times(predictor, path, folder / "parts.csv")
        for name, seconds in parts.items():
            work.setdefault(name, []).append(1e3 * seconds / count)
    rate = comparison.spread([1e3 / one for one in wall[OURS]])
    title = f"720p video of one face: {rate} frames/s"
    groups = [
        comparison.Group(title, OURS, "ms a frame", wall),
        comparison.Group(f"Processor time of it: {shares(work)}", WHOLE, "ms a frame", work),
    ]
    print(f"done: {groups[0].name}", flush=True)
    return groups


def shares(work: Mapping[str, list[float]]) -> str:
    """The share of each part in the sum of all parts, in words; `WHOLE` is none of them."""
    medians = {name: comparison.spread(times).median for name, times in work.items()}
    total = sum(value for name, value in medians.items() if name != WHOLE)
    parts = ((name, value) for name, value in medians.items() if name != WHOLE)
    return ", ".join(f"{name} {100 * value / total:.0f} %" for name, value in parts)


class _TimedFinder(FaceFinder):
    """Sums the processor time of searching, for which it searches twice."""

    searching = 0.0

    def find(self, frames: Any) -> Any:
        begin = time.process_time()
        candidates_of(frames, None)
        self.searching += time.process_time() - begin
        return super().find(frames)


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class _TimedPredictor(Predictor):
    """Keeps the processor time of each call."""

    seconds: list[float] = dataclasses.field(default_factory=list)

    def predict_arrays(self, arrays: Any) -> Any:
        begin = time.process_time()
        found = super().predict_arrays(arrays)
        self.seconds.append(time.process_time() - begin)
        return found


def part_times(predictor: Predictor, path: Path, output: Path) -> dict[str, float]:
    """Processor seconds of all threads, by part, of a video whose frames fit into memory."""
    clock, times = time.process_time, {}
    begin = clock()
    frames: list[VideoFrame] = list(open_video(path))
    times["decoding"] = clock() - begin
    finder = _TimedFinder()
    fields = {field.name: getattr(predictor, field.name) for field in dataclasses.fields(predictor)}
    timed = _TimedPredictor(**fields)
    stream = FaceStream(timed, source=path.name, finder=finder)
    begin = clock()
    sights = [sight for frame in frames for sight in stream.find([frame])]
    found = clock() - begin
    times["finding (BlazeFace)"] = finder.searching
    times["mesh"] = found - 2 * finder.searching
    begin = clock()
    batches = [sights[start : start + TOGETHER] for start in range(0, len(sights), TOGETHER)]
    seen = [stream.answer(batch) for batch in batches]
    answered = clock() - begin
    times["network"] = sum(timed.seconds)
    times["pose, quality, baselines"] = answered - times["network"]
    table = FaceTable.joined([part.answered() for part in seen])
    begin = clock()
    with face_files.writing(output, mesh=False, metadata={}) as take:
        take(table)
    times["writing"] = clock() - begin
    return times


def photo(model: str, path: Path, rounds: int, folder: Path) -> list[comparison.Group]:
    """Wall and processor seconds of the command in new processes, and when its stages end."""
    command = [*startup.program(), "predict", str(path), f"--model={model}"]
    cache, numbers = folder / "compiled", iter(range(10**6))

    def cold() -> startup.Seconds:
        return startup.ran(command, folder / f"compiled{next(numbers)}")

    ways = {"cold": cold, "warm": lambda: startup.ran(command, cache)}
    groups = startup.timed("run.py predict photo.jpg", ways, rounds)
    times: dict[str, list[float]] = {}
    for turn in range(rounds + 1):
        for name, seconds in stages(model, path, cache).items():
            if turn:
                times.setdefault(name, []).append(seconds)
    first = next(iter(times))
    return [*groups, comparison.Group("Stages of a warm one, wall time", first, "s", times)]


def stages(model: str, path: Path, cache: Path) -> dict[str, float]:
    """Wall seconds of each stage of a photo in a new process, by name; RuntimeError if it fails."""
    done = subprocess.run(
        [sys.executable, "-c", STAGES, model, str(path)],
        env=startup.environment(cache),
        capture_output=True,
        text=True,
    )
    if done.returncode != 0:
        raise RuntimeError(done.stderr or done.stdout)
    marks = json.loads(done.stdout.splitlines()[-1])
    ends = list(marks.values())
    return {name: end - begin for name, begin, end in zip(marks, [0.0, *ends], ends, strict=False)}


if __name__ == "__main__":
    main()
