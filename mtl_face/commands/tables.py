"""The frame tables that a config names."""

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from data_pipeline import check
from data_pipeline.formats import s_aff_wild2
from data_pipeline.frames import FrameTable
from mtl_face.config import DataConfig
from mtl_face.errors import ImageError

SPLITS = ("train", "validation")


def ensure_data(data: DataConfig, say: Callable[[str], None]) -> Path:
    """Returns the data set's folder; renders the embedded data set first if it is absent."""
    if data.kind != "rendered_faces":
        assert data.root is not None  # the config's rules
        return Path(data.root).expanduser()
    from data_pipeline.rendered_faces import generate

    faces = data.rendered_faces
    root = Path(data.root).expanduser() if data.root else _cache_folder(faces)
    begin = time.perf_counter()

    def progress(done: int, total: int) -> None:
        if done in (1, total) or done % max(1, total // 10) == 0:
            left = (time.perf_counter() - begin) * (total - done) / done
            say(f"rendering faces into {root}: video {done}/{total}, {left:.0f} s left")

    generate.ensure(
        root,
        num_videos=faces.num_videos,
        frames_per_video=faces.frames_per_video,
        seed=faces.seed,
        workers=faces.workers,
        progress=progress,
    )
    return root


def load_split(data: DataConfig, root: Path, split: str, say: Callable[[str], None]) -> FrameTable:
    """Reads a split's annotations, and checks that its image files are there.

    Args:
        data: the settings.
        root: the data set's folder.
        split: one of `SPLITS`.
        say: prints a line.

    Returns:
        The table. With `missing_images=skip` the rows without a file are gone, and counted aloud.

    Raises:
        AnnotationError: for a bad annotation file.
        ImageError: if files are missing and may not be.
    """
    name = data.train_annotations if split == "train" else data.validation_annotations
    table = s_aff_wild2.read_annotations(
        root / name, image_root=root / data.image_folder, dataset=data.kind
    )
    if data.missing_images == "skip":
        table, missing = check.drop_missing(table)
        if missing:
            shown = ", ".join(map(str, missing[:3])) + (", ..." if len(missing) > 3 else "")
            say(f"{split}: skipped {len(missing)} rows whose image file is missing: {shown}")
    else:
        _require_images(table)
    say(f"{split}: {describe_counts(table.counts())}")
    return table


def describe_counts(counts: dict[str, Any]) -> str:
    """One line on a table."""
    return (
        f"{counts['rows']} rows ({counts['duplicates']} duplicates) of {counts['videos']} videos; "
        f"labelled: va {counts['va']}, au {counts['au']}, expr {counts['expr']}, "
        f"all three {counts['all_tasks']}, none {counts['unlabelled']}"
    )


def _require_images(table: FrameTable) -> None:
    missing = check.find_missing(table)
    if len(missing):
        paths = table.paths()
        others = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        raise ImageError(
            f"the image file of row {table.row[missing[0]]}{others} does not exist",
            path=paths[missing[0]],
            remedy="put the crops there, or leave such rows out with "
            "--config.data.missing_images=skip",
        )


def _cache_folder(faces: Any) -> Path:
    """A folder a user, and a folder a set of arguments, so that two data sets never mix."""
    from data_pipeline.rendered_faces.describe import GENERATOR_VERSION

    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    name = f"videos{faces.num_videos}-frames{faces.frames_per_video}-seed{faces.seed}"
    return cache / "mtl_face" / f"rendered_faces-v{GENERATOR_VERSION}" / name
