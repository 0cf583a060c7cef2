"""Images in a folder a class, as `train/angry/001.jpg`: how many expression sets go round.

Folders are called by words, or by class numbers, whose meaning the setting `expression_map` must
then name: they look alike in every data set.
"""

import os
from collections.abc import Iterator
from pathlib import Path

from data_pipeline.formats.expression_maps import MAPS
from data_pipeline.formats.layouts.layout import (
    Labels,
    Layout,
    Place,
    Rows,
    folder_below,
    photos,
    readable,
    take,
)
from data_pipeline.formats.user_files import Columns
from mtl_face.config.schema import ManifestConfig
from mtl_face.errors import AnnotationError

_WORDS = frozenset(word for word in MAPS["aff_wild2"] if word.isalpha())


def _classes(path: Path) -> list[Path]:
    """The folders in a folder, by name, but for hidden ones."""
    return sorted(
        entry for entry in path.iterdir() if entry.is_dir() and not entry.name.startswith(".")
    )


def _files(folder: Path) -> list[str]:
    """The files of a class, also in folders in its folder, but for hidden ones."""
    found = []
    for place, inside, names in os.walk(folder):
        inside[:] = [name for name in inside if not name.startswith(".")]
        below = Path(place).relative_to(folder)
        found += [(below / name).as_posix() for name in names if not name.startswith(".")]
    return sorted(found)


def _is_class_folders(path: Path, rows: Rows) -> bool:
    if not path.is_dir():
        return False
    names = [folder.name.lower() for folder in _classes(path)]
    numbers = all(name.isdecimal() for name in names)
    return len(names) > 1 and (numbers or len(_WORDS.intersection(names)) > len(names) / 2)


def _read(place: Place) -> Iterator[Labels]:
    folders = _classes(place.path)
    by_number = all(folder.name.isdecimal() for folder in folders)
    if by_number and place.settings.expression_map == ManifestConfig.expression_map:
        raise AnnotationError(
            f"the classes are numbers ({folders[0].name} to {folders[-1].name})",
            path=place.path,
            remedy="say whose they are, with data.manifest.expression_map=affectnet, "
            "affectnet_alphabetical, fer2013 or raf_db; for those of Aff-Wild2, name the folders "
            "neutral, anger, disgust, fear, happiness, sadness, surprise and other",
        )
    below = folder_below(place.path, place.image_root)
    images: list[str] = []
    labels: list[str] = []
    empty = 0
    for folder in folders:
        names = _files(folder)
        images += [f"{below}/{folder.name}/{name}" for name in names]
        labels += [folder.name] * len(names)
        empty += not names
    rows, counts = readable(images, range(len(images)))
    beside = [entry.name for entry in place.path.iterdir() if entry.is_file()]
    counts["files beside the folders of the classes are left out"] = sum(
        not name.startswith(".") for name in beside
    )
    counts["folders of a class hold no file"] = empty
    columns = Columns({}, [], list(range(1, len(images) + 1)))
    yield Labels(
        place.faults(place.path),
        take(columns, rows, **photos(images), expression=labels),
        expression_map=place.settings.expression_map,
        counts=counts,
    )


LAYOUT = Layout("class_folders", "images in a folder a class", _is_class_folders, _read)
