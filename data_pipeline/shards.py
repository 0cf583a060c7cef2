"""Shards of frames as a `tensorflow-datasets` builder: of any frame table, or by `tfds build`.

A record holds the image file's bytes as they are and the labels of its row; missing is missing (NaN
or -1). Records are in the order of the table, which lies beside them as Parquet: `records` reads
both. The same builder runs on an Apache Beam runner with the config `beam`.
"""

import dataclasses
import itertools
import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import tensorflow_datasets as tfds

from data_pipeline import formats, records
from data_pipeline.records import IMAGE
from mtl_face import files
from mtl_face.config import DataSetConfig
from mtl_face.errors import ConfigError
from mtl_face.tables import FrameTable
from mtl_face.tasks import AU_NAMES

FILE_FORMATS = ("array_record", "tfrecord")

Example = dict[str, Any]

_SAME_COLUMNS = ("dataset", "video", "frame", "valence", "arousal", "expression", "row")
"""Columns of the table that are features of a record as they are."""

_REPORTED = 256  # records between two reports of progress


@dataclasses.dataclass(kw_only=True, eq=False)
class FrameConfig(tfds.core.BuilderConfig):
    """What to write.

    Attributes:
        tables: by name of the split; None: the annotations in the manual folder.
        beam: write through Apache Beam.
        progress: called with (records written, of all splits) now and then, but not through Beam.
    """

    tables: Mapping[str, FrameTable] | None = dataclasses.field(default=None, repr=False)
    beam: bool = False
    progress: Callable[[int, int], None] | None = dataclasses.field(default=None, repr=False)


class FaceFrames(tfds.core.GeneratorBasedBuilder):
    """Crops of faces with valence, arousal, action units and expressions."""

    name = records.NAME
    VERSION = tfds.core.Version("1.0.0")
    RELEASE_NOTES: ClassVar = {"1.0.0": "First version."}
    BUILDER_CONFIGS: ClassVar = [
        FrameConfig(name="plain", description="Written in this process."),
        FrameConfig(name="beam", description="Written by Apache Beam.", beam=True),
    ]
    MANUAL_DOWNLOAD_INSTRUCTIONS = (
        "The manual folder holds training_set_annotations.txt, validation_set_annotations.txt and "
        "cropped_aligned/, in the layout of the ABAW multi-task challenge."
    )

    def _info(self) -> tfds.core.DatasetInfo:
        features = tfds.features
        return self.dataset_info_from_configs(
            features=features.FeaturesDict(
                {
                    IMAGE: features.Image(shape=(None, None, 3)),
                    "dataset": features.Text(),
                    "video": features.Text(),
                    "frame": np.int64,
                    "path": features.Text(),
                    "valence": np.float32,
                    "arousal": np.float32,
                    "expression": np.int8,
                    "au": features.Tensor(shape=(len(AU_NAMES),), dtype=np.int8),
                    "row": np.int64,
                }
            ),
            metadata=tfds.core.MetadataDict(),
            disable_shuffling=True,  # records stay in the order of the table
        )

    def _split_generators(self, dl_manager: tfds.download.DownloadManager) -> dict[str, Any]:
        tables = self.builder_config.tables
        if tables is None:
            folder, kind = dl_manager.manual_dir, DataSetConfig(kind="s_aff_wild2")
            tables = {
                split: formats.load(kind, split, root=folder, missing_images="keep")
                for split in formats.SPLITS
            }
        for split, table in tables.items():
            portable = table.to_dataframe().drop(columns=["root", "duplicate"])
            portable.to_parquet(Path(self.data_dir) / records.table_file(split), index=False)
        self.info.metadata.update({split: table.counts() for split, table in tables.items()})
        *before, total = itertools.accumulate(map(len, tables.values()), initial=0)
        return {
            split: self._generate_examples(table, rows, total)
            for (split, table), rows in zip(tables.items(), before, strict=True)
        }

    def _generate_examples(self, table: FrameTable, before: int, total: int) -> Any:
        if not self.builder_config.beam:
            return self._with_progress(_examples(table), before, total)
        # The elements are small: each worker reads the images of its own.
        return tfds.core.lazy_imports.apache_beam.Create(list(_examples(table)))

    def _with_progress(
        self, examples: Iterator[tuple[int, Example]], before: int, total: int
    ) -> Iterator[tuple[int, Example]]:
        progress = self.builder_config.progress
        for done, example in enumerate(examples, start=before + 1):
            yield example
            if progress and (done % _REPORTED == 0 or done == total):
                progress(done, total)


def _examples(table: FrameTable) -> Iterator[tuple[int, Example]]:
    """(row, features) of each row; the image as its path, which tfds replaces by the bytes."""
    au_NA = np.where(np.isnan(table.au), -1, table.au).astype(np.int8)
    for row, path in enumerate(table.paths()):
        yield (
            row,
            {
                **{name: getattr(table, name)[row] for name in _SAME_COLUMNS},
                IMAGE: path,
                "path": table.image[row],
                "au": au_NA[row],
            },
        )


def write(
    tables: Mapping[str, FrameTable],
    folder: str | os.PathLike[str],
    *,
    file_format: str = "array_record",
    num_shards: int | None = None,
    beam_options: Any = None,
    progress: Callable[[int, int], None] | None = None,
) -> Path:
    """Writes tables, by name of their split, with their images as the data set `face_frames`.

    The number of shards is per split; None goes by size. With `beam_options` (of an `apache_beam`
    pipeline) Beam writes, else this process, which calls `progress` with (records written, of all).

    Returns:
        The folder that holds the shards, their statistics (`dataset_info.json`) and the tables.

    Raises:
        ConfigError: shards are there already, or the format is unknown.
        WorkdirError: the folder cannot be written.
    """
    if file_format not in FILE_FORMATS:
        raise ConfigError(
            f"file_format is {file_format!r}", remedy="choose one of " + ", ".join(FILE_FORMATS)
        )
    beam = beam_options is not None
    name = "table_beam" if beam else "table"  # tfds keeps those of BUILDER_CONFIGS for themselves
    target = Path(folder).absolute() / records.NAME / name / str(FaceFrames.VERSION)
    if target.exists():
        raise ConfigError(
            f"{target} exists already",
            remedy="give another folder for the shards, or move this one away",
        )
    files.make_folder(folder)
    tfds.disable_progress_bar()
    builder = FaceFrames(
        data_dir=os.fspath(folder),
        config=FrameConfig(
            name=name, description="Frame tables.", tables=tables, beam=beam, progress=progress
        ),
        file_format=file_format,
    )
    builder.download_and_prepare(
        download_config=tfds.download.DownloadConfig(
            num_shards=num_shards, beam_options=beam_options, try_download_gcs=False
        )
    )
    return target
