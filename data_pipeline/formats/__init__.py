"""Readers and writers of annotation files and submissions; `load` reads any kind of data set."""

import os
from collections.abc import Callable
from pathlib import Path

from data_pipeline import images
from data_pipeline.formats import manifest, per_video, s_aff_wild2
from mtl_face.config import DataSetConfig
from mtl_face.errors import ConfigError, ImageError, shortened
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


def annotations_name(data: DataSetConfig, split: str) -> str:
    """Name below the root of a split's annotations, as `USUAL_NAMES` or as the settings say."""
    named = data.train_annotations if split == "train" else data.validation_annotations
    return USUAL_NAMES[data.kind][SPLITS.index(split)] if named is None else named


def load(
    data: DataSetConfig,
    split: str,
    *,
    root: str | os.PathLike[str] | None = None,
    missing_images: str | None = None,
    say: Callable[[str], None] = lambda line: None,
) -> FrameTable:
    """Reads one of `SPLITS` of a data set, and looks which of its images are there.

    A row whose image is absent is an error, is left out and counted (`missing_images` skip), or is
    taken as it is (keep). For `per_video` this is about videos without a folder; frames without an
    image are left out and counted in any case. `root` and `missing_images` go before the settings.
    `say` is given one line on each thing that was left out or translated.

    Returns:
        The sorted table; column `dataset` holds the kind.

    Raises:
        ConfigError: the kind, split or expression map is unknown.
        AnnotationError: for a bad annotation file.
        ImageError: images are missing and may not be, or links lead out of the image folder
            (neither is looked at with "keep").
    """
    if data.kind not in USUAL_NAMES or split not in SPLITS:
        raise ConfigError(
            f"no split {split!r} of a data set of kind {data.kind!r} can be read",
            remedy=f"kinds are {', '.join(USUAL_NAMES)}; splits are {', '.join(SPLITS)}",
        )
    if root is None:
        if data.root is None:
            raise ConfigError("no folder of the data set is named", remedy="set root to it")
        root = Path(data.root).expanduser()
    name = annotations_name(data, split)
    image_root = Path(root) / data.image_folder
    missing_images = data.missing_images if missing_images is None else missing_images
    if data.kind == "per_video":
        table = per_video.read_per_video(
            root,
            split_folder=name,
            read_tasks=data.per_video.tasks,
            missing_videos="error" if missing_images == "error" else "skip",
            say=say,
            image_root=image_root,
            dataset=data.kind,
        )
    elif data.kind == "manifest":
        table = manifest.read_manifest(
            Path(root) / name, data.manifest, image_root=image_root, dataset=data.kind, say=say
        )
    else:
        table = s_aff_wild2.read_annotations(
            Path(root) / name, image_root=image_root, dataset=data.kind
        )
    if missing_images == "skip":
        table, dropped = images.drop_missing(table)
        if dropped:
            shown = ", ".join(shortened(dropped, 3))
            say(f"skipped {len(dropped)} rows whose image file is missing: {shown}")
    elif missing_images == "error" and len(missing := images.find_missing(table)):
        others = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        raise ImageError(
            f"the image file of row {table.row[missing[0]]}{others} does not exist",
            path=table.paths()[missing[0]],
            remedy="put the crops there, or leave such rows out with data.missing_images=skip "
            "(--config.data.missing_images=skip)",
        )
    return table


def read_labels(path: str | os.PathLike[str], *, dataset: str) -> FrameTable:
    """Reads labels of a challenge, without any image; AnnotationError for faults.

    They are a multi-task annotation file, or for one task the folder of files `<video>.txt`.
    """
    if os.path.isdir(path):
        return per_video.read_folder(Path(path), dataset=dataset)
    return s_aff_wild2.read_annotations(path, image_root=".", dataset=dataset)
