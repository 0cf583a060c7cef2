"""What the predicted uncertainties of finished runs are worth, as tables in Markdown.

The embedded data set has its labels without noise beside those with noise, so that it can be told
how large the noise is that a network should find, and how far a prediction is from the truth.
Intervals come from resampling the videos of the validation set.

Dimension letters: S seeds, N rows.
"""

import dataclasses
import functools
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from data_pipeline.formats import s_aff_wild2
from data_pipeline.rendered_faces import layout
from mtl_face import config as config_lib
from mtl_face.evaluation import ensemble, prediction_files, scoring
from mtl_face.evaluation.joining import match
from mtl_face.evaluation.uncertainty_measures import gaussian_losses
from mtl_face.run import datasets
from mtl_face.tables import FrameTable, PredictionTable
from mtl_face.tasks import AU, EXPR, EXPRESSION_NAMES, TASKS, VA

NUM_RESAMPLES = 1000
FLOORS = "noise of the labels"


@dataclasses.dataclass(frozen=True)
class Labels:
    """A split's labels, rows in the order of their table: as annotated, and without noise."""

    noisy: FrameTable
    true: FrameTable
    noise_std_N: NDArray[np.float64] | None  # of each row, where it differs from row to row

    @property
    def noisy_va(self) -> NDArray[np.float64]:
        """Annotated valence and arousal, [N, 2], NaN where missing."""
        return np.column_stack([self.noisy.valence, self.noisy.arousal]).astype(np.float64)

    @property
    def true_va(self) -> NDArray[np.float64]:
        """Valence and arousal without noise, [N, 2]."""
        return np.column_stack([self.true.valence, self.true.arousal]).astype(np.float64)


def make(runs: Mapping[str, Sequence[Path]], *, epochs: int) -> str:
    """Tables of finished runs.

    Args:
        runs: folders of runs by kind.
        epochs: of their training.

    Returns:
        Markdown.
    """
    found = {
        kind: [prediction_files.read(run / "evaluation" / "predictions.parquet") for run in folders]
        for kind, folders in runs.items()
    }
    scores = {
        kind: [json.loads((run / "evaluation" / "metrics.json").read_text()) for run in folders]
        for kind, folders in runs.items()
    }
    number = max((len(members) for members in found.values()), default=0)
    parts = [
        f"Embedded network, AdamW, {epochs} epochs, up to {number} seed(s); mean over seeds, in "
        "brackets the standard deviation over seeds.",
        _score_rows(found, scores),
        _calibration_rows(found),
        _temperature_rows(found),
        _correlation_rows(found),
    ]
    return "\n\n".join(parts) + "\n"


def _score_rows(
    found: Mapping[str, Sequence[PredictionTable]], scores: Mapping[str, Sequence[dict[str, Any]]]
) -> str:
    header = ["kind", "seeds", "P", "VA CCC", "AU F1", "EXPR F1", "ECE AU", "ECE EXPR"]
    header += ["NLL AU", "NLL EXPR"]
    rows = []
    for kind, results in scores.items():
        rows.append([kind, str(len(results)), *_scores(results)])
        if len(results) > 1:
            mean = ensemble.combine(found[kind], names=[str(i) for i in range(len(results))])
            result = scoring.score(_labels(found[kind][0]).noisy, mean)
            rows.append([f"{kind}, ensemble of all", "", *_scores([result])])
    return "**Scores and probabilities** (labels with noise):\n\n" + _markdown(header, rows)


def _scores(results: Sequence[dict[str, Any]]) -> list[str]:
    columns = [[r["p"] for r in results], *([r[t]["score"] for r in results] for t in TASKS)]
    for measure in ("ece_debiased", "nll"):
        columns += [[r[task]["uncertainty"][measure] for r in results] for task in (AU, EXPR)]
    return [_mean_and_spread(column) for column in columns]


def _calibration_rows(found: Mapping[str, Sequence[PredictionTable]]) -> str:
    header = ["kind", "NLL", "NLL, scaled", "NLL, one std", "mean std", "RMSE", "inside 80 %"]
    header += ["inside 95 %", "epistemic std"]
    rows = []
    for kind, members in found.items():
        labels = _labels(members[0])
        rows.append([kind, *_calibration(members, labels)])
        if len(members) > 1:
            mean = ensemble.combine(members, names=[str(i) for i in range(len(members))])
            rows.append([f"{kind}, ensemble of all", *_calibration([mean], labels)])
    return (
        "**Standard deviations of valence and arousal** (labels with noise, mean of the two). "
        "`scaled`: after one factor, `one std`: with the same standard deviation for all rows, "
        "each the best on these rows: what the differences between rows are worth is the gap of "
        "these two.\n\n" + _markdown(header, rows)
    )


def _calibration(members: Sequence[PredictionTable], labels: Labels) -> list[str]:
    columns: dict[str, list[float]] = {}
    for table in members:
        for name, value in _calibration_of(table, labels).items():
            columns.setdefault(name, []).append(value)
    names = ("nll", "scaled", "constant", "mean_std", "rmse", "80", "95", "epistemic")
    return [_mean_and_spread(columns[name]) if name in columns else "-" for name in names]


def _calibration_of(table: PredictionTable, labels: Labels) -> dict[str, float]:
    truth_N2, table = labels.noisy_va, table.take(match(labels.noisy, table))
    rows = ~np.isnan(truth_N2).any(axis=1)
    truth_N2, mean_N2 = truth_N2[rows], _va(table)[rows]
    rmse_2 = np.sqrt(((mean_N2 - truth_N2) ** 2).mean(axis=0))
    one_N2 = np.broadcast_to(rmse_2[None, :], mean_N2.shape)
    values = {
        "constant": float(gaussian_losses(truth_N2, mean_N2, one_N2).mean()),
        "rmse": float(rmse_2.mean()),
    }
    if table.valence_epistemic_std is not None and table.arousal_epistemic_std is not None:
        pair = np.column_stack([table.valence_epistemic_std, table.arousal_epistemic_std])
        values["epistemic"] = float(np.sqrt((pair[rows] ** 2).mean()))
    std_N2 = _std(table)
    if std_N2 is not None:
        std_N2 = std_N2[rows]
        factor_2 = np.sqrt((((mean_N2 - truth_N2) / std_N2) ** 2).mean(axis=0))
        scored = scoring.score(labels.noisy, table)[VA]["uncertainty"]
        values |= {
            "nll": float(np.mean(list(scored["nll"].values()))),
            "scaled": float(gaussian_losses(truth_N2, mean_N2, std_N2 * factor_2[None, :]).mean()),
            "mean_std": float(std_N2.mean()),
            **{
                level: float(np.mean([part[level] for part in scored["coverage"].values()]))
                for level in ("80", "95")
            },
        }
    return values


def _temperature_rows(found: Mapping[str, Sequence[PredictionTable]]) -> str:
    rows: list[list[str]] = []
    floors: dict[str, list[str]] = {}
    for kind, members in found.items():
        config = members[0].metadata["config"]
        if config["uncertainty"]["kind"] != "learned":
            continue
        noise = config["data"]["rendered_faces"]["va_noise"]
        if noise not in floors:
            values = floor_temperatures(_labels(members[0], "train"))
            floors[noise] = [f"{FLOORS} ({noise})", *(f"{values[task]:.3f}" for task in TASKS), ""]
        temperatures = [
            {task: _task_temperature(table, task) for task in TASKS} for table in members
        ]
        ordered = sum(t[VA] < t[AU] < t[EXPR] for t in temperatures)
        rows.append(
            [
                kind,
                *(_mean_and_spread([t[task] for t in temperatures]) for task in TASKS),
                f"{ordered} of {len(members)}",
            ]
        )
    if not rows:
        return "**Learned temperatures**: no run learned any."
    return (
        "**Learned temperatures** beside those of a perfect model: the mean square of the noise on "
        "valence and arousal, the mean cross entropy of the noise on action units, twice that of "
        "the noise on expressions. A network adds its own errors, so that it should learn more, in "
        "the same order. With a variance per example, T of va is its mean over the rows.\n\n"
        + _markdown(["", "T va", "T au", "T expr", "in order"], [*floors.values(), *rows])
    )


def floor_temperatures(labels: Labels) -> dict[str, float]:
    """Temperatures that `learned` would reach if the truth were predicted, by task.

    Args:
        labels: of the training set.

    Returns:
        The minima of the learned loss: mean square error of valence and arousal, mean cross
        entropy of action units, twice the mean cross entropy of expressions, each of labels
        against what the noise leaves of the truth.
    """
    noise_N2 = labels.noisy_va - labels.true_va
    au = np.asarray(labels.noisy.au, np.float64)
    there = ~np.isnan(au)
    flipped = float((au != np.asarray(labels.true.au))[there].mean())
    rows = np.asarray(labels.noisy.expression) >= 0
    confused = float((labels.noisy.expression != labels.true.expression)[rows].mean())
    others = len(EXPRESSION_NAMES) - 1
    return {
        VA: float(np.nanmean(noise_N2**2)),
        AU: _binary_entropy(flipped),
        EXPR: 2.0 * (_binary_entropy(confused) + confused * float(np.log(others))),
    }


def _correlation_rows(found: Mapping[str, Sequence[PredictionTable]]) -> str:
    header = ["kind", "with the error to the truth", "with the error to the labels"]
    header += ["with the noise of the row"]
    rows = []
    for kind, members in found.items():
        stds = [_std(table) for table in members]
        if any(std is None or np.ptp(std[:, 0]) < 1e-9 for std in stds):
            continue
        labels = _labels(members[0])
        tables_ = [table.take(match(labels.noisy, table)) for table in members]
        std_SN2 = np.stack([std for table in tables_ if (std := _std(table)) is not None])
        mean_SN2 = np.stack([_va(table) for table in tables_])
        groups = np.unique(np.asarray(labels.noisy.video, str), return_inverse=True)[1]
        cells = []
        for reference in (labels.true_va, labels.noisy_va):
            error_SN2 = np.abs(mean_SN2 - reference[None])
            cells.append(_with_interval(std_SN2, error_SN2, groups))
        noise_N = labels.noise_std_N
        if noise_N is not None:
            noise_SN2 = np.broadcast_to(noise_N[None, :, None], std_SN2.shape)
            cells.append(_with_interval(std_SN2, noise_SN2, groups))
        rows.append([kind, *cells, *["-"] * (3 - len(cells))])
    if not rows:
        return "**Rank correlations**: no run predicted a standard deviation per example."
    return (
        "**Rank correlations (Spearman) of the predicted standard deviation**, mean of valence and "
        "arousal and of the seeds, with its 95 % interval over videos.\n\n"
        + _markdown(header, rows)
    )


def _with_interval(
    std_SN2: NDArray[np.float64], other_SN2: NDArray[np.float64], group_N: NDArray[np.int64]
) -> str:
    random = np.random.default_rng(0)
    number = int(group_N.max()) + 1
    rows_of = [np.flatnonzero(group_N == group) for group in range(number)]

    def correlation(rows: NDArray[np.int64]) -> float:
        return float(
            np.mean(
                [
                    stats.spearmanr(std_SN2[s, rows, c], other_SN2[s, rows, c], nan_policy="omit")[
                        0
                    ]
                    for s in range(len(std_SN2))
                    for c in range(2)
                ]
            )
        )

    drawn = [
        correlation(np.concatenate([rows_of[g] for g in random.integers(0, number, number)]))
        for _ in range(NUM_RESAMPLES)
    ]
    low, high = np.percentile(drawn, [2.5, 97.5])
    return f"{correlation(np.arange(len(group_N))):.2f} [{low:.2f}, {high:.2f}]"


def _labels(table: PredictionTable, split: str = "val") -> Labels:
    """Labels of the data set that a table's run was made on."""
    config = config_lib.validate(table.metadata["config"])
    root = datasets.ensure_data(config.data, print)
    return read_labels(root, split, str(table.dataset[0]))


@functools.cache
def read_labels(root: Path, split: str, dataset: str) -> Labels:
    """Labels of a split (`train`, `val`) of the embedded data set in a folder."""

    def read(name: str) -> FrameTable:
        return s_aff_wild2.read_annotations(
            root / name, image_root=root / layout.IMAGE_FOLDER, dataset=dataset
        )

    noisy, true = read(layout.ANNOTATION_FILES[split]), read(layout.TRUTH_FILES[split])
    assert (noisy.image == true.image).all()
    noise_std_N = None
    file = root / layout.NOISE_FILES[split]
    if file.is_file():
        lines = file.read_text(encoding="ascii").splitlines()[1:]
        by_image = {name: float(value) for name, value in (line.split(",") for line in lines)}
        noise_std_N = np.array([by_image[image] for image in noisy.image])
    return Labels(noisy, true, noise_std_N)


def _task_temperature(table: PredictionTable, task: str) -> float:
    std_N2 = _std(table)
    if task == VA and std_N2 is not None:
        return float((std_N2**2).mean())
    return float(table.metadata["temperatures"][task])


def _va(table: PredictionTable) -> NDArray[np.float64]:
    return np.clip(np.column_stack([table.valence, table.arousal]), -1.0, 1.0)


def _std(table: PredictionTable) -> NDArray[np.float64] | None:
    if table.valence_std is None or table.arousal_std is None:
        return None
    return np.column_stack([table.valence_std, table.arousal_std])


def _binary_entropy(probability: float) -> float:
    return float(stats.bernoulli(probability).entropy())


def _mean_and_spread(values: Sequence[float]) -> str:
    if len(values) == 1:
        return f"{values[0]:.3f}"
    return f"{np.mean(values):.3f} ({np.std(values, ddof=1):.3f})"


def _markdown(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)
