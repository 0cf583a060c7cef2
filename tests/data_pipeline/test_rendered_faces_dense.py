"""Videos with every frame labelled, of which many are hard to read, behind a setting."""

import json

import numpy as np
import pytest
from PIL import Image
from scipy.signal import lfilter

from data_pipeline.rendered_faces import annotate, generate, hard, layout, motion
from data_pipeline.rendered_faces.plan import make_plan
from mtl_face.errors import ConfigError, WorkdirError

ARGUMENTS = {"num_videos": 12, "frames_per_video": 300, "seed": 3}


@pytest.fixture(scope="module")
def plans():
    return {
        (density, share): make_plan(**ARGUMENTS, density=density, hard_share=share)
        for density, share in (("dense", 0.4), ("dense", 0.0), ("dense_half", 0.4))
    }


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    root = tmp_path_factory.mktemp("dense") / "set"
    generate.generate(
        root, num_videos=3, frames_per_video=90, seed=2, workers=1, density="dense", hard_share=0.7
    )
    return root


@pytest.mark.parametrize(("density", "step"), [("dense", 1), ("dense_half", 2)])
def test_frames_follow_each_other_but_where_the_face_is_lost(plans, density, step):
    gaps = [np.diff(video.motion.frame_F) for video in plans[density, 0.4]]
    gap_N = np.concatenate(gaps)
    lost_N = gap_N[gap_N != step]
    assert all(video.motion.frame_F[0] == 1 for video in plans[density, 0.4])
    assert 0 < len(lost_N) < 2.5 * step / motion.LOST_EVERY_FRAMES * len(gap_N)
    assert lost_N.min() >= step + motion.LOST_FRAMES[0]
    assert lost_N.max() <= step + motion.LOST_FRAMES[1]
    assert sum(len(video.motion.frame_F) for video in plans[density, 0.4]) == 12 * 300
    assert gap_N.mean() == pytest.approx(motion.mean_frame_gap(step), rel=0.15)


def test_stretches_take_their_share_and_leave_the_truth_alone(plans):
    hardships = [video.hardship for video in plans["dense", 0.4]]
    kind_N = np.concatenate([one.kind_F for one in hardships])
    assert np.mean(kind_N >= 0) == pytest.approx(0.4, abs=0.1)
    assert set(kind_N) == {-1, 0, 1, 2, 3}
    for kind, video in zip(plans["dense", 0.4], plans["dense", 0.0], strict=True):
        np.testing.assert_array_equal(kind.truth.va_F2, video.truth.va_F2)
        np.testing.assert_array_equal(kind.annotations.va_F2, video.annotations.va_F2)
        assert (video.hardship.kind_F == -1).all()
        turned_F = kind.hardship.kind_F == hard.KINDS.index("turn")
        moved_F = kind.motion.poses["yaw"] != video.motion.poses["yaw"]
        assert not moved_F[~turned_F].any()
    turns = np.concatenate([np.abs(one.turn_F2[:, 0]) for one in hardships])
    assert hard.TURN_YAW_DEG[0] < turns.max() <= hard.TURN_YAW_DEG[1]


def test_a_rating_follows_the_truth_late_and_drifts():
    rng = np.random.default_rng(0)
    frame_F = np.cumsum(rng.integers(1, 4, 300))
    va_F2 = np.cumsum(rng.normal(0, 0.1, (300, 2)), axis=0)
    still_F2 = annotate.rated(va_F2, frame_F, np.zeros(300), np.random.default_rng(7))
    keep = np.exp(-1 / annotate.RATER_RESPONSE_FRAMES)
    time_T = np.arange(frame_F[0], frame_F[-1] + 1)
    differences = []
    first, last = annotate.RATER_DELAY_FRAMES
    for delay in range(first, last + 1):
        seen_T2 = np.stack([np.interp(time_T - delay, frame_F, va_F) for va_F in va_F2.T], axis=1)
        follows_T2, _ = lfilter([1 - keep], [1, -keep], seen_T2, axis=0, zi=keep * seen_T2[:1])
        differences.append(np.abs(follows_T2[frame_F - frame_F[0]] - still_F2).max())
    assert min(differences) < 1e-12  # one delay, both columns
    assert sorted(differences)[1] > 0.01

    frame_F, std_F = np.arange(1, 40_001), np.linspace(0.1, 0.3, 40_000)
    drift_F2 = annotate.rated(np.zeros((40_000, 2)), frame_F, std_F, rng) / std_F[:, None]
    assert drift_F2.std() == pytest.approx(1.0, abs=0.1)
    lag = int(annotate.RATER_DRIFT_FRAMES)
    correlation = np.mean(drift_F2[lag:] * drift_F2[:-lag]) / drift_F2.var()
    assert correlation == pytest.approx(np.exp(-1), abs=0.1)


def test_pictures_are_as_hard_as_their_file_says(dataset):
    brightness: dict[str, list[float]] = {kind: [] for kind in (*hard.KINDS, "none")}
    edges: dict[str, list[float]] = {kind: [] for kind in brightness}
    for split, name in layout.HARD_FILES.items():
        header, *lines = (dataset / name).read_text().splitlines()
        truth = (dataset / layout.TRUTH_FILES[split]).read_text().splitlines()[1:]
        assert header == "image,hard,strength"
        assert [line.split(",")[0] for line in lines] == [line.split(",")[0] for line in truth]
        for line in lines:
            image, kind, strength = line.split(",")
            if kind == "none" or float(strength) == 1.0:
                with Image.open(dataset / layout.IMAGE_FOLDER / image) as picture:
                    pixel_yx = np.asarray(picture.convert("L"), float)
                brightness[kind].append(pixel_yx.mean())
                edges[kind].append(np.abs(np.diff(pixel_yx, axis=1)).mean())
    seen = {kind for kind, values in brightness.items() if values}
    assert {"dim", "blur", "none"} <= seen
    assert max(brightness["dim"]) < 0.4 * min(brightness["none"])
    assert np.mean(edges["blur"]) < 0.6 * np.mean(edges["none"])


def test_something_covers_the_face():
    plan = make_plan(num_videos=3, frames_per_video=400, seed=1, density="dense", hard_share=0.8)
    before = np.full((112, 112, 3), 128, np.uint8)
    shares = []
    for video in plan:
        for row in np.flatnonzero(video.hardship.cover_F8[:, 2]):
            covered = video.hardship.disturb(before, row)
            if video.hardship.strength_F[row] == 1.0:
                shares.append(np.mean((covered != 128).any(axis=-1)))
    assert shares
    assert 0.12 < np.mean(shares) < 0.5  # an ellipse of half axes 28 and 38 has 0.27 of the crop


def test_description_and_refusals(tmp_path, monkeypatch):
    monkeypatch.setattr(generate, "_render_all", lambda *arguments: None)
    small = {"num_videos": 4, "frames_per_video": 3, "seed": 1}
    generate.ensure(tmp_path / "dense", **small, density="dense")
    about = json.loads((tmp_path / "dense" / "dataset.json").read_text())
    assert about["arguments"] == small | {"density": "dense", "hard_share": 0.4}
    assert about["frame_gap"]["step"] == 1
    assert about["rater"]["delay_frames"] == [4, 12]
    with pytest.raises(WorkdirError, match=r"hard_share is 0\.4 there and 0\.2 is asked"):
        generate.ensure(tmp_path / "dense", **small, density="dense", hard_share=0.2)
    generate.ensure(tmp_path / "sparse", **small, hard_share=0.2)  # where it changes nothing
    assert json.loads((tmp_path / "sparse" / "dataset.json").read_text())["arguments"] == small
    for wrong in ({"density": "thick"}, {"density": "dense", "hard_share": 0.9}):
        with pytest.raises(ConfigError, match=r"thick|hard_share is 0\.9"):
            generate.generate(tmp_path / "other", **small, **wrong)
