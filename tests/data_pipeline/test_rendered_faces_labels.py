"""Labels and plan of rendered_faces: mapping, noise, masks, motion, splits. Nothing is drawn."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_pipeline.rendered_faces import annotate, motion
from data_pipeline.rendered_faces.head import ACTION_UNITS
from data_pipeline.rendered_faces.motion import PROTOTYPES, Card, sample_mixture
from data_pipeline.rendered_faces.plan import make_plan
from mtl_face.tasks import AU_NUMBERS, EXPRESSION_NAMES

# Written out again from the FACS literature: which units an emotion cannot be without.
EMOTION_CORES = {
    "Anger": {4},
    "Disgust": {9, 10},
    "Fear": {1, 5, 20},
    "Happiness": {6, 12},
    "Sadness": {1, 15},
    "Surprise": {1, 2, 26},
}
IMPOSSIBLE = [{12, 15}, {23, 25}, {24, 25}, {23, 26}, {24, 26}, {23, 24}, {10, 23}]

# s-Aff-Wild2: rows, and rows with each label.
REAL_TRAIN = {"va": 103_917 / 142_382, "expr": 90_645 / 142_382, "au": 103_316 / 142_382}
REAL_ALL_THREE = 52_154 / 142_382
REAL_VAL_EXPR = 15_440 / 26_876


def one_unit(number: int, intensity: float = 1.0) -> np.ndarray:
    return np.array([[intensity if unit == number else 0.0 for unit in ACTION_UNITS]])


@pytest.fixture(scope="module")
def plan():
    return make_plan(num_videos=120, frames_per_video=40, seed=3)


def of_split(plan, split):
    return [video for video in plan if video.split == split]


@settings(deadline=None, derandomize=True, max_examples=300)
@given(expression=st.integers(0, 7), seed=st.integers(0, 2**32 - 1))
def test_mixtures_keep_their_core_and_never_show_impossible_pairs(expression, seed):
    alternatives = len(PROTOTYPES[EXPRESSION_NAMES[expression]])
    card = Card(expression, seed % alternatives)
    mixture = sample_mixture(card, np.random.default_rng(seed))
    shown = set(mixture)
    assert not any(pair <= shown for pair in IMPOSSIBLE)
    assert all(0 <= intensity <= 1 for intensity in mixture.values())
    assert shown >= EMOTION_CORES.get(EXPRESSION_NAMES[expression], set())
    if EXPRESSION_NAMES[expression] == "Neutral":
        assert shown <= {7, 25, 26}


@pytest.mark.parametrize(
    ("column", "rising", "falling"),
    [(0, (6, 12), (4, 9, 10, 15)), (1, (1, 2, 5, 25, 26), (15,))],
    ids=["valence", "arousal"],
)
def test_signs_of_the_mapping_to_valence_and_arousal(column, rising, falling):
    rest = annotate.valence_arousal(one_unit(0))[0, column]
    for number in rising:
        assert annotate.valence_arousal(one_unit(number))[0, column] > rest + 0.05
    for number in falling:
        assert annotate.valence_arousal(one_unit(number))[0, column] < rest - 0.05


def test_mapping_is_linear_inside_and_clipped_outside():
    smile = one_unit(12, 0.2) + one_unit(6, 0.1)
    expected = 0.6 * 0.2 + 0.35 * 0.1
    np.testing.assert_allclose(annotate.valence_arousal(smile)[0, 0], expected)
    np.testing.assert_allclose(
        annotate.valence_arousal(smile)[0, 1], -0.25 + 0.15 * 0.2 + 0.1 * 0.1
    )
    everything = np.ones((1, len(ACTION_UNITS)))
    assert np.abs(annotate.valence_arousal(10 * everything)).max() == 1
    blink = annotate.valence_arousal(one_unit(45))
    np.testing.assert_array_equal(blink, annotate.valence_arousal(one_unit(0)))


def test_true_labels_follow_thresholds(plan):
    for video in plan[:20]:
        course, truth = video.motion, video.truth
        np.testing.assert_array_equal(truth.au_FU, course.intensity_FA[:, :12] >= 0.3)
        weak = course.envelope_F < 0.45
        assert (truth.expr_F[weak] == 0).all()
        np.testing.assert_array_equal(truth.expr_F[~weak], course.episode_F[~weak])
        assert truth.has_FK.all()


def test_an_expression_at_its_apex_shows_its_units(plan):
    for video in plan:
        apex = video.motion.envelope_F > 0.98
        for name, core in EMOTION_CORES.items():
            rows = apex & (video.truth.expr_F == EXPRESSION_NAMES.index(name))
            for number in core & set(AU_NUMBERS):
                assert video.truth.au_FU[rows, AU_NUMBERS.index(number)].all()


def test_noise_has_the_stated_size():
    rng = np.random.default_rng(0)
    count = 40_000
    truth = annotate.Labels(
        va_F2=np.tile([[0.1, -0.2]], (count, 1)),
        au_FU=rng.integers(0, 2, (count, 12)),
        expr_F=rng.integers(0, 8, count),
        has_FK=np.ones((count, 3), bool),
    )
    noisy = annotate.with_noise(truth, rng, np.full(len(truth.expr_F), annotate.VA_NOISE_STD))
    error_F2 = noisy.va_F2 - truth.va_F2
    np.testing.assert_allclose(error_F2.std(axis=0), 0.15, rtol=0.02)
    np.testing.assert_allclose(error_F2.mean(axis=0), 0, atol=0.004)
    np.testing.assert_allclose((noisy.au_FU != truth.au_FU).mean(axis=0), 0.02, atol=0.003)
    confused = noisy.expr_F != truth.expr_F
    np.testing.assert_allclose(confused.mean(), 0.12, atol=0.006)
    step = (noisy.expr_F - truth.expr_F)[confused] % 8
    np.testing.assert_allclose(
        np.bincount(step, minlength=8)[1:] / confused.sum(), 1 / 7, atol=0.02
    )


def test_masks_have_the_shares_of_the_real_set(plan):
    has_RK = np.concatenate([video.annotations.has_FK for video in of_split(plan, "train")])
    va, au, expr = has_RK.mean(axis=0)
    assert va == pytest.approx(REAL_TRAIN["va"], abs=0.01)
    assert au == pytest.approx(REAL_TRAIN["au"], abs=0.01)
    assert expr == pytest.approx(REAL_TRAIN["expr"], abs=0.01)
    assert has_RK.all(axis=1).mean() == pytest.approx(REAL_ALL_THREE, abs=0.01)
    assert 1 <= (~has_RK).all(axis=1).sum() <= 10
    has_RK = np.concatenate([video.annotations.has_FK for video in of_split(plan, "val")])
    assert has_RK[:, :2].all()
    assert has_RK[:, 2].mean() == pytest.approx(REAL_VAL_EXPR, abs=0.01)


def test_frame_numbers_have_the_spacing_of_the_real_set():
    number_F = motion.sample_frame_numbers(20_000, np.random.default_rng(1))
    gap_F = np.diff(number_F)
    assert number_F[0] >= 1
    assert gap_F.min() >= 1
    assert np.median(gap_F) == 4
    assert gap_F.mean() == pytest.approx(8, abs=0.6)


def test_motion_is_smooth_and_within_limits(plan):
    for video in plan:
        course = video.motion
        assert ((course.intensity_FA >= 0) & (course.intensity_FA <= 1)).all()
        assert np.abs(course.poses["yaw"]).max() <= 20
        assert np.abs(course.poses["pitch"]).max() <= 12
        assert np.abs(course.poses["roll"]).max() <= 8
        gap_F = np.diff(course.frame_F)
        slow_A = np.array([number != 45 for number in ACTION_UNITS])
        step_FA = np.abs(np.diff(course.intensity_FA, axis=0))[:, slow_A]
        assert (step_FA.max(axis=1) <= 0.26 * gap_F).all()
        assert (np.abs(np.diff(course.poses["yaw"])) <= 1.5 * gap_F).all()


def test_splits_by_identity_in_the_stated_shares(plan):
    of = {
        split: {video.identity for video in of_split(plan, split)}
        for split in ("train", "val", "test")
    }
    assert not of["train"] & of["val"]
    assert not of["train"] & of["test"]
    assert not of["val"] & of["test"]
    counts = {split: len(of_split(plan, split)) for split in of}
    assert counts == {"train": 84, "val": 18, "test": 18}
    assert sum(len(video.motion.frame_F) for video in plan) == 120 * 40
    assert len({video.name for video in plan}) == 120
    assert len({video.identity for video in plan}) < 120


def test_two_person_videos_share_the_scene_and_the_split(plan):
    by_name = {video.name: video for video in plan}
    left = [name for name in by_name if name.endswith("_left")]
    assert {by_name[name].split for name in left} == {"train", "val", "test"}
    for name in left:
        one, other = by_name[name], by_name[name.removesuffix("_left") + "_right"]
        assert one.scene == other.scene
        assert one.identity != other.identity
        assert one.split == other.split


@pytest.mark.parametrize("seed", [0, 3, 11])
def test_every_class_and_unit_occurs_in_every_split(seed):
    plan = make_plan(num_videos=120, frames_per_video=40, seed=seed)
    for split in ("train", "val", "test"):
        expr_F = np.concatenate([video.truth.expr_F for video in of_split(plan, split)])
        share = np.bincount(expr_F, minlength=8) / len(expr_F)
        assert share.min() > 0.02, (split, share)
        au_FU = np.concatenate([video.truth.au_FU for video in of_split(plan, split)])
        assert au_FU.mean(axis=0).min() > 0.03, (split, au_FU.mean(axis=0))
    everything_FU = np.concatenate([video.truth.au_FU for video in plan])
    rate_U = everything_FU.mean(axis=0)
    assert (rate_U > 0.08).all()
    assert (rate_U < 0.5).all()


@settings(deadline=None, derandomize=True, max_examples=60)
@given(num_videos=st.integers(3, 40), seed=st.integers(0, 2**32 - 1))
def test_small_sets_have_every_split(num_videos, seed):
    plan = make_plan(num_videos=num_videos, frames_per_video=2, seed=seed)
    assert len(plan) == len({video.name for video in plan}) == num_videos
    for split in ("val", "test"):
        assert len(of_split(plan, split)) == max(1, round(0.15 * num_videos))
    split_of: dict[int, str] = {}
    for video in plan:
        assert split_of.setdefault(video.identity, video.split) == video.split


def test_the_plan_depends_on_the_seed_alone(plan):
    again = make_plan(num_videos=120, frames_per_video=40, seed=3)
    other = make_plan(num_videos=120, frames_per_video=40, seed=4)
    for one, two in zip(plan, again, strict=True):
        np.testing.assert_array_equal(one.motion.intensity_FA, two.motion.intensity_FA)
        np.testing.assert_array_equal(one.annotations.va_F2, two.annotations.va_F2)
    assert any(one.name != two.name for one, two in zip(plan, other, strict=True))
