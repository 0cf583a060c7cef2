"""The folder of a run: what lies where, and whose it is.

DIR/config.json              the settings, written once, but for a later end (`lengthen`); also
                             with each checkpoint
DIR/provenance.json          what the weights have seen, written once
DIR/checkpoints/STEP/        states (orbax)
DIR/bad_rows.csv             rows of labels that were left out (`data.skip_bad_rows`)
DIR/logs/                    TensorBoard
DIR/history.jsonl            learning curves
DIR/profile/                 traces of `train --profile_steps`
DIR/replay/                  bad steps, see `training.replay`
DIR/rows.npz                 hashes of the rows that it is trained on, see `run.rows`
DIR/training.lock            who trains here at the moment
DIR/evaluation/              metrics.json, predictions.parquet, predictions.csv, report.html
DIR/evaluation_NAME/         the same of other rows than the validation set
DIR/calibration.json         what `calibrate` fitted to DIR/evaluation
"""

import contextlib
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from mtl_face import config as config_lib
from mtl_face import files, locks
from mtl_face.errors import WorkdirError, shortened
from mtl_face.run import Say
from mtl_face.training import metadata

CHECKPOINTS = "checkpoints"
HISTORY = "history.jsonl"
EVALUATION = "evaluation"
CALIBRATION = "calibration.json"
_CONFIG = "config.json"
_CARD = "model.json"
_LOCK = "training.lock"

_BUNDLED = Path(__file__).parents[1] / "weights" / "bundled"

DEFAULT_MODEL = "geometry"
"""The bundled model that predicts where none is named."""

TRAIN = "train first: mtl_face.train, or run.py train with the same --config and --workdir"
"""What helps where a folder holds no run, or no checkpoint."""


@contextlib.contextmanager
def locked(workdir: Path, say: Say) -> Iterator[locks.Held]:
    """Makes the folder, and keeps other trainings out of it until the block ends.

    WorkdirError if one is under way, on this host or another, or the folder cannot be written.
    """
    workdir = workdir.expanduser().resolve()
    try:
        workdir.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise files.unwritable(workdir, error) from error
    remedy = "wait for it, stop it, or choose another workdir (--workdir)"
    with locks.hold(workdir / _LOCK, what="is in use", remedy=remedy, say=say) as held:
        yield held


def open_for_training(
    workdir: Path, config: config_lib.Config, say: Say = lambda line: None
) -> Path:
    """Makes the folder, or checks that it is writable and this run's; returns its absolute path.

    As long as it holds no checkpoint, it is nobody's: a command that failed on a wrong setting
    can be given again with the right one. Settings that were lost are written again from those of
    a checkpoint, which is said. `optimizer.epochs` may be more than the run was started with, see
    `lengthen`. Raises WorkdirError.
    """
    workdir = workdir.expanduser().resolve()
    try:
        workdir.mkdir(parents=True, exist_ok=True)
        if not has_checkpoint(workdir):
            _require_free(workdir)
            files.write_json(workdir / _CONFIG, config_lib.to_dict(config))
            return workdir
        saved, lost = _settings(workdir)
        _check_same(workdir, _lengthened(saved, config), config)
        files.require_writable(workdir)
        if lost is not None:
            files.write_json(workdir / _CONFIG, saved)
            say(f"warning: {workdir / _CONFIG} {lost}; written again from {CHECKPOINTS}")
    except OSError as error:
        raise files.unwritable(workdir, error) from error
    return workdir


def lengthen(workdir: Path, config: config_lib.Config) -> int | None:
    """Writes down that a run goes on for the epochs of the settings, if these are more.

    Returns the epochs that it had until now, or None if nothing changes. Raises WorkdirError.
    """
    saved, _ = _settings(workdir)
    longer = _lengthened(saved, config)
    if longer is saved:
        return None
    files.write_json(workdir / _CONFIG, longer)
    return saved["optimizer"]["epochs"]


def _lengthened(saved: dict[str, Any], config: config_lib.Config) -> dict[str, Any]:
    """The settings of a run, with the epochs of others where these are more."""
    epochs, optimizer = config.optimizer.epochs, saved.get("optimizer")
    before = optimizer.get("epochs") if isinstance(optimizer, dict) else None
    if not isinstance(before, int) or epochs <= before:
        return saved
    return {**saved, "optimizer": {**saved["optimizer"], "epochs": epochs}}


def _require_free(workdir: Path) -> None:
    """Refuses a folder that holds an export, or settings of another program; WorkdirError."""
    what = "an export" if holds_export(workdir) else None
    if (workdir / _CONFIG).exists():
        remedy = "give another --workdir, or move that file away"
        values = files.read_json(workdir / _CONFIG, remedy=remedy)
        if not _of_a_run(values):
            what = f"a {_CONFIG} that is not of a run"
    if what is not None:
        raise WorkdirError(
            f"holds {what}, and no run", path=workdir, remedy="give another folder (--workdir)"
        )


def _of_a_run(values: Mapping[str, Any]) -> bool:
    """Whether a config.json has the sections that the settings of every run have."""
    return {"data", "model", "training"} <= values.keys()


def evaluation_folder(split: str, data: str | Path | None) -> str:
    """Name of the folder of an evaluation: `EVALUATION` for the run's own validation set alone."""
    parts = [] if data is None else [files.plain_name(Path(data).absolute().name)]
    return "_".join([EVALUATION, *parts, *([] if split == "validation" else [split])])


def forget(workdir: Path) -> None:
    """Takes the settings out of a folder in which no training has begun."""
    if not has_checkpoint(workdir):
        (workdir / _CONFIG).unlink(missing_ok=True)


def open_for_reading(workdir: Path, config: config_lib.Config) -> Path:
    """The absolute path of a folder that holds a run with these settings; else WorkdirError."""
    workdir = workdir.expanduser().resolve()
    _check_same(workdir, read_settings(workdir), config)
    return workdir


def is_run(workdir: Path) -> bool:
    """Whether the folder is that of a run."""
    return (workdir / _CONFIG).is_file() or has_checkpoint(workdir)


def holds_export(folder: Path) -> bool:
    """Whether the folder is that of an export."""
    return (folder / _CARD).is_file()


def has_checkpoint(workdir: Path) -> bool:
    """Whether a run is there to go on with."""
    return bool(metadata.steps(workdir / CHECKPOINTS))


def read_settings(workdir: Path) -> dict[str, Any]:
    """The settings that a run was started with: of its config.json, else of its checkpoints.

    WorkdirError if neither has them, or config.json is of another program.
    """
    workdir = workdir.expanduser()
    if not is_run(workdir):
        raise WorkdirError("holds no run", path=workdir, remedy=TRAIN)
    values, _ = _settings(workdir)
    if not _of_a_run(values) and not has_checkpoint(workdir):
        raise _of_another_program(workdir, values)
    return values


def _of_another_program(folder: Path, values: Mapping[str, Any]) -> WorkdirError:
    """The error for a folder that is taken for a run by its config.json, which is none of a run."""
    from mtl_face.weights import model_folder  # needs NumPy, as `own_config` says

    network = model_folder.network_of(values)
    what = f"of another program ({network})" if network else "not of a run"
    if not model_folder.has_weights(folder):
        return WorkdirError(
            f"holds no run, and no export either: its {_CONFIG} is {what}",
            path=folder,
            remedy=f"{TRAIN}; or give what run.py export wrote",
        )
    return WorkdirError(
        f"holds weights, and no run, and no export either: its {_CONFIG} is {what}",
        path=folder,
        remedy="a backbone can start from weights (model.backbone.init_from): "
        f"run.py weights {folder} says which settings these need",
    )


def _settings(workdir: Path) -> tuple[dict[str, Any], str | None]:
    """The settings of a run, and what is wrong with its config.json, if they are not from there."""
    path = workdir / _CONFIG
    remedy = (
        "give its command another --workdir, stop that run after its first step, and copy its "
        f"{_CONFIG} here: then this one goes on from its checkpoints"
    )
    try:
        if not path.exists():
            raise WorkdirError(f"holds checkpoints but no {_CONFIG}", path=workdir, remedy=remedy)
        return files.read_json(path, remedy=remedy), None
    except WorkdirError as error:
        kept = metadata.newest(workdir / CHECKPOINTS, metadata.SETTINGS)
        if not isinstance(kept, dict):
            raise
        return kept, error.problem if path.exists() else "is missing"


def _check_same(workdir: Path, saved: dict[str, Any], config: config_lib.Config) -> None:
    differences = config_lib.differences(saved, config)
    if not differences:
        return
    remedy = "give the config that the run was started with, or another workdir (--workdir)"
    kept = metadata.newest(workdir / CHECKPOINTS, metadata.SETTINGS)
    if isinstance(kept, dict) and not config_lib.differences(kept, config):
        remedy = (
            f"{_CONFIG} has been changed since its checkpoints were written, which have the "
            "settings given here: remove that file, and those of the checkpoints count"
        )
    raise WorkdirError(
        f"belongs to a run with another config: {'; '.join(shortened(differences, 5))}",
        path=workdir,
        remedy=remedy,
    )


def own_config(path: str | Path, overrides: Iterable[str] = ()) -> config_lib.Config:
    """The settings that a model was trained with, changed by overrides as of `config.load`.

    Those of an export lack what only training uses. ExportError if the export cannot be read,
    WorkdirError if there is neither.
    """
    path = existing(path)
    if is_run(path):
        values = read_settings(path)
    else:
        from mtl_face.weights import exported  # needs NumPy, which a command's help does without

        values = exported.read_settings(path)
    return config_lib.load_values(values, overrides, path)


def bundled() -> dict[str, Path]:
    """The models that come with the package: files of exports by name."""
    return {file.stem: file for file in sorted(_BUNDLED.glob("*.safetensors"))}


def existing(path: str | Path) -> Path:
    """The path of a run, of an export, or of the bundled model of this name.

    WorkdirError if there is none of the three.
    """
    if not str(path):
        raise WorkdirError("the path of the model is empty", remedy="name a run or an export")
    path = Path(path).expanduser()
    if path.is_file() or is_run(path) or holds_export(path):
        return path
    models = bundled()
    if (file := models.get(str(path))) is not None:
        return file
    known = f", or name a bundled model: {', '.join(models)}" if models else ""
    raise WorkdirError(
        "holds no run, and no export either" if path.exists() else "does not exist",
        path=path,
        remedy=f"{TRAIN}; or give what run.py export wrote{known}",
    )
