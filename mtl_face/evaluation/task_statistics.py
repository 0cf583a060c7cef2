"""The scores of each task as functions of sums over videos, see `sufficient`.

The plain ECE is not among them: its bias is larger than its spread, so that an interval of
resamples would not even hold the value itself. The debiased one stands for it.

Dimension letters: N rows, V videos, R sets of videos, A action units (12), E expressions (8),
G groups, B bins.
"""

from collections.abc import Iterator

import numpy as np

from mtl_face.evaluation import uncertainty_scores as losses
from mtl_face.evaluation.calibration_error import (
    NUM_BINS,
    Reliability,
    adaptive_bins,
    debiased_calibration_error,
)
from mtl_face.evaluation.joining import Joined
from mtl_face.evaluation.ranking import average_precision_of_groups
from mtl_face.evaluation.risk_coverage import area
from mtl_face.evaluation.sufficient import Floats, Scores, Statistic, Videos
from mtl_face.tasks import AU_NAMES, EXPRESSION_NAMES, VA_NAMES

_NO_SPREAD = 1e-13
"""Variances below this are those of a constant, but for the rounding of their sums."""


def statistics(joined: Joined) -> Iterator[Statistic]:
    """The statistics of all scores that the answers allow, made one after the other.

    Args:
        joined: rows that have labels and answers.

    Yields:
        One statistic at a time, since some are large.
    """
    videos = Videos(joined)
    if joined.va_rows.any():
        yield from _va(joined, videos)
    if joined.au_labels.any():
        yield from _au(joined, videos)
    if joined.expr_rows.any():
        yield from _expression(joined, videos)


def _va(joined: Joined, videos: Videos) -> Iterator[Statistic]:
    rows = joined.va_rows
    truth, answers = joined.truth, joined.predictions
    columns: list[np.ndarray] = []
    extra: list[np.ndarray] = []
    squared_error = np.zeros(int(rows.sum()))
    variance = np.zeros_like(squared_error)
    for name in VA_NAMES:
        label = np.asarray(getattr(truth, name), np.float64)[rows]
        mean = getattr(answers, name)[rows]
        clipped = np.clip(mean, -1.0, 1.0)
        squared_error += (clipped - label) ** 2 / 2.0
        # about the mean label: the moments' differences then lose no digits
        x, y = label - label.mean(), clipped - label.mean()
        columns += [np.ones_like(x), x, y, x * x, y * y, x * y, (x - y) ** 2]
        columns.append(np.sign(label) == np.sign(clipped))
        std = getattr(answers, f"{name}_std")
        if std is not None:
            variance += std[rows] ** 2
            extra.append(losses.gaussian_losses(label, mean, std[rows]))
            extra += [
                losses.inside_interval(label, mean, std[rows], level)
                for level in losses.INTERVAL_LEVELS.values()
            ]
    yield Statistic(videos.sums(rows, columns).reshape(videos.count, 2, 8), _va_scores)
    if extra:
        sums = videos.sums(rows, [np.ones_like(squared_error), *extra])
        yield Statistic(sums, _va_uncertainty)
        yield _risk(videos, rows, -variance, squared_error, "va")


def _va_scores(sums: Floats) -> Scores:
    num = np.maximum(sums[:, :, 0], 1.0)
    x, y, xx, yy, xy, error, agree = (sums[:, :, i] / num for i in range(1, 8))
    var_x, var_y = xx - x * x, yy - y * y
    spread = (var_x > _NO_SPREAD) & (var_y > _NO_SPREAD)
    denominator = np.where(spread, var_x + var_y + (x - y) ** 2, 1.0)
    concordance = np.where(spread, 2.0 * (xy - x * y) / denominator, 0.0)
    concordance[sums[:, :, 0] == 0] = np.nan
    scores = {"va.score": concordance.mean(axis=1)}
    for i, name in enumerate(VA_NAMES):
        scores[f"va.{name}"] = concordance[:, i]
        scores[f"va.rmse.{name}"] = np.sqrt(error[:, i])
        scores[f"va.sagr.{name}"] = agree[:, i]
    return scores


def _va_uncertainty(sums: Floats) -> Scores:
    means = sums[:, 1:] / np.maximum(sums[:, :1], 1.0)
    scores: Scores = {}
    for i, name in enumerate(VA_NAMES):
        nll, *inside = np.split(means[:, i * 4 : i * 4 + 4].T, 4)
        scores[f"va.uncertainty.nll.{name}"] = nll[0]
        for percent, share in zip(losses.INTERVAL_LEVELS, inside, strict=True):
            scores[f"va.uncertainty.coverage.{name}.{percent}"] = share[0]
    return scores


def _au(joined: Joined, videos: Videos) -> Iterator[Statistic]:
    mask = joined.au_labels
    truth = np.where(mask, joined.truth.au, 0.0).astype(np.float64)
    present = joined.predictions.au == 1
    everything = np.ones(len(mask), np.bool_)
    counts = []
    for i in range(len(AU_NAMES)):
        positive, decided = truth[:, i] == 1, present[:, i]
        cells = (positive & decided, ~positive & decided, positive & ~decided)
        counts += [cell & mask[:, i] for cell in cells]
        counts.append(~positive & ~decided & mask[:, i])
    shape = (videos.count, len(AU_NAMES), 4)
    yield Statistic(videos.sums(everything, counts).reshape(shape), _au_scores)
    logits = joined.predictions.au_logits
    if logits is None:
        return
    yield from _au_probabilities(videos, mask, truth, logits)
    for i, name in enumerate(AU_NAMES):
        rows = mask[:, i]
        yield _ranking(videos, rows, logits[rows, i], truth[rows, i], f"au.pr_auc.{name}")
    probability = losses.sigmoid(logits)
    confidence = np.where(present, probability, 1.0 - probability)
    yield _risk_of_decisions(videos, mask, confidence, present != (truth == 1))


def _au_scores(sums: Floats) -> Scores:
    hit, false, missed, _ = (sums[:, :, i] for i in range(4))
    labelled = sums.sum(axis=2) > 0
    values = {
        "per_au": np.where(
            labelled, 2.0 * hit / np.maximum(2.0 * hit + false + missed, 1.0), np.nan
        ),
        "precision": _ratio(hit, hit + false),
        "recall": _ratio(hit, hit + missed),
    }
    scores = {"au.score": _mean(values["per_au"])}
    for measure, value in values.items():
        scores |= {f"au.{measure}.{name}": value[:, i] for i, name in enumerate(AU_NAMES)}
    return scores


def _au_probabilities(
    videos: Videos, mask: np.ndarray, truth: Floats, logits: Floats
) -> Iterator[Statistic]:
    everything = np.ones(len(mask), np.bool_)
    nll, brier = losses.binary_losses(truth, logits)
    columns = [part[:, i] * mask[:, i] for i in range(len(AU_NAMES)) for part in (nll, brier)]
    columns += [mask[:, i] for i in range(len(AU_NAMES))]
    histograms = []
    for i in range(len(AU_NAMES)):
        rows = mask[:, i]
        probability = losses.sigmoid(logits[rows, i])
        bins = adaptive_bins(probability)
        parts = (np.ones_like(probability), probability, truth[rows, i])
        histograms.append(videos.histograms(rows, bins, NUM_BINS, parts))

    def scores_of_losses(sums: Floats) -> Scores:
        size = len(AU_NAMES)
        values = _ratio(sums[:, : 2 * size].reshape(-1, size, 2), sums[:, 2 * size :, None])
        scores = {}
        for j, measure in enumerate(("nll", "brier")):
            scores[f"au.uncertainty.{measure}"] = _mean(values[:, :, j])
            for i, name in enumerate(AU_NAMES):
                scores[f"au.uncertainty.per_au.{name}.{measure}"] = values[:, i, j]
        return scores

    def scores_of_bins(sums: Floats) -> Scores:
        bins = Reliability(*(sums[:, :, i] for i in range(3)))
        return {"au.uncertainty.ece_debiased": _mean(debiased_calibration_error(bins))}

    yield Statistic(videos.sums(everything, columns), scores_of_losses)
    yield Statistic(np.stack(histograms, axis=1), scores_of_bins)


def _expression(joined: Joined, videos: Videos) -> Iterator[Statistic]:
    rows = joined.expr_rows
    truth = np.asarray(joined.truth.expression)[rows].astype(np.int64)
    decision = joined.predictions.expression[rows]
    size = len(EXPRESSION_NAMES)
    confusion = videos.histograms(rows, truth * size + decision, size * size, [np.ones(len(truth))])
    yield Statistic(confusion.reshape(videos.count, size, size), _expression_scores)
    if joined.predictions.expression_logits is None:
        return
    logits = joined.predictions.expression_logits[rows]
    nll, brier = losses.class_losses(truth, logits)
    yield Statistic(videos.sums(rows, [np.ones_like(nll), nll, brier]), _expression_losses)
    confidence = losses.decided_probability(logits, decision)
    parts = (np.ones_like(nll), confidence, decision == truth)
    bins = videos.histograms(rows, adaptive_bins(confidence), NUM_BINS, parts)
    yield Statistic(bins, _expression_calibration)
    log_probability = losses.log_softmax(logits)
    for i, name in enumerate(EXPRESSION_NAMES):
        yield _ranking(videos, rows, log_probability[:, i], truth == i, f"expr.pr_auc.{name}")
    yield _risk(videos, rows, confidence, decision != truth, "expr")


def _expression_scores(confusion: Floats) -> Scores:
    hits = np.diagonal(confusion, axis1=1, axis2=2)
    answered, support = confusion.sum(axis=1), confusion.sum(axis=2)
    f1 = 2.0 * hits / np.maximum(answered + support, 1.0)
    rows = support.sum(axis=1)
    f1[rows == 0] = np.nan
    scores = {"expr.score": f1.mean(axis=1), "expr.accuracy": _ratio(hits.sum(axis=1), rows)}
    precision, recall = _ratio(hits, answered), _ratio(hits, support)
    for i, name in enumerate(EXPRESSION_NAMES):
        scores[f"expr.per_class.{name}"] = f1[:, i]
        scores[f"expr.precision.{name}"] = precision[:, i]
        scores[f"expr.recall.{name}"] = recall[:, i]
    return scores


def _expression_losses(sums: Floats) -> Scores:
    return {
        "expr.uncertainty.nll": _ratio(sums[:, 1], sums[:, 0]),
        "expr.uncertainty.brier": _ratio(sums[:, 2], sums[:, 0]),
    }


def _expression_calibration(sums: Floats) -> Scores:
    bins = Reliability(*(sums[:, i] for i in range(3)))
    return {"expr.uncertainty.ece_debiased": debiased_calibration_error(bins)}


def _ranking(
    videos: Videos, rows: np.ndarray, score: Floats, truth: np.ndarray, path: str
) -> Statistic:
    groups, num_groups, coarse = videos.groups(score)
    sums = videos.histograms(rows, groups, num_groups, [truth, np.ones(len(score))])

    def scores(sums: Floats) -> Scores:
        return {path: average_precision_of_groups(sums[:, 0], sums[:, 1], spread=coarse)}

    return Statistic(sums, scores)


def _risk(
    videos: Videos, rows: np.ndarray, confidence: Floats, loss: np.ndarray, task: str
) -> Statistic:
    groups, num_groups, _ = videos.groups(confidence)
    sums = videos.histograms(rows, groups, num_groups, [np.ones(len(loss)), loss])
    path = f"{task}.uncertainty.risk_coverage.aurc"
    return Statistic(sums, lambda s: {path: area(s[:, 0], s[:, 1])})


def _risk_of_decisions(
    videos: Videos, mask: np.ndarray, confidence: Floats, wrong: np.ndarray
) -> Statistic:
    """All action units pooled: sums of each are added up over common groups."""
    groups = np.zeros(mask.shape, np.int64)
    groups[mask], num_groups, _ = videos.groups(confidence[mask])
    sums = np.zeros((videos.count, 2, num_groups))
    for i in range(mask.shape[1]):
        rows = mask[:, i]
        parts = (np.ones(int(rows.sum())), wrong[rows, i])
        sums += videos.histograms(rows, groups[rows, i], num_groups, parts)
    path = "au.uncertainty.risk_coverage.aurc"
    return Statistic(sums, lambda s: {path: area(s[:, 0], s[:, 1])})


def _ratio(part: Floats, whole: Floats) -> Floats:
    whole = np.broadcast_to(whole, part.shape)
    return np.divide(part, whole, out=np.full(part.shape, np.nan), where=whole > 0)


def _mean(values_RA: Floats) -> Floats:
    """Mean over the action units that there are."""
    some = np.isfinite(values_RA)
    return _ratio(np.where(some, values_RA, 0.0).sum(axis=1), some.sum(axis=1).astype(float))
