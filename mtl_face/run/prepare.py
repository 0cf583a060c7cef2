"""Work on data before any training: making or checking it, auditing it, writing it as shards.

`say` gets one line for the user at a time. `bar` makes the progress of one kind of things, whose
name in the plural it is given: a function of (done, total).
"""

import dataclasses
import importlib.util
import logging
import os
import shlex
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from data_pipeline import formats
from data_pipeline.formats.user_files import BadRow
from mtl_face import config as config_lib
from mtl_face import files
from mtl_face.errors import ConfigError
from mtl_face.run import Progress, Say, datasets, named_data
from mtl_face.run.teachers import record as teacher_records
from mtl_face.tables import FrameTable

Bar = Callable[[str], Progress]


def own_files(config: config_lib.Config, say: Say) -> config_lib.Config:
    """Puts the data set's own files in place of shards, aloud; ConfigError if none are named."""
    if config.data.shards is None:
        return config
    say(
        f"data.shards={config.data.shards} is not read: this command reads the annotations and "
        "image files of the data set itself"
    )
    data = dataclasses.replace(config.data, shards=None)
    return config_lib.validate(config_lib.to_dict(dataclasses.replace(config, data=data)))


def check(data: config_lib.DataConfig, *, say: Say, bar: Bar) -> list[Path]:
    """Makes the embedded data set if it is absent, reads every row and decodes every image.

    Returns the folders of the data sets; UserError for the first kind of defect, several listed
    together.
    """
    datasets.ensure_all(data, say)
    roots: dict[Path, None] = {}
    train: FrameTable | None = None
    for part in datasets.every_split(data, say):
        roots[part.root] = None
        with datasets.naming(part.section):
            table = datasets.load_split(part.settings, part.split, say)
            if part.split == datasets.TRAIN:
                datasets.require_labels(table, part.settings, part.split, say)
                train = table
            elif train is not None:
                datasets.say_shared(train, table, say)
            turned = datasets.require_sound_images(
                table,
                label=part.label,
                folder=part.root / part.settings.image_folder,
                progress=bar(f"{part.label} images"),
            )
        _say_turned(part.label, turned, data, say)
    return list(roots)


def _say_turned(split: str, turned: list[str], data: config_lib.DataConfig, say: Say) -> None:
    if turned:
        how = "they are turned" if data.exif_orientation == "apply" else "it is ignored"
        say(
            f"{split}: images whose EXIF orientation is not upright: {len(turned):,}, as "
            f"{turned[0]}; {how} (data.exif_orientation={data.exif_orientation})"
        )


def audit(config: config_lib.Config, output: Path | None, *, say: Say, bar: Bar) -> bool:
    """Audits the data that a config names, and writes the report; `bar` counts images.

    The report goes to `output`, or to `audit` below the data, as audit.html and audit.json; beside
    it a list of the rows that `skip_bad_rows` left out. Returns whether nothing is an error.
    UserError if the data cannot be read, or the report not be written.
    """
    from data_pipeline import audit as auditing
    from data_pipeline.audit.findings import ERROR, as_text
    from mtl_face.report import audit_page

    datasets.ensure_all(config.data, say)
    bad: list[BadRow] = []
    splits, identities = _read_for_audit(config.data, say, bad.extend)
    for split, table in splits.items():
        say(f"{split}: {datasets.describe_counts(table.counts())}")
    root = datasets.ensure_data(config.data, say)
    folder = files.make_folder(
        (output or root / "audit").expanduser().resolve(),
        otherwise="or choose another output (--output)",
    )
    begin = time.perf_counter()
    report = auditing.audit(
        splits,
        image_size=config.data.image_size,
        upright=config.data.exif_orientation == "apply",
        identities=identities,
        pairs=[
            (first, second)
            for first in splits
            for second in splits
            if first.endswith(datasets.TRAIN) and second.endswith(datasets.VALIDATION)
        ],
        workers=os.cpu_count() or 1,
        progress=bar("images"),
    )
    seconds = time.perf_counter() - begin
    name = " and ".join(config.data.mixture) or named_data.about(config.data, datasets.TRAIN).name
    data, page = folder / "audit.json", folder / "audit.html"
    datasets.write_bad_rows(folder, bad)
    files.write_json(data, report, indent=1)
    audit_page.write_audit(page, report, title=f"Audit of {name}", where=str(root))
    say(as_text(report["findings"]))
    images = report["images"]
    rate = f" ({1000 * seconds / images:.2f} s per 1,000)" if images else ""
    say(f"audited {images:,} images in {seconds:.1f} s{rate}")
    say(f"report: {page}")
    say(f"the same as data: {data}")
    return all(finding["severity"] != ERROR for finding in report["findings"])


def write_images(layout: str, source: Path, output: Path, *, say: Say, bar: Bar) -> Path:
    """Writes the images that a list of FER2013 holds as text, and manifests of them.

    `layout` is fer2013, or ferplus for the labels and votes of FERPlus.

    Returns the folder, which is a data set of the kind `manifest`. AnnotationError for faults of
    the source, WorkdirError where the folder is not new or cannot be written.
    """
    from data_pipeline.formats.layouts import fer_images

    source = source.expanduser()
    return fer_images.write(
        source, output, with_votes=layout == "ferplus", say=say, progress=bar("images")
    )


def write_shards(
    data: config_lib.DataConfig,
    folder: Path,
    *,
    file_format: str = "array_record",
    beam: str | None = None,
    say: Say,
    bar: Bar,
) -> Path:
    """Writes the rows and images of both splits as shards, once every image has been decoded.

    The data set `face_frames` is made below `folder`, in a format of
    `data_pipeline.shards.FILE_FORMATS`. `beam` holds options of Apache Beam, to write through it;
    None writes in this process. `bar` counts images, then records. Returns the shards' folder.

    Raises:
        UserError: the data cannot be read, an image cannot be decoded, shards are there already, or
            Beam is not installed.
    """
    beam_options = None if beam is None else _beam_options(beam)
    datasets.ensure_all(data, say)
    splits = datasets.load_all(data, say)
    for split, table in splits.items():
        turned = datasets.require_sound_images(
            table, label=split, folder=None, progress=bar(f"{split} images")
        )
        _say_turned(split, turned, data, say)

    from data_pipeline import shards

    logging.getLogger("absl").setLevel(logging.ERROR)  # it warns of a config of our own
    written = shards.write(
        splits,
        folder.expanduser().resolve(),
        file_format=file_format,
        beam_options=beam_options,
        progress=bar("records"),
    )
    if teachers := teacher_records.of_manifests(data):
        files.write_json(written / teacher_records.SHARDED, {"teachers": teachers}, indent=1)
    size = sum(path.stat().st_size for path in written.iterdir())
    say(f"wrote {sum(map(len, splits.values()))} records ({size / 2**20:.1f} MiB): {written}")
    return written


def _read_for_audit(
    data: config_lib.DataConfig, say: Say, keep: datasets.Keep
) -> tuple[dict[str, FrameTable], dict[tuple[str, str], str]]:
    """The splits of every data set, and who is seen in their videos as far as known."""
    splits: dict[str, FrameTable] = {}
    identities: dict[tuple[str, str], str] = {}
    for part in datasets.every_split(data, say):

        def say_of_split(line: str, label: str = part.label) -> None:
            say(f"{label}: {line}")

        with datasets.naming(part.section):
            table = formats.load(
                part.settings,
                part.split,
                root=part.root,
                missing_images="keep",
                say=say_of_split,
                keep=keep,
            )
        # two of a mixture may be of one kind; one alone is named by its folder
        name = part.name if data.mixture else named_data.about(data, part.split).name
        names = np.full(len(table), name, object)
        splits[part.label] = dataclasses.replace(table, dataset=names)
        for video, identity in _identities(part.root).items():
            identities[name, video] = f"{name}: {identity}"
    return splits, identities


def _identities(root: Path) -> dict[str, str]:
    """Who is seen in each video, if the data set's description says so."""
    from data_pipeline.rendered_faces.layout import read_description

    videos = (read_description(root) or {}).get("videos")
    if not isinstance(videos, dict):
        return {}
    return {
        name: f"identity {about['identity']}"
        for name, about in videos.items()
        if isinstance(about, dict) and "identity" in about
    }


def _beam_options(text: str) -> Any:
    if importlib.util.find_spec("apache_beam") is None:
        raise ConfigError(
            "--beam needs Apache Beam, which is not installed",
            remedy="pip install -e '.[beam]' in an environment of its own (see docs/shards.md), or "
            "leave --beam out",
        )
    from apache_beam.options.pipeline_options import PipelineOptions

    return PipelineOptions(shlex.split(text))
