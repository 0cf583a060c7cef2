"""One split of a data set of any kind, as a frame table."""

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal

from data_pipeline import frames
from data_pipeline.formats import manifest, per_video, s_aff_wild2
from mtl_face import tasks
from mtl_face.errors import ConfigError, ImageError
from mtl_face.tables import FrameTable

SPLITS = ("train", "validation")

USUAL_NAMES: dict[str, tuple[str, str]] = {
    "s_aff_wild2": ("training_set_annotations.txt", "validation_set_annotations.txt"),
    "abaw3_mtl": ("MTL_Challenge/train_set.txt", "MTL_Challenge/validation_set.txt"),
    "per_video": ("Train_Set", "Validation_Set"),
    "manifest": ("train.csv", "validation.csv"),
    "rendered_faces": ("training_set_annotations.txt", "validation_set_annotations.txt"),
}
"""Kinds of data sets, and what their annotations are called: a file below the root for each of
`SPLITS`, or for `per_video` a folder below that of each task."""

MissingImages = Literal["error", "skip", "keep"]


def load(
    kind: str,
    *,
    root: str | os.PathLike[str],
    split: str,
    annotations: str | None = None,
    image_folder: str = "cropped_aligned",
    missing_images: str = "error",
    dataset: str | None = None,
    per_video_tasks: Sequence[str] = tasks.TASKS,
    expression_map: str = "aff_wild2",
    au_threshold: float | None = None,
    va_range: tuple[float, float] = (-1.0, 1.0),
    missing_values: Sequence[float] = (-1.0, -5.0),
    say: Callable[[str], None] = lambda line: None,
) -> FrameTable:
    """Reads a split of a data set, and looks which of its images are there.

    Args:
        kind: one of `USUAL_NAMES`. `s_aff_wild2`, `abaw3_mtl` and `rendered_faces` are one file of
            all tasks, `per_video` the files of the one-task challenges, `manifest` a table of
            anyone's own images.
        root: the data set's folder.
        split: one of `SPLITS`.
        annotations: name below `root` (or an absolute path) of what `USUAL_NAMES` lists; None:
            that name.
        image_folder: folder of the images, below `root` (or an absolute path).
        missing_images: a row whose image is absent is an error, is left out and counted (skip), or
            is taken as it is (keep). For `per_video` this is about videos without a folder; frames
            without an image are left out and counted in any case.
        dataset: name for the column `dataset`; None: the kind.
        per_video_tasks: tasks to read (`per_video`).
        expression_map: see `manifest.read_manifest` (`manifest`).
        au_threshold: the same.
        va_range: the same.
        missing_values: the same.
        say: is given one line on each thing that was left out or translated.

    Returns:
        The sorted table.

    Raises:
        ConfigError: the kind, split or expression map is unknown.
        AnnotationError: for a bad annotation file.
        ImageError: images are missing and may not be, or links lead out of the image folder
            (neither is looked at with "keep").
    """
    if kind not in USUAL_NAMES or split not in SPLITS:
        raise ConfigError(
            f"no split {split!r} of a data set of kind {kind!r} can be read",
            remedy=f"kinds are {', '.join(USUAL_NAMES)}; splits are {', '.join(SPLITS)}",
        )
    name = USUAL_NAMES[kind][SPLITS.index(split)] if annotations is None else annotations
    image_root = Path(root) / image_folder
    dataset = kind if dataset is None else dataset
    if kind == "per_video":
        table = per_video.read_per_video(
            root,
            split_folder=name,
            read_tasks=per_video_tasks,
            missing_videos="error" if missing_images == "error" else "skip",
            say=say,
            image_root=image_root,
            dataset=dataset,
        )
    elif kind == "manifest":
        table = manifest.read_manifest(
            Path(root) / name,
            expression_map=expression_map,
            au_threshold=au_threshold,
            va_range=va_range,
            missing_values=missing_values,
            say=say,
            image_root=image_root,
            dataset=dataset,
        )
    else:
        table = s_aff_wild2.read_annotations(
            Path(root) / name, image_root=image_root, dataset=dataset
        )
    if missing_images == "keep":
        return table
    if missing_images == "skip":
        table, missing = frames.drop_missing(table)
        if missing:
            shown = ", ".join(map(str, missing[:3])) + (", ..." if len(missing) > 3 else "")
            say(f"skipped {len(missing)} rows whose image file is missing: {shown}")
        return table
    _require_images(table)
    return table


def _require_images(table: FrameTable) -> None:
    missing = frames.find_missing(table)
    if len(missing):
        paths = table.paths()
        others = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        raise ImageError(
            f"the image file of row {table.row[missing[0]]}{others} does not exist",
            path=paths[missing[0]],
            remedy="put the crops there, or leave such rows out with "
            "--config.data.missing_images=skip",
        )
