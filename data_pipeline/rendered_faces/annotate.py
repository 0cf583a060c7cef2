"""Labels of frames: the truth, from what the face shows; an annotator's noise; gaps.

Letters: F frames, A action units that move (`head.ACTION_UNITS`), U the 12 annotated ones, K
kinds of label (`va`, `au`, `expr`).
"""

from dataclasses import dataclass

import numpy as np

from data_pipeline.rendered_faces.head import intensities
from data_pipeline.rendered_faces.motion import Motion
from mtl_face.tasks import AU_NUMBERS, EXPRESSION_NAMES, TASKS

AU_VISIBLE = 0.3
"""An action unit is present from this intensity on: below it one hardly sees it at 112 pixels."""

EXPRESSION_VISIBLE = 0.45
"""An episode shows its expression from this part of its course on; before and after, Neutral."""

VALENCE_WEIGHTS = {
    12: 0.60, 6: 0.35, 14: 0.05,
    15: -0.55, 9: -0.35, 4: -0.30, 10: -0.30, 20: -0.25, 23: -0.15, 24: -0.15, 1: -0.10,
}  # fmt: skip
AROUSAL_WEIGHTS = {
    5: 0.35, 26: 0.30, 25: 0.25, 23: 0.25, 2: 0.20, 4: 0.20, 9: 0.20, 20: 0.20, 1: 0.15,
    12: 0.15, 24: 0.10, 7: 0.10, 6: 0.10, 10: 0.10,
    15: -0.35,
}  # fmt: skip
VALENCE_AT_REST = 0.0
AROUSAL_AT_REST = -0.25

VA_NOISE_STD = 0.15
"""Standard deviation of the Gaussian noise on valence and on arousal."""
VA_NOISE_YAW_STD = (0.05, 0.30)
"""With `va_noise="yaw"`: that of a face that looks ahead, and of one that is turned away."""
VA_NOISE_YAW_DEG = 15.0
"""Yaw from which on a face counts as turned away; in between the noise grows linearly."""
RATER_DELAY_FRAMES = (4, 12)
"""How late a rater of a dense video notices a change, drawn for each video, in frames."""
RATER_RESPONSE_FRAMES = 4.0
"""Time constant with which the rating then follows."""
RATER_DRIFT_FRAMES = 90.0
"""Time constant of a rater's error in a dense video."""
AU_FLIP_PROBABILITY = 0.02
"""Probability that an action unit's label is wrong."""
EXPRESSION_CONFUSION_PROBABILITY = 0.12
"""Probability that the expression is replaced by one of the seven others, each as likely."""

MASK_SHARES: dict[str, dict[tuple[bool, bool, bool], float]] = {
    "train": {
        (True, True, True): 0.3660,
        (True, True, False): 0.1700,
        (True, False, True): 0.0900,
        (False, True, True): 0.1013,
        (True, False, False): 0.1040,
        (False, True, False): 0.0887,
        (False, False, True): 0.0797,
        (False, False, False): 0.0003,
    },
    "val": {(True, True, True): 0.5745, (True, True, False): 0.4255},
    "test": {(True, True, True): 1.0},
}
"""Share of frames that carry which labels (va, au, expr), by split; the margins are those of
s-Aff-Wild2: VA 73 %, AU 72.6 %, EXPR 63.7 %, all three 36.6 % in training."""

MASK_RUN_FRAMES = 10
"""Labels come and go in runs of about this many labelled frames."""


@dataclass(frozen=True)
class Labels:
    """Labels of frames.

    Attributes:
        va_F2: float64 valence and arousal, -1 to 1.
        au_FU: int64 0 or 1.
        expr_F: int64 class 0 to 7.
        has_FK: bool, whether a frame has labels of each of `TASKS`.
    """

    va_F2: np.ndarray
    au_FU: np.ndarray
    expr_F: np.ndarray
    has_FK: np.ndarray


def valence_arousal(intensity_FA: np.ndarray) -> np.ndarray:
    """Valence and arousal `[F, 2]`: linear in the intensities, clipped to [-1, 1]."""
    weight_A2 = np.stack([intensities(VALENCE_WEIGHTS), intensities(AROUSAL_WEIGHTS)], axis=1)
    rest_12 = np.array([[VALENCE_AT_REST, AROUSAL_AT_REST]])
    return np.clip(intensity_FA @ weight_A2 + rest_12, -1, 1)


def true_labels(motion: Motion) -> Labels:
    """Labels without noise, nothing missing."""
    shows_F = motion.envelope_F >= EXPRESSION_VISIBLE
    return Labels(
        va_F2=valence_arousal(motion.intensity_FA),
        au_FU=(motion.intensity_FA[:, : len(AU_NUMBERS)] >= AU_VISIBLE).astype(np.int64),
        expr_F=np.where(shows_F, motion.episode_F, EXPRESSION_NAMES.index("Neutral")),
        has_FK=np.ones((len(shows_F), len(TASKS)), bool),
    )


def va_noise_std(motion: Motion, va_noise: str) -> np.ndarray:
    """Standard deviation of the noise on each frame's valence and arousal, float64 `[F]`.

    `va_noise` is one of `schema.VA_NOISES`.
    """
    if va_noise == "constant":
        return np.full(len(motion.frame_F), VA_NOISE_STD)
    ahead, turned = VA_NOISE_YAW_STD
    share_F = np.minimum(np.abs(motion.poses["yaw"]) / VA_NOISE_YAW_DEG, 1.0)
    return ahead + (turned - ahead) * share_F


def rated(
    va_F2: np.ndarray, frame_F: np.ndarray, va_std_F: np.ndarray, rng: np.random.Generator
) -> np.ndarray:
    """Valence and arousal as a rater traces them while a video runs, `[F, 2]`, not clipped.

    With y(t) the truth at frame t, d the rater's delay, a = exp(-1 / RATER_RESPONSE_FRAMES),
    b = exp(-1 / RATER_DRIFT_FRAMES) and e(t) standard normal, the rating is r(t) + s(t) u(t):

        r(t) = a r(t - 1) + (1 - a) y(t - d)              it lags
        u(t) = b u(t - 1) + sqrt(1 - b^2) e(t)            it drifts

    s(t) is `va_std_F`, the standard deviation of the drift; between labelled frames y is linear.
    """
    delay = int(rng.integers(RATER_DELAY_FRAMES[0], RATER_DELAY_FRAMES[1] + 1))
    time_T = np.arange(frame_F[0], frame_F[-1] + 1)
    keep, remember = np.exp(-1 / RATER_RESPONSE_FRAMES), np.exp(-1 / RATER_DRIFT_FRAMES)
    rating_F2 = np.empty_like(va_F2)
    for column, va_F in enumerate(va_F2.T):
        seen_T = np.interp(time_T - delay, frame_F, va_F)
        draw_T = rng.standard_normal(len(time_T))
        rating, drift = float(va_F[0]), float(draw_T[0])
        rating_T, drift_T = np.empty(len(time_T)), np.empty(len(time_T))
        for place in range(len(time_T)):
            rating = keep * rating + (1 - keep) * seen_T[place]
            if place:
                drift = remember * drift + np.sqrt(1 - remember**2) * draw_T[place]
            rating_T[place], drift_T[place] = rating, drift
        at_F = frame_F - frame_F[0]
        rating_F2[:, column] = rating_T[at_F] + va_std_F * drift_T[at_F]
    return rating_F2


def with_noise(labels: Labels, rng: np.random.Generator, va_std_F: np.ndarray) -> Labels:
    """Labels as an imperfect annotator gives them; each frame and label errs on its own.

    `va_std_F` is the standard deviation of the noise on valence and arousal.
    """
    count = len(labels.expr_F)
    flip_FU = rng.random(labels.au_FU.shape) < AU_FLIP_PROBABILITY
    confused_F = rng.random(count) < EXPRESSION_CONFUSION_PROBABILITY
    shift_F = rng.integers(1, len(EXPRESSION_NAMES), count)
    return Labels(
        va_F2=np.clip(labels.va_F2 + rng.normal(0, va_std_F[:, None], labels.va_F2.shape), -1, 1),
        au_FU=np.where(flip_FU, 1 - labels.au_FU, labels.au_FU),
        expr_F=np.where(
            confused_F, (labels.expr_F + shift_F) % len(EXPRESSION_NAMES), labels.expr_F
        ),
        has_FK=labels.has_FK,
    )


def sample_masks(counts: list[int], split: str, rng: np.random.Generator) -> list[np.ndarray]:
    """Draws which labels the frames of each video of a split carry.

    Runs are dealt so that the shares over the split come as close to `MASK_SHARES` as whole
    frames allow. `counts` are the numbers of frames of the videos.

    Returns:
        For each video, bool `[F, 3]` in the order of `TASKS`.
    """
    shares = MASK_SHARES[split]
    total = sum(counts)
    frames_left = {kind: share * total for kind, share in shares.items()}
    out = []
    for count in counts:
        has_FK = np.ones((count, len(TASKS)), bool)
        begin = 0
        while begin < count:
            run = int(rng.integers(MASK_RUN_FRAMES // 2, MASK_RUN_FRAMES * 3 // 2 + 1))
            # Kinds that are due more often are drawn more often; a rare kind gets a short run.
            due = np.maximum(np.array(list(frames_left.values())), 0)
            kind = list(frames_left)[int(rng.choice(len(due), p=due / due.sum()))]
            run = max(1, min(run, count - begin, round(frames_left[kind])))
            has_FK[begin : begin + run] = kind
            frames_left[kind] -= run
            begin += run
        out.append(has_FK)
    return out
