"""Every split that a config names: of one data set, or of all in a mixture."""

import dataclasses
from collections.abc import Iterator
from pathlib import Path

from data_pipeline.formats import USUAL_NAMES
from mtl_face import config as config_lib
from mtl_face.run import datasets

TRAIN, VALIDATION = datasets.SPLITS


@dataclasses.dataclass(frozen=True)
class Split:
    """One split of one data set.

    Attributes:
        label: `train` or `validation`, after the data set's name if there are several.
        name: of the data set.
        settings: of the data set.
        root: its folder.
        split: `train` or `validation`.
    """

    label: str
    name: str
    settings: config_lib.DataSetConfig
    root: Path
    split: str


def every_split(data: config_lib.DataConfig) -> Iterator[Split]:
    """Goes through the splits; makes the embedded data set first if it is absent.

    A data set of a mixture that is not evaluated may lack a validation split; that is said.
    """
    for name, settings in datasets.data_sets(data).items():
        root = datasets.ensure_data(settings, print)
        for split in datasets.SPLITS:
            needed = split == TRAIN or settings is datasets.evaluated(data)
            if not needed and not _has_validation(settings, root):
                print(f"{name}: has no validation split")
                continue
            yield Split(f"{name} {split}" if data.mixture else split, name, settings, root, split)


def _has_validation(settings: config_lib.DataSetConfig, root: Path) -> bool:
    name = settings.validation_annotations or USUAL_NAMES[settings.kind][1]
    if settings.kind == "per_video":  # a folder below that of each task
        return any(root.glob(f"*/{name}"))
    return (root / name).exists()
