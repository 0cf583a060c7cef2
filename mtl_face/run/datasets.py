"""The frame tables that a config names: of one data set, of a mixture, or from shards.

Every function that reads or makes data takes `say`, which gets one line for the user at a time.
"""

import contextlib
import dataclasses
import os
import re
import stat
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from data_pipeline import formats, images, mixture, order, records, sampling
from data_pipeline.formats.user_files import BadRow
from mtl_face import files
from mtl_face.config import DataConfig, DataSetConfig
from mtl_face.config.schema import MixedDataConfig
from mtl_face.errors import AnnotationError, ConfigError, ImageError, UserError, shortened
from mtl_face.run import Progress, Say, progress_lines
from mtl_face.tables import RATER_NAMES, FrameTable
from mtl_face.tasks import TASKS

TRAIN, VALIDATION = SPLITS = formats.SPLITS

EMBEDDED = "rendered_faces"
"""The kind of the data set that this program makes itself."""

BAD_ROWS = "bad_rows.csv"
"""Name of the list of rows that `skip_bad_rows` left out, beside the results."""

Keep = Callable[[list[BadRow]], None]


def keep_none(rows: list[BadRow]) -> None:
    """Keeps no list of rows that were left out."""


def write_bad_rows(folder: Path, rows: Sequence[BadRow]) -> None:
    """Lists rows that were left out in `BAD_ROWS`; takes an older list away if there are none.

    Raises WorkdirError.
    """
    if rows:
        files.write_csv(folder / BAD_ROWS, [BadRow._fields, *rows])
    else:
        (folder / BAD_ROWS).unlink(missing_ok=True)


@dataclasses.dataclass(frozen=True)
class Split:
    """One split of a data set.

    `label` names both, if there are several data sets; `section` holds the data set's settings.
    """

    label: str
    name: str
    section: str
    settings: DataSetConfig
    root: Path
    split: str


def data_sets(data: DataSetConfig) -> Mapping[str, DataSetConfig]:
    """The data sets of a mixture by name; one alone has the name of its kind."""
    if isinstance(data, DataConfig) and data.mixture:
        return data.mixture
    return {data.kind: data}


def evaluated(data: DataSetConfig) -> DataSetConfig:
    """The data set that is evaluated: of a mixture the one that `data.validation` names."""
    if isinstance(data, DataConfig) and data.mixture:
        assert data.validation is not None  # the config's rules
        return data.mixture[data.validation]
    return data


@contextlib.contextmanager
def naming(section: str) -> Iterator[None]:
    """Errors of the block name a data set's settings where they are: in `data.mixture.NAME`, say.

    Readers know a data set alone, and call its settings `data.root` and the like.
    """
    try:
        yield
    except UserError as error:
        if section == "data":
            raise
        problem, remedy = (
            text and re.sub(r"(?<![\w./])data\.(?=[a-z])(?!mixture)", f"{section}.", text)
            for text in (error.problem, error.remedy)
        )
        raise type(error)(problem or "", remedy=remedy, path=error.path, line=error.line) from error


def load_training(
    data: DataConfig, *, seed: int, say: Say, keep: Keep = keep_none
) -> tuple[FrameTable, order.Order]:
    """Reads the training split, of every data set of a mixture, and decides the order of its rows.

    `keep` is as for `load_split`.

    Raises:
        UserError: as `load_split`, for a kind of sampling that nothing can be balanced by, and for
            shards of another mixture.
    """
    task_weights = dataclasses.asdict(data.task_sampling)
    if not data.mixture:
        table = _as_trained(load_split(data, "train", say, keep), data, say)
        require_labels(table, data, "train", say)
        return table, sampling.make_order(
            table, kind=data.sampling, task_weights=task_weights, seed=seed
        )
    stored = read_shards(data, "train", say) if data.shards else None
    if stored is not None:
        _check_names(stored, "data.mixture", list(data.mixture), path=data.shards)
    parts = {}
    for name, entry in data.mixture.items():
        say(f"{name}, of weight {entry.weight:g}:")
        if stored is None:
            with naming(f"data.mixture.{name}"):
                table = load_split(entry, "train", say, keep)
        else:
            table = stored.take(stored.dataset == name)
        parts[name] = _as_trained(table.only_tasks(entry.tasks), entry, say)
        if stored is None:
            require_labels(table, entry, "train", say)
    mixed = mixture.join(parts)
    require_labels(mixed, data, "train", say)
    rows = mixture.make_order(
        parts,
        weights={name: entry.weight for name, entry in data.mixture.items()},
        per_row=data.mixture_weights == "row",
        sampling=data.sampling,
        task_weights=task_weights,
        seed=seed,
    )
    for name, count in zip(parts, rows.counts, strict=True):
        say(f"an epoch takes {count} of its {rows.length} examples from {name}")
    return mixed, rows


def _as_trained(table: FrameTable, data: DataSetConfig, say: Say) -> FrameTable:
    """The table with its soft labels if the settings want them; says what there is."""
    if not data.soft_labels:
        return table.hard()
    if table.is_hard:
        say("note: data.soft_labels is true, and there are no votes, probabilities or weights")
        return table
    shares = int((~np.isnan(table.expression_shares()[:, 0])).sum())
    units = int((~np.isnan(table.au_probability)).any(axis=1).sum())
    weighted = int((table.label_weight != 1).sum())
    rated = int((~np.isnan(table.raters[:, 2])).sum())
    spread = f"annotators' spread of {rated:,}, " if rated else ""
    say(
        f"soft labels: {spread}expressions of {shares:,} rows, action units of {units:,}; "
        f"{weighted:,} rows count less than 1"
    )
    return table


def require_raters(table: FrameTable) -> None:
    """Raises ConfigError if no row of a training set has several annotators' spread."""
    if np.isnan(table.raters).all():
        raise ConfigError(
            "loss.va.spread is set, and no row of the training set has several annotators' spread "
            "of valence and arousal",
            remedy=f"give the manifest the columns {', '.join(RATER_NAMES)} and set "
            "data.soft_labels=true, or leave loss.va.spread out",
        )


def require_labels(table: FrameTable, data: DataSetConfig, split: str, say: Say) -> None:
    """Raises AnnotationError if no row of a split has a label; says which tasks have none.

    A mean over no labels is no number: what is not labelled is not trained, and has no score. Of a
    data set of a mixture, the labels of its `tasks` count.
    """
    weighted = split == TRAIN and data.soft_labels
    counts_N = table.label_weight > 0 if weighted else np.ones(len(table), bool)
    labelled = {task for task, mask_N in table.labelled().items() if mask_N[counts_N].any()}
    mixed = isinstance(data, MixedDataConfig)
    wanted = data.tasks if isinstance(data, MixedDataConfig) else TASKS
    if not labelled.isdisjoint(wanted):
        unlabelled = [task for task in wanted if task not in labelled]
        if unlabelled and split == TRAIN and not mixed:
            say(
                f"note: no row of the training set has a label of {', '.join(unlabelled)}: "
                "not trained, such outputs are left out"
            )
        return
    name = "training" if split == TRAIN else "validation"
    path = ensure_data(data, say)
    if not (isinstance(data, DataConfig) and data.shards):
        path /= formats.annotations_name(evaluated(data), split)
    raise AnnotationError(
        f"none of the {len(table)} rows of the {name} set has a label"
        + (f" of {', '.join(wanted)}" if mixed else "")
        + ("" if counts_N.all() else " and a label_weight above 0"),
        path=path,
        remedy="compare the names of its columns and its markers of missing labels with those of "
        "docs/data_formats.md; run.py prepare counts the labels",
    )


def load_all(data: DataConfig, say: Say) -> dict[str, FrameTable]:
    """Every row that a run needs, by split: to be written as shards.

    The setting `shards` is not looked at.

    Returns:
        `train`, of a mixture all of its rows under the names of their data sets, with all labels;
        and `validation`, of the data set that is evaluated, under its name.
    """
    parts = {}
    data = dataclasses.replace(data, shards=None)
    for name, entry in data_sets(data).items():
        if data.mixture:
            say(f"{name}:")
        with naming(_section(data, name)):
            parts[name] = load_split(entry, "train", say)
    validation = load_split(evaluated(data), "validation", say)
    if not data.mixture:
        return {"train": parts.popitem()[1], "validation": validation}
    assert data.validation is not None  # the config's rules
    validation = mixture.join({data.validation: validation})
    return {"train": mixture.join(parts), "validation": validation}


def read_shards(data: DataConfig, split: str, say: Say) -> FrameTable:
    """The table of a split as it lies beside the shards."""
    assert data.shards is not None
    table = records.read_table(records.find(Path(data.shards).expanduser()), split)
    say(f"{split}, from shards: {describe_counts(table.counts())}")
    return table


def _check_names(stored: FrameTable, setting: str, named: list[str], *, path: str | None) -> None:
    """Records are read by their place, so that the data sets must be those that were written."""
    written = list(dict.fromkeys(stored.dataset))
    if written != named:
        raise ConfigError(
            f"the shards hold the data sets {', '.join(written)}, {setting} names "
            f"{', '.join(named)}",
            path=path,
            remedy="name the same, or write the shards again with `run.py prepare --shards`",
        )


def ensure_data(data: DataSetConfig, say: Say, *, write: bool = False) -> Path:
    """Returns the data set's folder; the embedded one is rendered first if it is absent.

    It is rendered into the user's cache, or with `write` into the folder that `data.root` names.
    Of a mixture, the data set that is evaluated; where shards take its place, their folder.

    Raises:
        ConfigError: `data.root` is no folder that can be looked at; or of the embedded one, it
            holds no rendered faces, and may not be written or is not empty.
        WorkdirError: it holds other rendered faces, or cannot be written.
    """
    if isinstance(data, DataConfig) and data.shards:
        return records.find(Path(data.shards).expanduser())
    data = evaluated(data)
    if data.kind != EMBEDDED:
        assert data.root is not None  # the config's rules
        root = Path(data.root).expanduser()
        _require_folder(root)
        return root
    from data_pipeline.rendered_faces import generate

    faces = data.rendered_faces
    root = Path(data.root).expanduser() if data.root else _cache_folder(faces)
    if data.root:
        _require_rendered(root, write=write)
    generate.ensure(
        root,
        num_videos=faces.num_videos,
        frames_per_video=faces.frames_per_video,
        seed=faces.seed,
        va_noise=faces.va_noise,
        movement=faces.movement,
        density=faces.density,
        hard_share=faces.hard_share,
        workers=faces.workers,
        progress=progress_lines(say, "rendered videos"),
        say=say,
    )
    return root


def _require_folder(root: Path) -> None:
    """Raises ConfigError unless the folder that `data.root` names can be looked at."""
    remedy = "name the folder of the data set: data.root=FOLDER"
    try:
        is_folder = stat.S_ISDIR(root.stat().st_mode)
    except OSError as error:
        problem, _ = files.unreadable(error, "folder of the data set")
        if not root.is_absolute():
            problem += f", looked for from {os.getcwd()} on"
        raise ConfigError(problem, path=root, remedy=remedy) from error
    if not is_folder:
        raise ConfigError("this is a file, not the folder of a data set", path=root, remedy=remedy)


def _require_rendered(root: Path, *, write: bool) -> None:
    """Raises ConfigError unless a folder holds rendered faces, or with `write` is free for them."""
    from data_pipeline.rendered_faces import layout

    if root.is_dir():
        layout.read_description(root)  # a damaged one is said first
        if layout.is_rendered(root):
            return
        free = not any(root.iterdir())
        problem = "is empty" if free else "holds other files, and no rendered faces"
    else:
        free = not root.exists()
        problem = "does not exist" if free else "is a file, not a folder of rendered faces"
    if free and write:
        return
    kinds = formats.kinds_in(root) or [kind for kind in formats.USUAL_NAMES if kind != EMBEDDED]
    render = "name a new or empty folder to render faces into"
    raise ConfigError(
        f"{problem}, and data.kind is {EMBEDDED}",
        path=root,
        remedy=f"name the kind of your data: --config.data.kind={' or '.join(kinds)}; or "
        + (render if write else f"have the faces rendered by run.py prepare: {render}"),
    )


def ensure_all(data: DataConfig, say: Say) -> None:
    """`ensure_data` for every data set of a run; the only place that writes into a `data.root`."""
    if not data.shards:
        for name, entry in data_sets(data).items():
            with naming(_section(data, name)):
                ensure_data(entry, say, write=True)


def load_split(data: DataSetConfig, split: str, say: Say, keep: Keep = keep_none) -> FrameTable:
    """Reads a split's annotations, and checks that its image files are there.

    Of a mixture, the data set that is evaluated is read; the embedded one as by `ensure_data`. With
    `missing_images=skip` the rows without a file are gone, and counted aloud. With `skip_bad_rows`
    `keep` is given the rows that cannot be read, if there are any.

    Raises:
        AnnotationError: for a bad annotation file.
        ImageError: files are missing and may not be.
    """
    if isinstance(data, DataConfig) and data.shards:
        table = read_shards(data, split, say)
        if data.mixture and data.validation is not None and split == "validation":
            _check_names(table, "data.validation", [data.validation], path=data.shards)
        return table
    section = "data"
    if isinstance(data, DataConfig) and data.validation is not None:
        section = _section(data, data.validation)
    with naming(section):
        root = ensure_data(data, say)
        table = formats.load(
            evaluated(data), split, root=root, say=lambda line: say(f"{split}: {line}"), keep=keep
        )
    say(f"{split}: {describe_counts(table.counts())}")
    half = int((np.isnan(table.valence) != np.isnan(table.arousal)).sum())
    if half:
        say(
            f"{split}: {half:,} rows have one of valence and arousal alone, which is no label of va"
        )
    return table


def every_split(data: DataConfig, say: Say) -> Iterator[Split]:
    """Goes through the splits of every data set.

    A data set of a mixture that is not evaluated may lack a validation split; that is said.
    """
    for name, settings in data_sets(data).items():
        root = ensure_data(settings, say)
        for split in SPLITS:
            needed = split == TRAIN or settings is evaluated(data)
            if not needed and not _has_validation(settings, root):
                say(f"{name}: has no validation split")
                continue
            label = f"{name} {split}" if data.mixture else split
            yield Split(label, name, _section(data, name), settings, root, split)


def _section(data: DataConfig, name: str) -> str:
    """Where the settings of a data set stand."""
    return f"data.mixture.{name}" if data.mixture else "data"


def _has_validation(settings: DataSetConfig, root: Path) -> bool:
    name = formats.annotations_name(settings, VALIDATION)
    if settings.kind == "per_video":  # a folder below that of each task
        return any(root.glob(f"*/{name}"))
    return (root / name).exists()


def require_sound_images(
    table: FrameTable, *, label: str, folder: Path | None, progress: Progress
) -> list[str]:
    """Decodes every image of a table once, as training would; `progress` counts images.

    Returns the paths of images whose EXIF orientation is not upright. ImageError lists several that
    cannot be used, with the split's label and the folder.
    """
    checked = images.check_images(table, workers=os.cpu_count() or 1, progress=progress)
    if checked.faults:
        listing = "\n  ".join(shortened(checked.faults, 10))
        raise ImageError(
            f"{len(checked.faults)} image files of the {label} set cannot be used:\n  {listing}",
            path=folder,
            remedy="replace those files; or move them away, and set data.missing_images=skip",
        )
    return checked.turned


def say_shared(train: FrameTable, validation: FrameTable, say: Say) -> None:
    """Warns of videos that are in both splits: people known from training flatter the scores."""
    known = set(zip(train.dataset.tolist(), train.video.tolist(), strict=True))
    pairs = zip(validation.dataset.tolist(), validation.video.tolist(), strict=True)
    shared = sorted({video for dataset, video in pairs if (dataset, video) in known})
    if shared:
        say(
            f"warning: {len(shared):,} videos are in the training and the validation set, as "
            f"{', '.join(shortened(shared, 3))}: scores there are of what was trained on. "
            "data.manifest.validation_videos divides one list"
        )


def describe_counts(counts: dict[str, Any]) -> str:
    """One line on a table."""
    return (
        f"{counts['rows']} rows ({counts['duplicates']} duplicates) of {counts['videos']} videos; "
        f"labelled: va {counts['va']}, au {counts['au']}, expr {counts['expr']}, "
        f"all three {counts['all_tasks']}, none {counts['unlabelled']}"
    )


def _cache_folder(faces: Any) -> Path:
    """A folder a user, and a folder a set of arguments, so that two data sets never mix."""
    from data_pipeline.rendered_faces.layout import GENERATOR_VERSION

    name = f"videos{faces.num_videos}-frames{faces.frames_per_video}-seed{faces.seed}"
    if faces.va_noise != "constant":
        name += f"-noise_{faces.va_noise}"
    if faces.movement != "alike":
        name += f"-movement_{faces.movement}"
    if faces.density != "sparse":
        name += f"-{faces.density}-hard{faces.hard_share:g}"
    return files.cache_folder() / f"rendered_faces-v{GENERATOR_VERSION}" / name
