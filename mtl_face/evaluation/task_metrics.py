"""The metrics of each task: which sums of the rows they need, and what follows from such sums.

A task has `scores`, of its decisions, and `uncertainty`, of what its predictions say of their own
errors: both are statistics, which give the official value of all rows together and the values of
resamples alike. `details` and `uncertainty_details` are the entries of the result that no interval
is given for. Among them is the plain calibration error: its bias is larger than its spread, so
that an interval of resamples would not even hold the value itself. The debiased one stands for it.

`num_valid` counts the rows that count; `without_uncertainty` says why there is no `uncertainty`, or
is None. Action units and expressions then have no `pr_auc` either.

Dimension letters: N rows, M rows that count, V videos, R sets of videos, A action units (12),
E expressions (8), B bins.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit, log_softmax

from mtl_face.evaluation.joining import Joined
from mtl_face.evaluation.measures import (
    Floats,
    always,
    area_under_risk,
    as_classes,
    average_precision,
    concordance_of_sums,
    concordance_parts,
    f1_per_class,
    mean_of_defined,
    moments,
    or_none,
    precision_per_class,
    ranks,
    ratio,
    recall_per_class,
    risk_coverage,
)
from mtl_face.evaluation.sums import Scores, Statistic, Videos
from mtl_face.evaluation.uncertainty_measures import (
    INTERVAL_LEVELS,
    NUM_BINS,
    adaptive_bins,
    binary_losses,
    class_losses,
    debiased_calibration_error,
    expected_calibration_error,
    gaussian_losses,
    inside_interval,
    reliability,
    reliability_points,
)
from mtl_face.tasks import AU, AU_NAMES, EXPR, EXPRESSION_NAMES, VA, VA_NAMES

LOGITS_REASON = "there are decisions only: this needs logits, as in a file of predictions"
STD_REASON = "the predictions have no valence_std and arousal_std"


class ValenceArousal:
    """Concordance, errors and predicted standard deviations of valence and arousal.

    Predictions are clipped to [-1, 1], except as the mean of a normal prediction.
    """

    def __init__(self, joined: Joined, videos: Videos) -> None:
        """Raises ValueError where a label is outside [-1, 1], such as the -5 of files."""
        self._videos, self._rows = videos, joined.counted[VA]
        table = joined.predictions
        self._truth_M2 = joined.truth.va[self._rows].astype(np.float64)
        self._mean_M2 = table.va[self._rows]
        self._clipped_M2 = np.clip(self._mean_M2, -1.0, 1.0)
        self._std_M2: Any = None if table.va_std is None else table.va_std[self._rows]
        self._rated_M = ~np.isnan(joined.truth.raters[self._rows]).any(axis=1)
        self._rater_std_M2 = joined.truth.raters[self._rows, :2].astype(np.float64)
        self._rater_variance_M2 = joined.truth.rater_variance()[self._rows].astype(np.float64)
        self.num_valid = len(self._truth_M2)
        self.without_uncertainty = STD_REASON if self._std_M2 is None else None
        if not (np.abs(self._truth_M2) <= 1.0).all():
            raise ValueError("there are labels of valence or arousal outside [-1, 1]")

    def _sums(self) -> Floats:
        """Of each video and each of the two: moments, squared errors, equal signs; [V, 2, 8]."""
        columns: list[NDArray[np.generic]] = []
        for x_M, y_M in zip(self._truth_M2.T, self._clipped_M2.T, strict=True):
            columns += [*moments(x_M, y_M), (x_M - y_M) ** 2, np.sign(x_M) == np.sign(y_M)]
        return self._videos.sums(self._rows, columns).reshape(-1, 2, 8)

    def scores(self) -> Iterator[Statistic]:
        """CCC, root mean square error and sign agreement (SAGR: Nicolaou et al. 2011)."""

        def scores(sums: Floats) -> Scores:
            concordance_R2 = concordance_of_sums(sums[..., :6])
            error_R2, agreement_R2 = (ratio(sums[..., i], sums[..., 0]) for i in (6, 7))
            return {
                "va.score": concordance_R2.mean(axis=1),
                **_by_name("va", VA_NAMES, concordance_R2),
                **_by_name("va.rmse", VA_NAMES, np.sqrt(error_R2)),
                **_by_name("va.sagr", VA_NAMES, agreement_R2),
            }

        yield Statistic(self._sums(), scores)

    def uncertainty(self) -> Iterator[Statistic]:
        """Losses and coverage of normal predictions, and the risk when the surest come first."""
        if self._std_M2 is None:
            return
        columns: list[NDArray[np.generic]] = [np.ones(self.num_valid)]
        for x_M, y_M, std_M in zip(self._truth_M2.T, self._mean_M2.T, self._std_M2.T, strict=True):
            columns.append(gaussian_losses(x_M, y_M, std_M))
            columns += [inside_interval(x_M, y_M, std_M, p) for p in INTERVAL_LEVELS.values()]

        def scores(sums: Floats) -> Scores:
            mean_R24 = ratio(sums[:, 1:], sums[:, :1]).reshape(len(sums), 2, -1)
            found = _by_name("va.uncertainty.nll", VA_NAMES, mean_R24[:, :, 0])
            for i, name in enumerate(VA_NAMES):
                found |= _by_name(
                    f"va.uncertainty.coverage.{name}", INTERVAL_LEVELS, mean_R24[:, i, 1:]
                )
            return found

        yield Statistic(self._videos.sums(self._rows, columns), scores)
        yield _risk(self._videos, [self._rows], *self._confidence_and_loss(), VA)
        if self._rated_M.any():
            yield Statistic(self._rater_sums(), _rater_scores)

    def _rater_sums(self) -> Floats:
        """Of each video and each of the two, over rows of several annotators, [V, 2, 8].

        Moments of the ranks that annotators' and predicted standard deviations have among all such
        rows, in [0, 1]; negative log likelihood and square error of one annotator's rating, in the
        mean over the annotators.
        """
        rated = np.zeros(len(self._rows), np.bool_)
        rated[np.flatnonzero(self._rows)[self._rated_M]] = True
        error_M2 = (self._truth_M2 - self._mean_M2) ** 2 + self._rater_variance_M2
        columns: list[NDArray[np.generic]] = []
        for rater_K, std_K, error_K in zip(
            self._rater_std_M2[self._rated_M].T,
            self._std_M2[self._rated_M].T,
            error_M2[self._rated_M].T,
            strict=True,
        ):
            columns += moments(ranks(rater_K), ranks(std_K))
            columns += [gaussian_losses(np.sqrt(error_K), np.zeros_like(std_K), std_K), error_K]
        return self._videos.sums(rated, columns).reshape(-1, 2, 8)

    def _confidence_and_loss(self) -> tuple[Floats, Floats]:
        loss_M = ((self._clipped_M2 - self._truth_M2) ** 2).mean(axis=1)
        return -(self._std_M2**2).sum(axis=1), loss_M

    def details(self) -> dict[str, Any]:
        """The parts of the CCC; the baseline is 0, since a constant has no concordance."""
        parts = concordance_parts(self._sums().sum(axis=0)[:, :6])
        return {
            "constant_baseline": 0.0 if self.num_valid else None,
            "num_valid": self.num_valid,
            "parts": {
                name: None
                if np.isnan(parts["correlation"][i])
                else {key: float(value[i]) for key, value in parts.items()}
                for i, name in enumerate(VA_NAMES)
            },
        }

    def uncertainty_details(self) -> dict[str, Any]:
        """Mean standard deviations, and the curve of risk, which is the mean square error."""
        raters = {}
        if self._rated_M.any():
            mean_2 = self._rater_std_M2[self._rated_M].mean(axis=0)
            raters["raters"] = {
                "num_valid": int(self._rated_M.sum()),
                "mean_std": dict(zip(VA_NAMES, mean_2.tolist(), strict=True)),
            }
        return {
            "mean_std": dict(zip(VA_NAMES, self._std_M2.mean(axis=0).tolist(), strict=True)),
            "risk_coverage": risk_coverage(*self._confidence_and_loss()),
            **raters,
        }


class ActionUnits:
    """F1 and probabilities of the action units, each on the rows where its label counts."""

    def __init__(self, joined: Joined, videos: Videos) -> None:
        """Raises ValueError where a label that counts is neither 0 nor 1."""
        self._videos, self._mask_NA = videos, joined.counted[AU]
        truth_NA = np.where(self._mask_NA, joined.truth.au, 0.0)
        self._truth_NA = as_classes(truth_NA, 2).astype(np.float64)
        self._present_NA = joined.predictions.au == 1
        self._logits_NA: Any = joined.predictions.au_logits
        self.num_valid = int(self._mask_NA.any(axis=1).sum())
        self.without_uncertainty = LOGITS_REASON if self._logits_NA is None else None

    def _confusion(self) -> Floats:
        """Of each video and action unit, row = truth: float64 [V, A, 2, 2]."""
        cell_NA = (2 * self._truth_NA + self._present_NA).astype(np.int64)
        counts = [
            self._videos.histograms(rows, cell_NA[rows, i], 4, [np.ones(rows.sum())])
            for i, rows in enumerate(self._mask_NA.T)
        ]
        return np.stack(counts, axis=1).reshape(-1, len(AU_NAMES), 2, 2)

    def scores(self) -> Iterator[Statistic]:
        """F1 with its parts, and average precisions."""
        yield Statistic(self._confusion(), _au_scores)
        if self._logits_NA is not None:
            for i, (name, rows) in enumerate(zip(AU_NAMES, self._mask_NA.T, strict=True)):
                logit_M, truth_M = self._logits_NA[rows, i], self._truth_NA[rows, i]
                yield _ranking(self._videos, rows, logit_M, truth_M, f"au.pr_auc.{name}")

    def uncertainty(self) -> Iterator[Statistic]:
        """Losses and calibration of the probabilities; risk of all decisions pooled."""
        if self._logits_NA is None:
            return
        yield Statistic(self._losses(), _au_losses)
        yield _calibration(self._bins(), AU)
        yield _risk(self._videos, list(self._mask_NA.T), *self._confidence_and_loss(), AU)

    def _losses(self) -> Floats:
        """Number of labels, negative log likelihood, Brier score: sums [V, A, 3]."""
        losses = binary_losses(self._truth_NA, self._logits_NA)
        part_NA3 = np.stack([np.ones_like(self._truth_NA), *losses], axis=-1)
        part_NA3 *= self._mask_NA[..., None]
        everything = np.ones(len(part_NA3), np.bool_)
        columns = list(part_NA3.reshape(-1, 3 * len(AU_NAMES)).T)
        return self._videos.sums(everything, columns).reshape(-1, len(AU_NAMES), 3)

    def _bins(self) -> Floats:
        """Sums of `reliability` over bins of each action unit by itself, [V, A, 3, B]."""
        histograms = []
        for i, rows in enumerate(self._mask_NA.T):
            probability_M = expit(self._logits_NA[rows, i])
            parts = (np.ones_like(probability_M), probability_M, self._truth_NA[rows, i])
            bins_M = adaptive_bins(probability_M)
            histograms.append(self._videos.histograms(rows, bins_M, NUM_BINS, parts))
        return np.stack(histograms, axis=1)

    def _confidence_and_loss(self) -> tuple[Floats, NDArray[np.bool_]]:
        """Of all decisions that count, action unit by action unit."""
        mask_AN, present_AN = self._mask_NA.T, self._present_NA.T
        probability_AN = expit(self._logits_NA.T)
        confidence_AN = np.where(present_AN, probability_AN, 1.0 - probability_AN)
        return confidence_AN[mask_AN], (present_AN != (self._truth_NA.T == 1))[mask_AN]

    def details(self) -> dict[str, Any]:
        """Counts, and the baseline: calling every action unit present, the best constant."""
        confusion = self._confusion().sum(axis=0).astype(np.int64)
        num_positive, num_labels = confusion[:, 1].sum(axis=1), confusion.sum(axis=(1, 2))
        baseline = np.where(num_labels > 0, f1_per_class(always(confusion, 1))[:, 1], np.nan)
        cells = ("true_negative", "false_positive", "false_negative", "true_positive")
        return {
            "prevalence": _named(AU_NAMES, ratio(num_positive, num_labels)),
            "num_positive": dict(zip(AU_NAMES, num_positive.tolist(), strict=True)),
            "num_valid_per_au": dict(zip(AU_NAMES, num_labels.tolist(), strict=True)),
            "constant_baseline": or_none(mean_of_defined(baseline)),
            "constant_baseline_per_au": _named(AU_NAMES, baseline),
            "num_valid": self.num_valid,
            "confusion": {
                name: dict(zip(cells, counts, strict=True))
                for name, counts in zip(AU_NAMES, confusion.reshape(-1, 4).tolist(), strict=True)
            },
        }

    def uncertainty_details(self) -> dict[str, Any]:
        """Calibration errors of each action unit; reliability and risk of all pooled."""
        bins = self._bins().sum(axis=0)
        errors = {
            "ece": expected_calibration_error(bins),
            "ece_debiased": debiased_calibration_error(bins),
        }
        labelled_A = np.asarray(self._mask_NA.any(axis=0))
        return {
            "ece": float(mean_of_defined(errors["ece"])),
            "per_au": {
                name: {key: float(value[i]) for key, value in errors.items()}
                if labelled_A[i]
                else None
                for i, name in enumerate(AU_NAMES)
            },
            "reliability": reliability_points(
                reliability(expit(self._logits_NA[self._mask_NA]), self._truth_NA[self._mask_NA])
            ),
            "risk_coverage": risk_coverage(*self._confidence_and_loss()),
        }


class Expressions:
    """F1 and probabilities of the expressions."""

    def __init__(self, joined: Joined, videos: Videos) -> None:
        """Raises ValueError where a label that counts is no class."""
        self._videos, self._rows = videos, joined.counted[EXPR]
        self._truth_M = as_classes(joined.truth.expression[self._rows], len(EXPRESSION_NAMES))
        self._decision_M = joined.predictions.expression[self._rows]
        logits_NE = joined.predictions.expression_logits
        self._logits_ME: Any = None if logits_NE is None else logits_NE[self._rows]
        self.num_valid = len(self._truth_M)
        self.without_uncertainty = LOGITS_REASON if logits_NE is None else None

    def _confusion(self) -> Floats:
        """Of each video, row = truth: float64 [V, E, E]."""
        size = len(EXPRESSION_NAMES)
        cell_M = self._truth_M * size + self._decision_M
        counts = self._videos.histograms(self._rows, cell_M, size**2, [np.ones(self.num_valid)])
        return counts.reshape(-1, size, size)

    def scores(self) -> Iterator[Statistic]:
        """F1 with its parts, accuracy, and average precisions of each against the rest."""
        yield Statistic(self._confusion(), _expression_scores)
        if self._logits_ME is not None:
            log_probability_ME = log_softmax(self._logits_ME, axis=1)
            for i, name in enumerate(EXPRESSION_NAMES):
                yield _ranking(
                    self._videos,
                    self._rows,
                    log_probability_ME[:, i],
                    self._truth_M == i,
                    f"expr.pr_auc.{name}",
                )

    def uncertainty(self) -> Iterator[Statistic]:
        """Losses of the probabilities; calibration and risk by that of the class decided for."""
        if self._logits_ME is None:
            return
        losses = class_losses(self._truth_M, self._logits_ME)
        yield Statistic(
            self._videos.sums(self._rows, [np.ones(self.num_valid), *losses]),
            lambda sums: _by_name(
                "expr.uncertainty", ("nll", "brier"), ratio(sums[:, 1:], sums[:, :1])
            ),
        )
        yield _calibration(self._bins(), EXPR)
        yield _risk(self._videos, [self._rows], *self._confidence_and_loss(), EXPR)

    def _confidence_and_loss(self) -> tuple[Floats, NDArray[np.bool_]]:
        """Probability of the class decided for, and whether it is another than the true one."""
        log_ME = log_softmax(self._logits_ME, axis=1)
        decided_M = np.take_along_axis(log_ME, self._decision_M[:, None], axis=1)[:, 0]
        return np.exp(decided_M), self._decision_M != self._truth_M

    def _bins(self) -> Floats:
        """Sums of `reliability`, [V, 1, 3, B]."""
        confidence_M, wrong_M = self._confidence_and_loss()
        parts = (np.ones(self.num_valid), confidence_M, ~wrong_M)
        bins_M = adaptive_bins(confidence_M)
        return self._videos.histograms(self._rows, bins_M, NUM_BINS, parts)[:, None]

    def details(self) -> dict[str, Any]:
        """Counts, and the baseline: the most frequent class, whose F1 grows with its share."""
        confusion = self._confusion().sum(axis=0).astype(np.int64)
        support = confusion.sum(axis=1)
        commonest = int(np.argmax(support))
        baseline = float(f1_per_class(always(confusion, commonest)).mean())
        return {
            "support": dict(zip(EXPRESSION_NAMES, support.tolist(), strict=True)),
            "confusion_matrix": confusion.tolist(),
            "constant_baseline": baseline if self.num_valid else None,
            "constant_class": EXPRESSION_NAMES[commonest] if self.num_valid else None,
            "num_valid": self.num_valid,
        }

    def uncertainty_details(self) -> dict[str, Any]:
        """Calibration error, reliability and risk."""
        (bins,) = self._bins().sum(axis=0)
        return {
            "ece": float(expected_calibration_error(bins)),
            "reliability": reliability_points(bins),
            "risk_coverage": risk_coverage(*self._confidence_and_loss()),
        }


TaskMetrics = ValenceArousal | ActionUnits | Expressions

METRICS: dict[str, type[TaskMetrics]] = {VA: ValenceArousal, AU: ActionUnits, EXPR: Expressions}


def _rater_scores(sums: Floats) -> Scores:
    """Of [R, 2, 8]: Spearman's rank correlation, and how one annotator's rating is predicted."""
    loss_R2, error_R2 = (ratio(sums[..., i], sums[..., 0]) for i in (6, 7))
    found: Scores = {}
    for key, values_R2 in (
        ("rank_correlation", concordance_parts(sums[..., :6])["correlation"]),
        ("nll", loss_R2),
        ("rmse", np.sqrt(error_R2)),
    ):
        found |= _by_name(f"va.uncertainty.raters.{key}", VA_NAMES, values_R2)
    return found


def _au_scores(confusion: Floats) -> Scores:
    """Of [R, A, 2, 2]; the mean is over the action units that have a label."""
    labelled_RA = confusion.sum(axis=(2, 3)) > 0
    f1_RA = np.where(labelled_RA, f1_per_class(confusion)[..., 1], np.nan)
    return {
        "au.score": mean_of_defined(f1_RA),
        **_by_name("au.per_au", AU_NAMES, f1_RA),
        **_by_name("au.precision", AU_NAMES, precision_per_class(confusion)[..., 1]),
        **_by_name("au.recall", AU_NAMES, recall_per_class(confusion)[..., 1]),
    }


def _au_losses(sums: Floats) -> Scores:
    loss_RA2 = ratio(sums[..., 1:], sums[..., :1])
    scores: Scores = {}
    for j, measure in enumerate(("nll", "brier")):
        scores[f"au.uncertainty.{measure}"] = mean_of_defined(loss_RA2[..., j])
        for i, name in enumerate(AU_NAMES):
            scores[f"au.uncertainty.per_au.{name}.{measure}"] = loss_RA2[:, i, j]
    return scores


def _expression_scores(confusion: Floats) -> Scores:
    """Of [R, E, E]; a class in neither truth nor decisions counts 0 in the mean."""
    num_rows = confusion.sum(axis=(1, 2))
    f1_RE = np.where(num_rows[:, None] > 0, f1_per_class(confusion), np.nan)
    return {
        "expr.score": f1_RE.mean(axis=1),
        "expr.accuracy": ratio(np.trace(confusion, axis1=1, axis2=2), num_rows),
        **_by_name("expr.per_class", EXPRESSION_NAMES, f1_RE),
        **_by_name("expr.precision", EXPRESSION_NAMES, precision_per_class(confusion)),
        **_by_name("expr.recall", EXPRESSION_NAMES, recall_per_class(confusion)),
    }


def _ranking(
    videos: Videos,
    rows: NDArray[np.bool_],
    score_M: Floats,
    truth_M: NDArray[np.generic],
    path: str,
) -> Statistic:
    groups_M, num_groups, coarse = videos.groups(score_M)
    sums = videos.histograms(rows, groups_M, num_groups, [truth_M, np.ones(len(score_M))])
    return Statistic(sums, lambda s: {path: average_precision(s[:, 0], s[:, 1], spread=coarse)})


def _risk(
    videos: Videos,
    parts: Sequence[NDArray[np.bool_]],
    confidence_M: Floats,
    loss_M: NDArray[np.generic],
    task: str,
) -> Statistic:
    """Risk of the decisions of one or more parts, each of some of the N rows, pooled.

    The M confidences and losses are those of the rows of each part, one part after the other.
    """
    groups_M, num_groups, _ = videos.groups(confidence_M)
    ends = np.cumsum([rows.sum() for rows in parts])
    sums = np.zeros((videos.count, 2, num_groups))
    for rows, groups, losses in zip(
        parts, np.split(groups_M, ends[:-1]), np.split(loss_M, ends[:-1]), strict=True
    ):
        sums += videos.histograms(rows, groups, num_groups, [np.ones(len(losses)), losses])
    path = f"{task}.uncertainty.risk_coverage.aurc"
    return Statistic(sums, lambda s: {path: area_under_risk(s[:, 0], s[:, 1])})


def _calibration(bins: Floats, task: str) -> Statistic:
    """Debiased calibration error, the mean over K kinds of decisions; sums [V, K, 3, B]."""
    path = f"{task}.uncertainty.ece_debiased"
    return Statistic(bins, lambda s: {path: mean_of_defined(debiased_calibration_error(s))})


def _by_name(path: str, names: Sequence[str] | dict[str, float], values_RC: Floats) -> Scores:
    return {f"{path}.{name}": values_RC[:, i] for i, name in enumerate(names)}


def _named(names: Sequence[str], values: Floats) -> dict[str, float | None]:
    return {name: or_none(value) for name, value in zip(names, values, strict=True)}
