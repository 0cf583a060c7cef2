"""What a face shows in a video: the action units of expressions, their course, pose and blinks.

The six emotions follow the prototypes of the Facial Action Coding System; `Other` is a set of
mixtures that match none of them. Weights are intensities relative to the strength of an episode.
Time is counted in frames of a 30 Hz video. Letters: F labelled frames, A action units.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from data_pipeline.rendered_faces.camera import Pose
from data_pipeline.rendered_faces.head import ACTION_UNITS
from mtl_face.tasks import EXPRESSION_NAMES

Mixture = dict[int, float]
"""Intensity, 0 to 1, by FACS number."""


class Card(NamedTuple):
    """What an episode shows: expression class 0 to 7, and index in `PROTOTYPES` of that class."""

    expression: int
    alternative: int


EXCLUSIVE_PAIRS = ((12, 15), (23, 25), (24, 25), (23, 26), (24, 26), (23, 24), (10, 23))
"""Pairs that exclude or hide each other; no face shows both."""

PROTOTYPES: dict[str, tuple[Mixture, ...]] = {
    "Neutral": ({},),
    # Lips are either tightened or pressed, never both.
    "Anger": (
        {4: 1.0, 5: 0.6, 7: 0.9, 23: 1.0},
        {4: 1.0, 5: 0.6, 7: 0.9, 24: 1.0},
        {4: 1.0, 7: 0.9, 23: 1.0},
    ),
    "Disgust": (
        {9: 1.0, 15: 0.65, 10: 0.9, 4: 0.6},
        {9: 1.0, 10: 1.0, 4: 0.6, 7: 0.8, 25: 0.6},
    ),
    "Fear": ({1: 1.0, 2: 0.9, 4: 0.7, 5: 1.0, 20: 1.0, 26: 0.65, 25: 0.7},),
    "Happiness": ({6: 1.0, 12: 1.0, 25: 0.8}, {6: 1.0, 7: 0.8, 12: 1.0, 25: 0.8}),
    "Sadness": ({1: 1.0, 4: 0.7, 15: 1.0}, {1: 1.0, 4: 0.7, 15: 1.0, 24: 0.9}),
    "Surprise": ({1: 1.0, 2: 1.0, 5: 1.0, 26: 1.0, 25: 0.7},),
    "Other": (
        {14: 1.0, 24: 0.9, 7: 0.8, 6: 0.8},
        {6: 0.9, 7: 0.9, 24: 0.9},
        {6: 0.9, 7: 0.9, 10: 0.9, 25: 0.8},
        {1: 0.9, 2: 0.9, 24: 0.9},
        {1: 0.8, 2: 1.0, 23: 1.0},
        {2: 0.9, 12: 0.9, 10: 0.8},
        {12: 0.9, 24: 0.9, 6: 0.8},
        {20: 1.0, 7: 0.8, 10: 0.9, 25: 0.9},
        {10: 0.9, 2: 0.9, 15: 0.9},
        {23: 1.0, 6: 0.9, 7: 0.7},
        {23: 1.0, 12: 0.8, 2: 0.8},
        {2: 0.9, 15: 0.9, 24: 0.8},
    ),
}
"""Alternatives for each expression."""

_CORE: dict[str, tuple[int, ...]] = {
    "Anger": (4, 23, 24),
    "Disgust": (9, 10),
    "Fear": (1, 5, 20),
    "Happiness": (6, 12),
    "Sadness": (1, 15),
    "Surprise": (1, 2, 26),
}
"""Units that no variation of an expression lacks."""

OMISSION_PROBABILITY = 0.1
ADDITION_PROBABILITY = 0.25
_ADDABLE = (25, 26, 7, 25, 26)
"""Units added at random: speech parts the lips whatever the expression, light narrows the lids."""

STRENGTH_RANGE = (0.75, 1.0)
"""Strength of an episode."""

INDIVIDUAL_STRENGTH_RANGE = (0.4, 1.0)
INDIVIDUAL_OMISSION_PROBABILITY = 0.3
MOST_ADDED = 2
ADDED_RANGE = (0.2, 0.9)
"""The same where people move in ways of their own: up to `MOST_ADDED` further units, of any kind,
with intensities in `ADDED_RANGE`."""


def conflicts(number: int, mixture: Mixture) -> bool:
    """Whether an action unit excludes one of a mixture, by `EXCLUSIVE_PAIRS`."""
    return any(
        number in pair and (pair[0] in mixture or pair[1] in mixture) and number not in mixture
        for pair in EXCLUSIVE_PAIRS
    )


def sample_mixture(card: Card, rng: np.random.Generator, *, individual: bool = False) -> Mixture:
    """Draws the peak intensities of one episode; no pair of `EXCLUSIVE_PAIRS` occurs together.

    With `individual` episodes are fainter, lack more of the prototype and have more beside it.
    """
    omission = INDIVIDUAL_OMISSION_PROBABILITY if individual else OMISSION_PROBABILITY
    name = EXPRESSION_NAMES[card.expression]
    chosen = PROTOTYPES[name][card.alternative]
    strength = rng.uniform(*(INDIVIDUAL_STRENGTH_RANGE if individual else STRENGTH_RANGE))
    mixture: Mixture = {}
    for number, weight in chosen.items():
        core = name == "Other" or number in _CORE.get(name, ())
        if not core and rng.random() < omission:
            continue
        mixture[number] = float(np.clip(weight * strength * rng.uniform(0.85, 1.15), 0.0, 1.0))
    if rng.random() < ADDITION_PROBABILITY:
        number = int(rng.choice(_ADDABLE))
        if number not in mixture and not conflicts(number, mixture):
            mixture[number] = float(rng.uniform(0.45, 0.8))
    if individual:
        count = rng.integers(0, MOST_ADDED + 1)
        for number in rng.choice(ACTION_UNITS[:-1], count, replace=False).tolist():  # no blinks
            if number not in mixture and not conflicts(number, mixture):
                mixture[number] = float(rng.uniform(*ADDED_RANGE))
    return mixture


GAP_MEDIAN = 4.0
GAP_MEAN = 8.0
_GAP_SIGMA = float(np.sqrt(2 * np.log(GAP_MEAN / GAP_MEDIAN)))

LOST_EVERY_FRAMES = 250
LOST_FRAMES = (10, 60)
"""Where every frame or every second one is labelled: after about how many frames the face is lost,
and for how long."""

EPISODE_FRAMES = (45, 110)
"""Shortest and longest time from onset to the end of the offset."""

ONSET_FRAMES = (6, 14)
OFFSET_FRAMES = (8, 18)
PAUSE_FRAMES = (0, 14)
MEAN_EPISODE_FRAMES = (sum(EPISODE_FRAMES) + sum(PAUSE_FRAMES)) / 2

YAW_LIMIT_DEG, PITCH_LIMIT_DEG, ROLL_LIMIT_DEG = 20.0, 12.0, 8.0


@dataclass(frozen=True)
class Motion:
    """What happens at each labelled frame of a video.

    Attributes:
        frame_F: int64 frame numbers, from 1, rising.
        intensity_FA: float64 intensities of `ACTION_UNITS`, 0 to 1.
        episode_F: int64 expression class of the episode under way.
        envelope_F: float64 how far that episode has unfolded, 0 to 1.
        poses: the angles of `Pose`, float64 degrees `[F]` each.
    """

    frame_F: np.ndarray
    intensity_FA: np.ndarray
    episode_F: np.ndarray
    envelope_F: np.ndarray
    poses: dict[str, np.ndarray]

    def pose(self, row: int) -> Pose:
        """Where head and eyes point at one of the labelled frames."""
        return Pose(**{name: angle_F[row] for name, angle_F in self.poses.items()})


def sample_frame_numbers(count: int, rng: np.random.Generator) -> np.ndarray:
    """Draws the numbers of the frames in which a face was found and labelled.

    Gaps are log-normal with median 4 and mean 8, so that most neighbours are close and a few lie
    many frames apart, as where a detector loses the face. int64 `[count]`, rising, from 1 on.
    """
    gap_F = np.maximum(1, np.rint(rng.lognormal(np.log(GAP_MEDIAN), _GAP_SIGMA, count)))
    return np.cumsum(np.minimum(gap_F, 400)).astype(np.int64)


def sample_dense_frame_numbers(count: int, step: int, rng: np.random.Generator) -> np.ndarray:
    """Draws frame numbers `step` apart, but for a few stretches in which the face is lost.

    int64 `[count]`, rising, from 1 on.
    """
    lost_F = rng.random(count) < step / LOST_EVERY_FRAMES
    gap_F = step + lost_F * rng.integers(LOST_FRAMES[0], LOST_FRAMES[1] + 1, count)
    return 1 + np.cumsum(gap_F) - gap_F[0]


def mean_frame_gap(step: int | None) -> float:
    """Expected distance of neighbouring labelled frames; None: that of `sample_frame_numbers`."""
    if step is None:
        return GAP_MEAN
    return step * (1 + sum(LOST_FRAMES) / 2 / LOST_EVERY_FRAMES)


def _smooth_step(part: np.ndarray) -> np.ndarray:
    part = np.clip(part, 0, 1)
    return part * part * (3 - 2 * part)


def envelope(
    time_F: np.ndarray, start: float, onset: float, end: float, offset: float
) -> np.ndarray:
    """Rise, apex and fall of an episode, 0 to 1; all times in frames.

    The onset begins at `start` and takes `onset`; the offset takes `offset` and is over at `end`.
    """
    return _smooth_step((time_F - start) / onset) * _smooth_step((end - time_F) / offset)


def _drift(
    time_F: np.ndarray, centre: float, spread: float, limit: float, rng: np.random.Generator
) -> np.ndarray:
    """A slow, smooth wander around a value, within limits."""
    value_F = np.full(len(time_F), centre)
    for period in (rng.uniform(150, 300), rng.uniform(60, 120)):
        phase = rng.uniform(0, 2 * np.pi)
        wave_F = np.sin(2 * np.pi * time_F / period + phase)
        value_F = value_F + spread * 0.8 * rng.normal() * wave_F
    # A soft limit keeps the movement smooth where it would leave the range.
    return limit * np.tanh(value_F / limit)


def sample_motion(
    count: int,
    cards: Sequence[Card],
    rng: np.random.Generator,
    *,
    individual: bool = False,
    step: int | None = None,
) -> Motion:
    """Draws the course of a video of `count` labelled frames.

    The episodes show the cards in turn, which begin again when the video outlasts them.
    `individual` as for `sample_mixture`. `step` is the distance of labelled frames, see
    `sample_dense_frame_numbers`; None: they lie apart as `sample_frame_numbers` has it.
    """
    if step is None:
        frame_F = sample_frame_numbers(count, rng)
    else:
        frame_F = sample_dense_frame_numbers(count, step, rng)
    time_F = frame_F.astype(float)
    intensity_FA = np.zeros((count, len(ACTION_UNITS)))
    episode_F = np.zeros(count, np.int64)
    envelope_F = np.zeros(count)
    # A video is cut from a longer recording: it may begin within an episode.
    start = time_F[0] - rng.uniform(0, 40)
    turn = 0
    while start < time_F[-1]:
        card = cards[turn % len(cards)]
        length = rng.uniform(*EPISODE_FRAMES)
        inside_F = (time_F >= start) & (time_F < start + length)
        shape_F = envelope(
            time_F, start, rng.uniform(*ONSET_FRAMES), start + length, rng.uniform(*OFFSET_FRAMES)
        )
        for number, peak in sample_mixture(card, rng, individual=individual).items():
            waver_F = 1 + 0.06 * np.sin(time_F / rng.uniform(5, 12) + rng.uniform(0, 6))
            lag = rng.uniform(-1.5, 1.5)
            unit_F = envelope(
                time_F, start + max(lag, 0), 9 + lag, start + length + min(lag, 0), 12 - lag
            )
            intensity_FA[inside_F, ACTION_UNITS.index(number)] = (peak * waver_F * unit_F)[inside_F]
        episode_F[inside_F] = card.expression
        envelope_F[inside_F] = shape_F[inside_F]
        start += length + rng.uniform(*PAUSE_FRAMES)
        turn += 1
    blink = time_F[0] + rng.uniform(0, 120)
    while blink < time_F[-1]:
        closed_F = np.exp(-(((time_F - blink) / 2.0) ** 2))
        index = ACTION_UNITS.index(45)
        intensity_FA[:, index] = np.maximum(intensity_FA[:, index], closed_F)
        blink += rng.uniform(70, 200)
    return Motion(
        frame_F=frame_F,
        intensity_FA=np.clip(intensity_FA, 0, 1),
        episode_F=episode_F,
        envelope_F=envelope_F,
        poses={
            "yaw": _drift(time_F, rng.normal(0, 7), 6.0, YAW_LIMIT_DEG, rng),
            "pitch": _drift(time_F, rng.normal(1, 3.5), 3.0, PITCH_LIMIT_DEG, rng),
            "roll": _drift(time_F, rng.normal(0, 2.5), 2.5, ROLL_LIMIT_DEG, rng),
            "gaze_yaw": _drift(time_F, rng.normal(0, 3), 4.0, 12.0, rng),
            "gaze_pitch": _drift(time_F, rng.normal(0, 2), 2.0, 8.0, rng),
        },
    )
