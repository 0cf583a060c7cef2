"""Labels that a model gives to images: for a student to learn from, or where labels are missing.

A label is given where the model is sure of it (`Confidence`). Labels at hand go before the model's,
label by label: a row can have an expression of its annotators and action units of the model.

Dimension letters: N rows, A action units (12), E expressions (8).
"""

import dataclasses
import shlex
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from mtl_face import files
from mtl_face.config import Config, DataConfig
from mtl_face.config.schema import ManifestConfig
from mtl_face.errors import AnnotationError, ConfigError
from mtl_face.inference.predictor import Predictor
from mtl_face.run import Say, datasets, models, named_data, provenance, show
from mtl_face.run.inputs.over_time import find_inputs
from mtl_face.run.postprocess import PostProcessing
from mtl_face.run.predict import predict_table
from mtl_face.run.teachers import record
from mtl_face.tables import (
    AU_PROBABILITY_NAMES,
    EXPRESSION_PROBABILITY_NAMES,
    RATER_NAMES,
    FrameTable,
    PredictionTable,
)
from mtl_face.tasks import AU, AU_NAMES, EXPR, EXPRESSION_NAMES, TASKS, VA, VA_NAMES

_LEAST = {AU: 0.5, EXPR: 0.0}
_HASH_SHOWN = 12


@dataclasses.dataclass(frozen=True)
class Confidence:
    """From where on a model's answer becomes a label; None: of a task none does.

    Attributes:
        va: largest standard deviation of valence and of arousal.
        au: smallest probability that a unit is as it is called, present or absent, from 0.5.
        expr: smallest probability of the most probable expression.
    """

    va: float | None = None
    au: float | None = None
    expr: float | None = None

    @classmethod
    def from_text(cls, text: str) -> Self:
        """That in `0.9` (action units and expressions) or `va:0.2,au:0.9,expr:0.8`.

        ConfigError for another text.
        """
        found: dict[str, float] = {}
        for part in text.split(","):
            name, colon, number = part.strip().rpartition(":")
            names = (AU, EXPR) if not colon and "," not in text else (name,)
            try:
                value = float(number)
            except ValueError:
                value = np.nan
            if found.keys() & names or not set(names) <= set(TASKS):
                raise _no_confidence(text, f"{part!r} names no task or repeats one")
            for task in names:
                if task == VA and not 0 < value < np.inf:
                    raise _no_confidence(text, "the standard deviation must be above 0")
                if task != VA and not _LEAST[task] <= value <= 1:
                    raise _no_confidence(text, f"that of {task} is from {_LEAST[task]:g} to 1")
                found[task] = value
        return cls(**found)

    def require(self, predictions: PredictionTable) -> None:
        """Raises ConfigError for a task that the predictions say nothing about."""
        limits = {task: getattr(self, task) for task in TASKS}
        limits = {task: limit for task, limit in limits.items() if limit is not None}
        known = [f"{task}:{limits[task]:g}" for task in limits if task in predictions.tasks]
        for task in limits:
            if task not in predictions.tasks:
                raise ConfigError(
                    f"--confidence names {task}, on which the model was never trained",
                    remedy=f"write --confidence={','.join(known)}"
                    if known
                    else "take a model of it, or name another task: it knows "
                    + ", ".join(predictions.tasks),
                )
        if self.va is not None and predictions.va_std is None:
            raise ConfigError(
                "--confidence names va, and the model has no standard deviations of it",
                remedy="leave va out, or take a model of uncertainty.kind=learned, or of "
                "model.va_variance=per_example",
            )


def _no_confidence(text: str, problem: str) -> ConfigError:
    return ConfigError(
        f"--confidence={text} is no rule: {problem}",
        remedy="write --confidence=0.9 for action units and expressions, or "
        "--confidence=va:0.2,au:0.9,expr:0.8",
    )


@dataclasses.dataclass(frozen=True)
class Taught:
    """A table with labels of a model where it had none.

    Attributes:
        table: with soft labels of what the model gave.
        taught_N: rows with any label of the model, bool [N].
        counts: by task `given`, `taught` and `missing`: rows, of `au` labels of single units.
    """

    table: FrameTable
    taught_N: NDArray[np.bool_]
    counts: Mapping[str, Mapping[str, int]]


def teach(table: FrameTable, predictions: PredictionTable, confidence: Confidence) -> Taught:
    """Adds what a model is sure of to the labels of a table; rows are those of the predictions.

    The model's expression and its action units are soft, and their decisions are those of its
    probabilities: the largest, and one half. Valence and arousal are taught together, where the
    model is sure of both and one is missing; the one at hand stays.

    Raises:
        ConfigError: the rule asks for what the predictions do not have.
    """
    confidence.require(predictions)
    columns: dict[str, NDArray[Any]] = {}
    new: dict[str, NDArray[np.bool_]] = {}
    given: dict[str, NDArray[np.bool_]] = {}
    shares_NE = table.expression_shares()
    given[VA] = table.labelled()[VA]
    given[AU] = ~np.isnan(table.au)
    given[EXPR] = (table.expression >= 0) | ~np.isnan(shares_NE[:, 0])

    new[VA] = np.zeros(len(table), bool)
    if confidence.va is not None:
        assert predictions.va_std is not None  # `require`
        sure_N2: NDArray[np.bool_] = predictions.va_std <= confidence.va
        new[VA] = ~given[VA] & sure_N2[:, 0] & sure_N2[:, 1]
    for name in VA_NAMES:
        answer_N, own_N = np.clip(getattr(predictions, name), -1, 1), getattr(table, name)
        columns[name] = np.where(new[VA] & np.isnan(own_N), answer_N, own_N)

    new[AU] = np.zeros_like(given[AU])
    columns["au"], columns["au_probability"] = table.au, table.au_probability
    if confidence.au is not None:
        probability_NA = predictions.au_probabilities
        assert probability_NA is not None
        sure_NA = np.maximum(probability_NA, 1 - probability_NA) >= confidence.au
        new[AU] = ~given[AU] & sure_NA
        columns["au"] = np.where(new[AU], probability_NA >= 0.5, table.au)
        columns["au_probability"] = np.where(new[AU], probability_NA, table.au_probability)

    new[EXPR] = np.zeros(len(table), bool)
    columns["expression"], columns["votes"] = table.expression, shares_NE
    if confidence.expr is not None:
        probability_NE = predictions.expression_probabilities
        assert probability_NE is not None
        new[EXPR] = ~given[EXPR] & (probability_NE.max(axis=1) >= confidence.expr)
        columns["expression"] = np.where(new[EXPR], probability_NE.argmax(axis=1), table.expression)
        columns["votes"] = np.where(new[EXPR][:, None], probability_NE, shares_NE)
    dtypes = {name: getattr(table, name).dtype for name in columns}
    taught = dataclasses.replace(
        table, **{name: values.astype(dtypes[name]) for name, values in columns.items()}
    )
    counts = {
        task: {
            "given": int(given[task].sum()),
            "taught": int(new[task].sum()),
            "missing": int((~given[task] & ~new[task]).sum()),
        }
        for task in TASKS
    }
    return Taught(taught, new[VA] | new[AU].any(axis=1) | new[EXPR], counts)


def write_manifest(path: Path, table: FrameTable, teacher_N: list[str] | None = None) -> None:
    """Writes a table as a manifest with its soft labels; `teacher_N` is its column `teacher`.

    Numbers have seven significant digits. WorkdirError where the file cannot be written.
    """
    columns: dict[str, list[Any]] = {
        "image": table.image.tolist(),
        "video": table.video.tolist(),
        "frame": table.frame.tolist(),
        **{name: _cells(getattr(table, name)) for name in VA_NAMES},
        "expression": [(*EXPRESSION_NAMES, "")[number] for number in table.expression],
    }
    shares_NE = table.expression_shares()
    if not np.isnan(shares_NE).all():
        columns |= zip(EXPRESSION_PROBABILITY_NAMES, map(_cells, shares_NE.T), strict=True)
    if not np.isnan(table.raters).all():
        columns |= zip(RATER_NAMES, map(_cells, table.raters.T), strict=True)
    columns |= zip(AU_NAMES, map(_cells, table.au.T), strict=True)
    if not np.isnan(table.au_probability).all():
        probability_AN = table.au_probability.T
        columns |= zip(AU_PROBABILITY_NAMES, map(_cells, probability_AN), strict=True)
    if (table.label_weight != 1).any():
        columns["label_weight"] = _cells(table.label_weight)
    if teacher_N is not None:
        columns[record.COLUMN] = teacher_N
    files.write_csv(path, [tuple(columns), *zip(*columns.values(), strict=True)])


def _cells(value_N: NDArray[np.floating]) -> list[str]:
    return ["" if np.isnan(value) else f"{value:.7g}" for value in value_N.tolist()]


def of_other_data(config: Config, named: str | Path) -> Config:
    """The settings with another data set, as `named_data.another` finds it; a file has no splits.

    Raises:
        UserError: as there.
    """
    return dataclasses.replace(config, data=named_data.another(config.data, named))


def of_training_set(
    model: str | Path | Predictor,
    output: Path,
    confidence: Confidence,
    *,
    config: Config,
    replace: bool = False,
    say: Say = show,
) -> Taught:
    """Writes the training set of the settings as a manifest, with a model's labels added.

    Args:
        model: a run, an export, or what `mtl_face.load` returned.
        output: the manifest, .csv. The validation set is written beside it, with its own labels
            alone, as NAME_validation.csv, if there is one.
        confidence: which labels the model may give.
        config: the settings; of a mixture, name one data set with `named_data.another` before.
        replace: whether the labels at hand are left out, so that all labels are the model's.
        say: called with each line for the user.

    Raises:
        UserError: the model or the data cannot be read, no label passes the rule, or the files
            cannot be written.
    """
    data = config.data
    if data.mixture:
        raise ConfigError(
            "the data are a mixture, and labels are given to one data set",
            remedy="name one of it: --data=" + " or ".join(data.mixture),
        )
    files.require_writable(output.parent)
    data = dataclasses.replace(data, shards=None)
    table = datasets.load_split(data, datasets.TRAIN, say)
    if replace:
        table = table.only_tasks(())
    taught = _label(model, table, output, confidence, config=config, say=say)
    validation = _write_validation(data, table, output, say)
    _say_next(data, output, validation, images=table.root[0], say=say)
    return taught


def of_list(
    model: str | Path | Predictor,
    table: FrameTable,
    output: Path,
    confidence: Confidence,
    *,
    config: Config,
    images: str | Path | None = None,
    say: Say = show,
) -> Taught:
    """Writes a list of images without labels as a manifest of a model's labels.

    `images` is the folder that they are from, None for that of the data set of the settings; the
    rest is as for `of_training_set`.
    """
    taught = _label(model, table, output, confidence, config=config, images=images, say=say)
    _say_next(config.data, output, None, images=table.root[0], say=say)
    return taught


def _say_next(
    data: DataConfig, output: Path, validation: str | None, *, images: str, say: Say
) -> None:
    """Says how a student is trained; what `data` say of their own manifest does not hold here."""
    settings = {
        "kind": "manifest",
        "root": str(output.parent.absolute()),
        "train_annotations": output.name,
        "validation_annotations": validation or "FILE.csv",
        "image_folder": images,
        "soft_labels": "true",
    }
    for field in dataclasses.fields(ManifestConfig):
        plain: Any = field.default
        if getattr(data.manifest, field.name) != plain:
            text = ",".join(map(str, plain)) if isinstance(plain, tuple) else str(plain)
            settings[f"manifest.{field.name}"] = text
    flags = [f"--config.data.{name}={shlex.quote(text)}" for name, text in settings.items()]
    say("next: python run.py train --config=NAME --workdir=DIR " + " ".join(flags))
    if validation is None:
        say("FILE.csv is a manifest of labelled images in the same folder, to validate on")


def _write_validation(data: DataConfig, train: FrameTable, output: Path, say: Say) -> str | None:
    """Writes the validation set beside the manifest; its name, None where there is none."""
    try:
        table = datasets.load_split(data, datasets.VALIDATION, say)
    except AnnotationError as error:
        say(f"no validation set is written: {error.problem}")
        return None
    if set(table.image) == set(train.image):
        say("no validation set is written: it has the images of the training set")
        return None
    path = output.with_name(f"{output.stem}_validation.csv")
    write_manifest(path, table)
    say(f"validation set, with its own labels: {path}")
    return path.name


def _label(
    model: str | Path | Predictor,
    table: FrameTable,
    output: Path,
    confidence: Confidence,
    *,
    config: Config,
    images: str | Path | None = None,
    say: Say,
) -> Taught:
    """Adds a model's labels to a table, and writes it with a record of the model.

    `table` has the labels at hand, and images as files; the rest is as for `of_list`.
    """
    steps = PostProcessing.of_settings(config)
    name = config.name if isinstance(model, Predictor) else str(model)
    if not isinstance(model, Predictor):
        model = models.open_model(model, config, say)
    steps = steps.with_own(model)
    data = dataclasses.replace(config.data, shards=None)
    files_alone = dataclasses.replace(config, data=data)
    say(f"predicting {len(table):,} images of {len(set(table.video)):,} videos ...")
    pixels = find_inputs(files_alone, table, say, split=datasets.TRAIN, predictor=model)
    predictions = steps.apply(predict_table(model, pixels), say)[0]
    provenance.warn(model.origin.get("provenance"), say)
    taught = teach(table, predictions, confidence)
    _require_any(taught, predictions, confidence)
    for task, counts in taught.counts.items():
        of = "labels of single units" if task == AU else "rows"
        say(
            f"{task}: {of}: {counts['given']:,} at hand, {counts['taught']:,} from the model, "
            f"{counts['missing']:,} without"
        )
    sha256 = str(model.origin.get("weights_sha256", ""))
    shown = sha256[:_HASH_SHOWN] or "unknown"
    write_manifest(output, taught.table, [shown if one else "" for one in taught.taught_N])
    known = model.origin.get("provenance")
    files.write_json(
        record.path_of(output),
        {
            "file": name,
            "sha256": sha256,
            "step": model.step,
            "provenance": known,
            "images_of": provenance.data_sets(files_alone) if images is None else _places(images),
            "confidence": dataclasses.asdict(confidence),
            "counts": taught.counts,
        },
        indent=1,
    )
    say(f"labels: {output}; which model gave them: {record.path_of(output)}")
    return taught


def _places(images: str | Path) -> list[str]:
    """The name of the data set of a folder of images: that of the folder, and of the one above."""
    return ["/".join(Path(images).expanduser().absolute().parts[-2:])]


def _require_any(taught: Taught, predictions: PredictionTable, confidence: Confidence) -> None:
    """Raises ConfigError where the model gave no label at all."""
    if taught.taught_N.any():
        return
    best: list[str] = []
    largest: Callable[[Any], float] = np.nanmax
    if not any(counts["missing"] for counts in taught.counts.values()):
        raise ConfigError(
            "the model gave no label: each row has all of its own",
            remedy="--replace_labels gives the model's in their places",
        )
    if confidence.expr is not None:
        best.append(f"expr {largest(predictions.expression_probabilities):.3f}")
    if confidence.au is not None and (probability_NA := predictions.au_probabilities) is not None:
        best.append(f"au {largest(np.maximum(probability_NA, 1 - probability_NA)):.3f}")
    if confidence.va is not None and predictions.va_std is not None:
        best.append(f"va {predictions.va_std.max(axis=1).min():.3f}")
    raise ConfigError(
        "no answer of the model passes --confidence: its surest are of " + ", ".join(best),
        remedy="ask for less confidence, or take a better model",
    )
