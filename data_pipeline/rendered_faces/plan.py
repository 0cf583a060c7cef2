"""Plans a data set before anything is drawn: videos, identities, splits and episodes.

The plan depends on the arguments alone. Whatever a video needs is seeded by the data set's seed and
by indices, so that process, order and neighbours make no difference.
"""

from dataclasses import dataclass, replace

import numpy as np

from data_pipeline.rendered_faces.annotate import (
    Labels,
    rated,
    sample_masks,
    true_labels,
    va_noise_std,
    with_noise,
)
from data_pipeline.rendered_faces.hard import Hardship
from data_pipeline.rendered_faces.motion import (
    MEAN_EPISODE_FRAMES,
    PROTOTYPES,
    Card,
    Motion,
    mean_frame_gap,
    sample_motion,
)
from mtl_face.tasks import EXPRESSION_NAMES

SPLITS = ("train", "val", "test")
SPLIT_SHARES = {"train": 0.70, "val": 0.15, "test": 0.15}

EPISODE_DECK = {0: 1, 1: 3, 2: 2, 3: 2, 4: 3, 5: 2, 6: 2, 7: 4}
"""Cards of each expression class in the deck from which a split's episodes are dealt. Neutral needs
few: onsets, offsets and pauses are Neutral too."""

_PAIR_SHARE = 0.12
_REPEATED_SHARE = 0.20
DUPLICATE_SHARE = 0.007
"""Share of rows that are written twice, as in the original."""

FRAME_STEPS = {"sparse": None, "dense": 1, "dense_half": 2}
"""Distance of labelled frames by `schema.DENSITIES`; None: they lie apart by random gaps."""

PLAN, IDENTITY, SCENE, MOTION, NOISE, MASK, PIXELS, DUPLICATES, HARD, RATER = range(10)
"""Purposes of random numbers: a person's looks (`IDENTITY`), a video's landmark errors and sensor
noise (`PIXELS`), and so on."""


def stream(seed: int, purpose: int, index: int = 0) -> np.random.Generator:
    """The random numbers of one purpose and one index."""
    return np.random.default_rng([seed, purpose, index])


@dataclass(frozen=True)
class Video:
    """One video of the plan.

    Attributes:
        index, identity, scene: numbers of the video, person and scene, from 0.
        name: of its folder.
        split: one of `SPLITS`.
        truth: labels without noise or gaps.
        annotations: labels as annotated.
        repeats_F: number of rows of each frame.
        va_std_F: standard deviation of the noise on each frame's valence and arousal.
        individual: whether the person has a way of moving, see `head.individual_movement`.
        hardship: what makes frames hard to read; None: nothing.
    """

    index: int
    name: str
    split: str
    identity: int
    scene: int
    motion: Motion
    truth: Labels
    annotations: Labels
    repeats_F: np.ndarray
    va_std_F: np.ndarray
    individual: bool = False
    hardship: Hardship | None = None


@dataclass(frozen=True)
class _Slot:
    name: str
    identity: int
    scene: int


def _units(num_videos: int, rng: np.random.Generator) -> list[list[_Slot]]:
    """Groups of videos that must stay together: pairs in one picture, and one person's videos."""
    numbers = [int(number) for number in rng.permutation(np.arange(1, num_videos + 1))]
    units: list[list[_Slot]] = []
    identity = scene = used = 0
    while used < num_videos:
        number = numbers[used]
        styles = (f"{number}", f"video{number}", f"{number}-30-640x480", f"{number}-24-1280x720")
        name = styles[int(rng.integers(4))]
        room = num_videos - used
        # At least half of the videos are single, and all in small sets: they fill every split.
        grouped = 2 * sum(len(unit) == 2 for unit in units)
        chance = rng.random()
        if num_videos < 8 or grouped + 2 > num_videos // 2 or room < 2:
            chance = 1.0
        if num_videos >= 8 and used == 0:
            chance = 0.0
        if chance < _PAIR_SHARE:
            left = _Slot(f"{name}_left", identity, scene)
            units.append([left, _Slot(f"{name}_right", identity + 1, scene)])
            identity, scene = identity + 2, scene + 1
        elif chance < _PAIR_SHARE + _REPEATED_SHARE:
            again = _Slot(f"video{numbers[used + 1]}_1", identity, scene + 1)
            units.append([_Slot(name, identity, scene), again])
            identity, scene = identity + 1, scene + 2
        else:
            units.append([_Slot(name, identity, scene)])
            identity, scene = identity + 1, scene + 1
        used += len(units[-1])
    return units


def _assign_splits(units: list[list[_Slot]]) -> list[str]:
    """Split of each unit, so that the shares of videos are exact but for rounding."""
    total = sum(len(unit) for unit in units)
    wanted = {split: max(1, round(SPLIT_SHARES[split] * total)) for split in ("val", "test")}
    wanted["train"] = total - sum(wanted.values())
    lacking = dict(wanted)
    assigned = [""] * len(units)
    # Larger groups first: the single videos then fill every split exactly.
    for index in sorted(range(len(units)), key=lambda index: -len(units[index])):
        size = len(units[index])
        roomy = [split for split in SPLITS if lacking[split] >= size]
        split = max(roomy, key=lambda name: lacking[name] / wanted[name])
        lacking[split] -= size
        assigned[index] = split
    return assigned


def _deal(count: int, rng: np.random.Generator) -> list[Card]:
    """Deals that many episodes from shuffled decks; alternatives of a class take turns."""
    turns: dict[int, list[int]] = {}

    def alternative(expression: int) -> int:
        if not turns.get(expression):
            choices = len(PROTOTYPES[EXPRESSION_NAMES[expression]])
            turns[expression] = [int(choice) for choice in rng.permutation(choices)]
        return turns[expression].pop()

    deck = [expression for expression, copies in EPISODE_DECK.items() for _ in range(copies)]
    dealt: list[Card] = []
    while len(dealt) < count:
        shuffled = [int(expression) for expression in rng.permutation(deck)]
        dealt.extend(Card(expression, alternative(expression)) for expression in shuffled)
    return dealt[:count]


def _lengths(num_videos: int, frames_per_video: int, rng: np.random.Generator) -> list[int]:
    """Frames of each video: from 0.6 to 1.4 of the mean, summing to videos x mean."""
    share = rng.uniform(0.6, 1.4, num_videos)
    exact = share / share.sum() * num_videos * frames_per_video
    lengths = np.maximum(1, np.floor(exact)).astype(int)
    short = num_videos * frames_per_video - int(lengths.sum())
    order = np.argsort(-(exact - lengths), kind="stable")
    lengths[order[:short]] += 1
    return [int(length) for length in lengths]


def make_plan(
    *,
    num_videos: int,
    frames_per_video: int,
    seed: int,
    va_noise: str = "constant",
    movement: str = "alike",
    density: str = "sparse",
    hard_share: float = 0.0,
) -> list[Video]:
    """The videos by split and name, labels included; arguments as for `generate.generate`."""
    individual, step = movement == "individual", FRAME_STEPS[density]
    rng = stream(seed, PLAN)
    units = _units(num_videos, rng)
    assigned = _assign_splits(units)
    lengths = _lengths(num_videos, frames_per_video, rng)
    slots = [(split, slot) for split, unit in zip(assigned, units, strict=True) for slot in unit]
    slots.sort(key=lambda entry: (SPLITS.index(entry[0]), entry[1].name))

    videos: list[Video] = []
    for split in SPLITS:
        members = [slot for name, slot in slots if name == split]
        counts = lengths[len(videos) : len(videos) + len(members)]
        gap = mean_frame_gap(step)
        episodes = [max(1, int(np.ceil(gap * count / MEAN_EPISODE_FRAMES))) for count in counts]
        dealt = _deal(sum(episodes), rng)
        masks = sample_masks(counts, split, stream(seed, MASK, SPLITS.index(split)))
        total = sum(counts)
        doubled = stream(seed, DUPLICATES, SPLITS.index(split)).permutation(total)
        repeats = np.ones(total, np.int64)
        repeats[doubled[: round(DUPLICATE_SHARE * total)]] = 2
        of_video = np.split(repeats, np.cumsum(counts)[:-1])
        for slot, count, number, has_FK, repeats_F in zip(
            members, counts, episodes, masks, of_video, strict=True
        ):
            index = len(videos)
            motion = sample_motion(
                count, dealt[:number], stream(seed, MOTION, index), individual=individual, step=step
            )
            dealt = dealt[number:]
            hardship = None
            if step is not None:
                hard_rng = stream(seed, HARD, index)
                hardship = Hardship.sample(motion.frame_F, hard_share, hard_rng)
                motion = hardship.turned(motion)
            truth = true_labels(motion)
            va_std_F = va_noise_std(motion, va_noise)
            noise_rng = stream(seed, NOISE, index)
            if step is None:
                noisy = with_noise(truth, noise_rng, va_std_F)
            else:
                rater_rng = stream(seed, RATER, index)
                va_F2 = rated(truth.va_F2, motion.frame_F, va_std_F, rater_rng)
                noisy = with_noise(replace(truth, va_F2=va_F2), noise_rng, 0 * va_std_F)
            annotations = Labels(noisy.va_F2, noisy.au_FU, noisy.expr_F, has_FK)
            videos.append(
                Video(
                    index=index,
                    name=slot.name,
                    split=split,
                    identity=slot.identity,
                    scene=slot.scene,
                    motion=motion,
                    truth=truth,
                    annotations=annotations,
                    repeats_F=repeats_F,
                    va_std_F=va_std_F,
                    individual=individual,
                    hardship=hardship,
                )
            )
    return videos
