"""Aligned crops of AffectNet's faces, by the landmarks of its lists (`run.py prepare --from`).

The lists give 68 landmarks of each face in pixels of its image, in the usual order. The eyes are
the means of their six points, the tip of the nose is point 31, and the corners of the mouth are
points 49 and 55, counted from 1. No face is looked for.

Dimension letters: N rows, P points of a list (68), L landmarks of a crop (5).
"""

import os
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from data_pipeline.formats.layouts import affectnet
from data_pipeline.images import each_of
from mtl_face import files, pictures
from mtl_face.errors import AnnotationError, ImageError, shortened
from mtl_face.faces import align, layout
from mtl_face.run import Progress, Say

LISTS = {"train": "training.csv", "validation": "validation.csv"}
"""Names of AffectNet's lists."""

LEFT_OUT = "left_out.csv"
"""Name of the list of rows without a crop."""

_QUALITY = 95
_THREADS = os.cpu_count() or 1
_SHOWN = 5


def cut(
    source: Path, images: Path, output: Path, *, say: Say, bar: Callable[[str], Progress]
) -> Path:
    """Cuts the faces of AffectNet's lists out of its images, and writes lists of the crops.

    `source` is one of `LISTS`, or a folder that holds one or both; `images` the folder that their
    paths are below. Crops that an earlier call made are left alone. Rows whose face cannot be cut
    out are counted, and listed in `LEFT_OUT`.

    Returns the absolute path of the output, a data set of the kind `manifest`.

    Raises:
        AnnotationError: there is no list, or one has faults.
        ImageError: no face could be cut out.
        WorkdirError: the output holds something else, or cannot be written.
    """
    source, images = source.expanduser(), images.expanduser()
    if source.is_file():
        found = {split: source for split, name in LISTS.items() if name == source.name}
    else:
        found = {split: source / name for split, name in LISTS.items() if (source / name).is_file()}
    if not found:
        raise AnnotationError(
            f"is neither {' nor '.join(LISTS.values())}, nor a folder that holds one of them",
            path=source,
            remedy="name the folder of AffectNet's lists as --source",
        )
    tables = {split: affectnet.read_faces(path) for split, path in found.items()}
    output = layout.open_output(output)
    crops = output / layout.CROPS
    left_out: list[tuple[str, int, str, str]] = []
    count = 0
    for split, faces in tables.items():
        done = _cut_all(faces, images, crops, bar(f"{split} faces"))
        rows = [row for row, problem in enumerate(done) if problem is None]
        left_out += [
            (found[split].name, faces.lines[row], faces.images[row], problem)
            for row, problem in enumerate(done)
            if problem is not None
        ]
        _write_list(output / f"{split}.csv", faces, rows)
        count += len(rows)
        say(f"{split}: {len(rows):,} crops of {len(done):,} faces")
        if faces.num_without:
            say(f"{split}: {faces.num_without:,} rows of class 10 (no face) are left out")
    files.write_csv(output / LEFT_OUT, [("list", "line", "image", "problem"), *left_out])
    if left_out:
        first = shortened(left_out, _SHOWN, lambda row: f"{row[0]}, line {row[1]}: {row[3]}")
        say("\n  ".join([f"left out {len(left_out):,} rows ({LEFT_OUT}):", *first]))
    if not count:
        raise ImageError(
            "no face could be cut out",
            path=images,
            remedy="name the folder that the lists' paths are below as --images",
        )
    return output


def _write_list(path: Path, faces: affectnet.Faces, rows: Sequence[int]) -> None:
    """A list of crops with the columns of AffectNet's own that are of use with them."""
    table = [
        [_crop_name(faces.images[row]), *(_number(cells[row]) for cells in faces.labels.values())]
        for row in rows
    ]
    files.write_csv(path, [[affectnet.HEADER[0], *faces.labels], *table])


def _number(cell: str) -> float | str:
    """A cell as a number, which is written as it is; text that is none, as text."""
    try:
        return float(cell)
    except ValueError:
        return cell


def _crop_name(image: str) -> str:
    return f"{os.path.splitext(image)[0]}.jpg"


def _cut_all(
    faces: affectnet.Faces, images: Path, crops: Path, progress: Progress
) -> list[str | None]:
    """What keeps each face from being cut out; None for those that are."""
    for folder in sorted({os.path.dirname(image) for image in faces.images}):
        files.make_folder(crops / folder)

    def cut_one(number: str) -> str | None:
        row = int(number)
        target = crops / _crop_name(faces.images[row])
        if target.exists():
            return None
        points_L2 = five_points(faces.points_NP2[row])
        if not np.isfinite(points_L2).all():
            return "no 68 landmarks"
        try:
            picture = pictures.read(images / faces.images[row])
            crop = align.crop_face(picture.image, points_L2)
        except ImageError as error:
            return error.problem
        except ValueError as error:  # landmarks that coincide
            return str(error)
        with files.replacing(target) as part:
            crop.save(part, "JPEG", quality=_QUALITY)
        return None

    return list(each_of([*map(str, range(len(faces.images)))], cut_one, _THREADS, progress))


def five_points(point_P2: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """The landmarks of a crop from 68 points, float64 [L, 2], in the order of the template."""
    eyes = [point_P2[first : first + 6].mean(axis=0) for first in (36, 42)]
    return np.stack([*eyes, point_P2[30], point_P2[48], point_P2[54]])
