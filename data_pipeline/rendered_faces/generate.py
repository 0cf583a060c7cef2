"""Generates the data set `rendered_faces`: an s-Aff-Wild2 folder of rendered faces.

`generate` writes it, `ensure` reuses a folder that already holds what is asked for. The same
arguments give the same bytes whatever the number of workers.
"""

import glob
import io
import json
import multiprocessing
import os
import shutil
import uuid
from collections.abc import Callable, Iterable
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any

import numpy as np

from data_pipeline.rendered_faces import layout, plan
from data_pipeline.rendered_faces.layout import GENERATOR_VERSION
from data_pipeline.rendered_faces.plan import SPLITS, Video
from mtl_face import files, locks
from mtl_face.config.schema import (
    DENSITIES,
    FEWEST_FRAMES,
    FEWEST_VIDEOS,
    HARD_SHARE,
    LARGEST_HARD_SHARE,
    MOVEMENTS,
    VA_NOISES,
)
from mtl_face.errors import ConfigError, UserError, WorkdirError

Progress = Callable[[int, int], None]
"""Called with the number of finished videos and the number of all videos."""


_DEFAULTS = {"va_noise": "constant", "movement": "alike", "density": "sparse"}
"""Left out of a description, which so keeps the bytes that it had before there was a choice."""


def _arguments(
    num_videos: int,
    frames_per_video: int,
    seed: int,
    va_noise: str = "constant",
    movement: str = "alike",
    density: str = "sparse",
    hard_share: float = HARD_SHARE,
) -> dict[str, Any]:
    """What decides the data set, as its description has it; raises ConfigError."""
    fields = (
        ("num_videos", num_videos, FEWEST_VIDEOS, "one video a split is the least"),
        ("frames_per_video", frames_per_video, FEWEST_FRAMES, "a video needs some frames"),
        ("seed", seed, 0, "seeds are not negative"),
    )
    for name, value, least, reason in fields:
        if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < least:
            raise ConfigError(
                f"{name} is {value!r}; expected an integer of at least {least} ({reason})",
                remedy=f"set {name} to {least} or more",
            )
    choices = {"va_noise": va_noise, "movement": movement, "density": density}
    words = (VA_NOISES, MOVEMENTS, DENSITIES)
    for (name, choice), known in zip(choices.items(), words, strict=True):
        if choice not in known:
            remedy = "set it to one of " + ", ".join(known)
            raise ConfigError(f"{name} is {choice!r}", remedy=remedy)
    if not 0.0 <= hard_share <= LARGEST_HARD_SHARE:
        raise ConfigError(
            f"hard_share is {hard_share!r}; expected 0 to {LARGEST_HARD_SHARE}",
            remedy=f"set it to {LARGEST_HARD_SHARE} or less",
        )
    chosen: dict[str, Any] = {
        name: choice for name, choice in choices.items() if choice != _DEFAULTS[name]
    }
    if density != "sparse":  # elsewhere it changes nothing
        chosen["hard_share"] = float(hard_share)
    return {**{name: int(value) for name, value, _, _ in fields}, **chosen}


def _render_video(video: Video, seed: int, root: Path) -> int:
    """Draws the images of a video below `root`; runs in a worker. Returns the video's index."""
    from PIL import Image

    from data_pipeline.rendered_faces.person import make_person
    from data_pipeline.rendered_faces.render import Renderer
    from data_pipeline.rendered_faces.scene import sample_scene

    rng = plan.stream(seed, plan.IDENTITY, video.identity)
    person = make_person(rng, individual=video.individual)
    scene = sample_scene(plan.stream(seed, plan.SCENE, video.scene))
    renderer = Renderer(person, scene)
    rng = plan.stream(seed, plan.PIXELS, video.index)
    course, hardship = video.motion, video.hardship
    folder = root / layout.IMAGE_FOLDER / video.name
    folder.mkdir(parents=True)
    for row, frame in enumerate(course.frame_F):
        if hardship is not None:
            renderer.scene = hardship.scene(scene, row)
        pixel_yx3 = renderer.render(course.intensity_FA[row], course.pose(row), rng)
        if hardship is not None:
            pixel_yx3 = hardship.disturb(pixel_yx3, row)
        content = io.BytesIO()  # of a full disk, Pillow would not say so
        Image.fromarray(pixel_yx3).save(content, "JPEG", quality=scene.jpeg_quality)
        path = root / layout.IMAGE_FOLDER / layout.image_name(video.name, int(frame))
        path.write_bytes(content.getvalue())
    return video.index


def _render_all(
    videos: list[Video], seed: int, root: Path, workers: int, progress: Progress
) -> None:
    def report(results: Iterable[int]) -> None:
        for done, _ in enumerate(results, start=1):
            progress(done, len(videos))

    if workers == 1:
        report(_render_video(video, seed, root) for video in videos)
        return
    # `spawn`: a fork of a process that runs JAX or TensorFlow can hang.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, mp_context=context) as pool:
        futures = [pool.submit(_render_video, video, seed, root) for video in videos]
        try:
            report(future.result() for future in as_completed(futures))
        except BrokenProcessPool as error:
            raise UserError(
                "a process that renders faces ended at its start or was killed",
                remedy='put what a script does below `if __name__ == "__main__":`, since each '
                "process reads it again; or free some memory; or render with "
                "data.rendered_faces.workers=1",
            ) from error
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


def _write_labels(videos: list[Video], root: Path, with_noise: bool) -> None:
    """Writes labels, truth and test list; with `with_noise` also the noise of each row.

    Of videos with frames that are hard to read, also what makes each so.
    """

    def write(name: str, header: str, lines: list[str]) -> None:
        text = "\n".join([header, *lines, ""])
        (root / name).write_text(text, encoding="ascii", newline="\n")

    for split in SPLITS:
        truth: list[str] = []
        annotations: list[str] = []
        noise: list[str] = []
        hard: list[str] = []
        for video in (video for video in videos if video.split == split):
            name, frame_F, repeats_F = video.name, video.motion.frame_F, video.repeats_F
            truth += layout.annotation_lines(name, frame_F, video.truth, repeats_F)
            annotations += layout.annotation_lines(name, frame_F, video.annotations, repeats_F)
            noise += layout.noise_lines(name, frame_F, video.va_std_F, repeats_F)
            hard += layout.hard_lines(video)
        write(layout.TRUTH_FILES[split], layout.HEADER, truth)
        if hard:
            write(layout.HARD_FILES[split], layout.HARD_HEADER, hard)
        if split == "test":
            names = [line.split(",", 1)[0] for line in truth]
            write(layout.TEST_LIST_FILE, layout.HEADER, names)
            continue
        write(layout.ANNOTATION_FILES[split], layout.HEADER, annotations)
        if with_noise:
            write(layout.NOISE_FILES[split], layout.NOISE_HEADER, noise)


def generate(
    root: Path,
    *,
    workers: int | None = None,
    progress: Progress = lambda done, total: None,
    **arguments: Any,
) -> dict[str, Any]:
    """Generates the data set that `arguments` decide.

    The folder appears complete or not at all: everything is written into a hidden folder beside it,
    which is renamed at the end.

    Args:
        root: the folder to make; it must not exist, or be empty.
        workers: number of processes; None: one for each core that this process may use. With more
            than one, a script must call this below `if __name__ == "__main__":`.
        progress: called in this process after each video with the numbers done and in all.
        **arguments: what decides the data set:
            num_videos: number of videos, at least `schema.FEWEST_VIDEOS`.
            frames_per_video: mean number of labelled frames of a video, at least
                `schema.FEWEST_FRAMES`.
            seed: from 0 on; decides everything.
            va_noise: `constant`, or `yaw`: the noise on valence and arousal grows with the angle by
                which the head is turned, and files give that of each frame. Nothing else changes.
            movement: `alike`, or `individual`: each person moves in a way of their own, and shows
                more combinations of action units, see `head.individual_movement` and
                `motion.sample_mixture`.
            density: `sparse`: labelled frames lie apart by random gaps; `dense`: every frame of a
                video is labelled, `dense_half`: every second one. Dense videos have stretches
                that are hard to read (`hard.Hardship`), and valence and arousal that lag and
                drift (`annotate.rated`).
            hard_share: share of the time that such stretches take; matters to dense videos.

    Returns:
        What each split holds, by split: videos, identities, images, rows, rows with each label,
        true expressions and AUs.

    Raises:
        ConfigError: an argument is out of range.
        WorkdirError: the folder is not empty, or cannot be written.
    """
    arguments = _arguments(**arguments)
    if workers is not None and workers < 1:
        raise ConfigError(f"workers is {workers!r}; expected at least 1", remedy="leave it out")
    root = Path(root).absolute()
    _require_empty(root)
    if workers is None and hasattr(os, "sched_getaffinity"):
        workers = len(os.sched_getaffinity(0))
    workers = workers or os.cpu_count() or 1
    videos = plan.make_plan(**arguments)
    counts = layout.count_labels(videos)
    partial = root.parent / f".{root.name}.partial-{uuid.uuid4().hex[:12]}"
    try:
        root.parent.mkdir(parents=True, exist_ok=True)
        partial.mkdir()
        if workers > 1:
            # Compiles once, into numba's cache, instead of once in every worker.
            from data_pipeline.rendered_faces.render import warm_up

            warm_up()
        _render_all(videos, arguments["seed"], partial, min(workers, len(videos)), progress)
        _write_labels(videos, partial, with_noise="va_noise" in arguments)
        text = json.dumps(layout.describe(videos, arguments, counts), indent=1) + "\n"
        (partial / layout.DESCRIPTION_FILE).write_text(text, encoding="ascii", newline="\n")
        try:
            if root.exists():
                root.rmdir()
            partial.rename(root)
        except OSError:  # another process may have made the same data set meanwhile
            if layout.read_description(root) != json.loads(text):
                raise
    except OSError as error:
        raise files.unwritable(
            error.filename or root,
            error,
            otherwise="or choose another folder; the data set takes about 4 KB a frame",
        ) from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return counts


def _require_empty(root: Path) -> None:
    if root.exists() and (not root.is_dir() or any(root.iterdir())):
        raise WorkdirError(
            "holds other files" if root.is_dir() else "is a file, not a folder",
            path=root,
            remedy="name a new or empty folder for the rendered faces",
        )


def ensure(
    root: Path,
    *,
    workers: int | None = None,
    progress: Progress = lambda done, total: None,
    say: Callable[[str], None] = lambda line: None,
    **arguments: Any,
) -> dict[str, Any]:
    """Generates the data set unless the folder already holds exactly this one.

    Of several processes, on one host or on several that share the folder, one draws it and the
    others wait, which they say. Files that a killed process left behind are removed.

    Other arguments and the result are those of `generate`.

    Raises:
        ConfigError: an argument is out of range.
        WorkdirError: the folder holds something else, or cannot be written.
    """
    arguments = _arguments(**arguments)
    root = Path(root).absolute()
    counts = _present(root, arguments)
    if counts is not None:
        return counts
    _require_empty(root)
    files.make_folder(root.parent)
    lock = root.with_name(f".{root.name}.lock")
    with locks.hold(lock, what="is being written", remedy="wait for it", wait=True, say=say):
        counts = _present(root, arguments)  # it may have appeared during the wait
        if counts is not None:
            return counts
        _remove_partial(root)
        say(f"rendering faces into {root} ...")
        counts = generate(root, **arguments, workers=workers, progress=progress)
        _remove_partial(root)  # again: workers of a killed process may have ended late
        return counts


def _remove_partial(root: Path) -> None:
    """Removes what killed processes left beside the folder; its lock is held."""
    for left in root.parent.glob(f".{glob.escape(root.name)}.partial-*"):
        shutil.rmtree(left, ignore_errors=True)


def _present(root: Path, arguments: dict[str, Any]) -> dict[str, Any] | None:
    """The counts of the data set that a folder holds; None if it holds none.

    WorkdirError if it holds another one.
    """
    found = layout.read_description(root) if root.is_dir() else None
    if found is None:
        return None
    wanted = {"generator_version": GENERATOR_VERSION, **_DEFAULTS, **arguments}
    present = {**_DEFAULTS, **(found.get("arguments") or {}), **found}
    differing = [
        f"{name} is {present.get(name)!r} there and {value!r} is asked for"
        for name, value in wanted.items()
        if present.get(name) != value
    ]
    if differing:
        raise WorkdirError(
            "holds another data set: " + "; ".join(differing),
            path=root,
            remedy="name a new or empty folder, or ask for what this one holds",
        )
    return found["counts"]
