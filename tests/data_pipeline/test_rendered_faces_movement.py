"""People who move in ways of their own, behind a setting."""

import json

import numpy as np
import pytest

from data_pipeline.rendered_faces import generate, motion
from data_pipeline.rendered_faces.head import ACTION_UNITS, load_head, sample_shape
from data_pipeline.rendered_faces.plan import make_plan
from mtl_face.errors import ConfigError, WorkdirError

ARGUMENTS = {"num_videos": 60, "frames_per_video": 40, "seed": 3}
SMALL = {"num_videos": 4, "frames_per_video": 3, "seed": 1}


def people(count, **options):
    return [sample_shape(np.random.default_rng(seed), **options) for seed in range(count)]


def test_shapes_stay_and_movements_differ():
    for alike, own in zip(people(3), people(3, individual=True), strict=True):
        np.testing.assert_array_equal(alike.neutral_V3, own.neutral_V3)
        assert (alike.masculine, alike.old) == (own.masculine, own.old)
        moved_A = np.abs(own.unit_AV3 - alike.unit_AV3).max(axis=(1, 2))
        assert (moved_A > 0).all()


def test_some_people_smile_with_a_raised_upper_lip():
    """With AU12 alone, the upper lip of some rises nearly as far as with AU10; of others it stays.

    The height is that of the middle of the lip over its place at rest, as a share of AU10's.
    """
    head = load_head()
    lip_V = (head.lips_V > 0.5) & (np.abs(head.mean_V3[:, 0]) < 0.05)
    upper_V = lip_V & (head.mean_V3[:, 1] > np.median(head.mean_V3[lip_V, 1]))
    unit_10, unit_12 = (ACTION_UNITS.index(number) for number in (10, 12))
    shares = []
    for alike, own in zip(people(30), people(30, individual=True), strict=True):
        risen_A = own.unit_AV3[:, upper_V, 1].mean(axis=1)
        shares.append(risen_A[unit_12] / alike.unit_AV3[unit_10, upper_V, 1].mean())
    assert min(shares) < 0.3
    assert max(shares) > 0.7


def test_labels_show_more_combinations_and_fainter_units():
    plans = make_plan(**ARGUMENTS), make_plan(**ARGUMENTS, movement="individual")
    found = []
    for videos in plans:
        au_NU = np.concatenate([video.truth.au_FU for video in videos])
        intensity_NA = np.concatenate([video.motion.intensity_FA for video in videos])
        apex_N = np.concatenate([video.motion.envelope_F for video in videos]) > 0.99
        faint = np.mean((intensity_NA[apex_N] > 0.05).any(1) & (intensity_NA[apex_N].max(1) < 0.6))
        found.append((len(np.unique(au_NU, axis=0)), faint))
        for pair in motion.EXCLUSIVE_PAIRS:
            both_NA = intensity_NA[:, [ACTION_UNITS.index(number) for number in pair]] > 0.05
            apart_N = apex_N & both_NA.all(axis=1)
            assert not apart_N.any()
    (alike, faint_alike), (individual, faint_individual) = found
    assert individual > 1.5 * alike
    assert faint_individual > faint_alike + 0.1


def test_the_default_keeps_its_description(tmp_path, monkeypatch):
    monkeypatch.setattr(generate, "_render_all", lambda *arguments: None)
    generate.ensure(tmp_path / "alike", **SMALL)
    generate.ensure(tmp_path / "individual", **SMALL, movement="individual")
    for name, extra in (("alike", {}), ("individual", {"movement": "individual"})):
        about = json.loads((tmp_path / name / "dataset.json").read_text())
        assert about["arguments"] == SMALL | extra
    with pytest.raises(WorkdirError, match="movement is 'alike' there and 'individual' is asked"):
        generate.ensure(tmp_path / "alike", **SMALL, movement="individual")
    with pytest.raises(ConfigError, match="movement is 'wild'"):
        generate.generate(tmp_path / "other", **SMALL, movement="wild")
