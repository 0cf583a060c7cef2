"""Readers and writers of annotation files and submissions; `load` reads any kind of data set."""

import os
import re
from collections.abc import Callable
from pathlib import Path

from data_pipeline import images
from data_pipeline.formats import layouts, manifest, per_video, s_aff_wild2
from data_pipeline.formats.user_files import BadRow, is_parquet, peek
from data_pipeline.formats.values import header_names
from mtl_face import libraries
from mtl_face.config import DataSetConfig
from mtl_face.config.schema import ManifestConfig
from mtl_face.errors import AnnotationError, ConfigError, ImageError, shortened
from mtl_face.tables import FrameTable
from mtl_face.tasks import VA

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


_LOOKED_AT = 50  # rows below a header that fits two kinds

_FEWEST_DOUBTED = 10  # rows: fewer may be so by chance


def annotations_name(data: DataSetConfig, split: str) -> str:
    """Name below the root of a split's annotations, as `USUAL_NAMES` or as the settings say."""
    named = data.train_annotations if split == "train" else data.validation_annotations
    return USUAL_NAMES[data.kind][SPLITS.index(split)] if named is None else named


def kinds_in(root: Path) -> dict[str, list[Path]]:
    """The kinds whose usual annotations lie in a folder, with these; not the embedded data set."""
    found = {}
    for kind, names in USUAL_NAMES.items():
        patterns = (f"*/{name}" if kind == "per_video" else name for name in names)
        places = [place for pattern in patterns for place in sorted(root.glob(pattern))]
        if places and kind != "rendered_faces":
            found[kind] = places
    return found


@libraries.no_collector()  # millions of cells, and no cycles among them
def load(
    data: DataSetConfig,
    split: str,
    *,
    root: str | os.PathLike[str] | None = None,
    missing_images: str | None = None,
    say: Callable[[str], None] = lambda line: None,
    keep: Callable[[list[BadRow]], None] = lambda rows: None,
) -> FrameTable:
    """Reads one of `SPLITS` of a data set, and looks which of its images are there.

    A row whose image is absent is an error, is left out and counted (`missing_images` skip), or is
    taken as it is (keep). For `per_video` this is about videos without a folder; frames without an
    image are left out and counted in any case. `root` and `missing_images` go before the settings.
    With `skip_bad_rows` rows that cannot be read are left out and counted; an error if they are
    more than half of a file. `say` is given one line on each thing that was left out or translated,
    `keep` the rows that could not be read, if there are any.

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
    skipped: list[BadRow] | None = [] if data.skip_bad_rows else None
    if data.kind == "per_video":
        table = per_video.read_per_video(
            root,
            split_folder=name,
            read_tasks=data.per_video.tasks,
            missing_videos="error" if missing_images == "error" else "skip",
            say=say,
            image_root=image_root,
            skipped=skipped,
        )
    elif data.kind == "manifest":
        table = layouts.read(
            Path(root) / name,
            data.manifest,
            split=split,
            image_root=image_root,
            dataset=data.kind,
            say=say,
            skipped=skipped,
        )
    else:
        table = s_aff_wild2.read_annotations(
            Path(root) / name, image_root=image_root, dataset=data.kind, skipped=skipped
        )
    if skipped:
        say(_left_out(skipped))
        keep(skipped)
    for question in _doubts(table):
        say(question)
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
            remedy="put the crops there, or leave such rows out with data.missing_images=skip",
        )
    return table


def _left_out(rows: list[BadRow]) -> str:
    """How many rows were left out, and the first of them, a line each."""
    listed = shortened(
        rows, 10, lambda row: f"{Path(row.path).name}, line {row.line}: {row.problem}"
    )
    return "\n  ".join([f"left out {len(rows):,} bad rows (skip_bad_rows):", *listed])


def _doubts(table: FrameTable) -> list[str]:
    """Questions about valence and arousal that lie in their range and yet seem to be misread."""
    va_N2 = table.va[table.labelled()[VA]]
    both_lowest = int((va_N2 == -1).all(axis=1).sum())
    questions = []
    if both_lowest >= max(_FEWEST_DOUBTED, 0.01 * len(va_N2)):
        questions.append(
            f"valence and arousal are both -1 in {both_lowest:,} of {len(va_N2):,} rows: does that "
            "mark a missing label? Its mark is -5, in a manifest an empty cell"
        )
    if len(va_N2) >= 10 * _FEWEST_DOUBTED and (va_N2 >= 0).all():
        questions.append(
            f"no valence or arousal of {len(va_N2):,} rows is below 0: is their scale 0 to 1? In a "
            "manifest that is data.manifest.va_range=0,1"
        )
    return questions


@libraries.no_collector()  # millions of cells, and no cycles among them
def read_labels(
    path: str | os.PathLike[str],
    *,
    dataset: str,
    settings: ManifestConfig | None = None,
    skipped: list[BadRow] | None = None,
    say: Callable[[str], None] = lambda line: None,
) -> FrameTable:
    """Reads labels without any image; AnnotationError for faults.

    They are a multi-task annotation file; a manifest or another layout of labels; or for one task
    the folder of files `<video>.txt`. With `settings`, which say what a manifest's labels mean, a
    file that could be read as either is a manifest. `skipped` is as for `user_files.FaultList`,
    `say` as for `load`.
    """
    if os.path.isdir(path):
        if kinds := kinds_in(Path(path)):
            raise AnnotationError(
                f"is the folder of a data set (of kind {' or '.join(kinds)}), not its labels",
                path=path,
                remedy=f"name the labels inside it, as {next(iter(kinds.values()))[-1]}",
            )
        table = per_video.read_folder(Path(path), dataset=dataset, skipped=skipped)
    elif kind_of_file(path, settings) == "manifest":
        table = layouts.read(
            path,
            settings or ManifestConfig(),
            split=SPLITS[1],
            image_root=".",
            dataset=dataset,
            say=say,
            skipped=skipped,
        )
    else:
        table = s_aff_wild2.read_annotations(path, image_root=".", dataset=dataset, skipped=skipped)
    if skipped:
        say(_left_out(skipped))
    return table


_NUMBER = re.compile(r"[+-]?[0-9.]+(e[+-]?[0-9]+)?", re.IGNORECASE)


def kind_of_file(path: str | os.PathLike[str], settings: ManifestConfig | None = None) -> str:
    """The kind of a file of labels, by its first line: `manifest`, of any layout, or `s_aff_wild2`.

    What is of no known layout and names no image is left to the reader of `s_aff_wild2`, which says
    what is wrong. A header with all sixteen names fits both kinds, and is of a manifest with the
    `settings` of one, or where a cell below it is empty or a word. AnnotationError if the file
    cannot be read.
    """
    if is_parquet(path):
        return "manifest"
    first, *rows = peek(path, _LOOKED_AT) or [[]]
    names = header_names(",".join(first))
    if names == s_aff_wild2.HEADERS[0]:
        return "s_aff_wild2"
    if names in s_aff_wild2.HEADERS and settings is None:
        cells = [cell for row in rows for cell in row[1 : len(names)]]
        return "s_aff_wild2" if all(map(_NUMBER.fullmatch, cells)) else "manifest"
    if settings is not None or any(manifest.known_name(name) == "image" for name in names):
        return "manifest"
    layout = layouts.find(Path(path), ManifestConfig())
    return "s_aff_wild2" if layout.name == "manifest" else "manifest"
