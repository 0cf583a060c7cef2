"""A person's points at rest: of one who alternates, and of one who never rests."""

import json

import numpy as np
import pytest
from PIL import Image
from smile_network import PERSONS, SMILE, Smile, face

from mtl_face.faces.video import VideoFrame
from mtl_face.inference.baseline import Baseline, Baselines, neutrality
from mtl_face.inference.stream import FaceStream


def learned(points, neutral):
    baseline = Baseline()
    baseline.add(np.asarray(points), np.asarray(neutral, np.float64))
    return baseline


def test_the_mean_is_weighted_by_the_square_of_the_probability():
    points = np.random.default_rng(0).normal(size=(40, 468, 3))
    neutral = np.random.default_rng(1).uniform(0.5, 1, 40)
    baseline = learned(points, neutral)
    weights = neutral**2
    count = weights.sum() ** 2 / (weights**2).sum()
    share = min(1, 4 * weights.sum() / neutral.sum()) * count / (count + 1)
    assert baseline.share == pytest.approx(share)
    expected = np.average(points, axis=0, weights=weights)
    np.testing.assert_allclose(baseline.points, expected, rtol=1e-5, atol=1e-6)
    # in parts, it is the same
    parts = Baseline()
    for begin in range(0, 40, 7):
        parts.add(points[begin : begin + 7], neutral[begin : begin + 7])
    np.testing.assert_allclose(parts.points, baseline.points, rtol=1e-5, atol=1e-6)
    assert parts.share == pytest.approx(share)


def test_one_who_alternates_and_one_who_smiles_throughout():
    person = PERSONS[0]
    smiling = np.tile([True, False], 60)
    points = person + smiling[:, None, None] * SMILE
    alternating = learned(points, np.where(smiling, 0.03, 0.9))
    assert alternating.share > 0.95
    unit = SMILE / (SMILE**2).sum()
    assert abs(np.tensordot(alternating.points - person, unit, axes=2)) < 0.08
    always = learned(np.tile(person + SMILE, (120, 1, 1)), np.full(120, 0.03))
    assert always.share < 0.13
    # One neutral picture in twenty is enough.
    rarely = learned(points[[1] * 6 + [0] * 114], [0.9] * 6 + [0.03] * 114)
    assert rarely.share > 0.6
    assert abs(np.tensordot(rarely.points - person, unit, axes=2)) < 0.08


def test_few_pictures_are_not_trusted_and_none_gives_none():
    assert Baseline().share == 0
    one = learned(PERSONS[:1], [1.0])
    assert one.share == pytest.approx(1 / 2)
    assert learned(PERSONS[:1], [np.nan]).share == 0
    assert learned(PERSONS[:1], [0.0]).share == 0
    assert learned(PERSONS[:2], [np.nan, 1.0]).share == pytest.approx(1 / 2)
    assert learned(PERSONS[:1], [0.02]).share == 0  # 0.04


def test_persons_are_kept_apart_and_state_is_json():
    baselines = Baselines()
    person = np.tile([1, 2], 50)
    baselines.add(person, PERSONS[person], np.ones(100))
    points, share = baselines.known(np.array([2, 7, 1]))
    np.testing.assert_allclose(points[[0, 2]], PERSONS[[2, 1]], rtol=1e-5, atol=1e-7)
    assert not points[1].any()
    np.testing.assert_allclose(share, [50 / 51, 0, 50 / 51])
    again = Baselines()
    again.restore(json.loads(json.dumps(baselines.state())))
    again.add(np.array([1]), PERSONS[:1], np.array([0.5]))
    baselines.add(np.array([1]), PERSONS[:1], np.array([0.5]))
    for one, other in zip(again.known(person), baselines.known(person), strict=True):
        np.testing.assert_array_equal(one, other)


def test_a_network_that_was_not_trained_on_expressions():
    predictions = Smile().predict_arrays(
        {"points": np.zeros((2, 468, 3), np.float32), "baseline": np.zeros((2, 468, 3), np.float32)}
    )
    assert neutrality(predictions)[0] > 0.9
    object.__setattr__(predictions, "expression_logits", None)
    assert np.isnan(neutrality(predictions)).all()


def frames(count, begin=1):
    picture = Image.new("RGB", (700, 400))
    return [VideoFrame(number, number / 25, picture) for number in range(begin, begin + count)]


class Acting:
    """Person 1 smiles in even frames, person 2 never."""

    def __init__(self):
        self.frame = 0

    def __call__(self, picture):
        self.frame += 1
        return [face(1, float(self.frame % 2 == 0)), face(2, 0.0, left=300)]


def test_a_stream_learns_as_it_goes():
    network = Smile()
    live = FaceStream(network, source="a", finder=Acting())
    tables = live.update(frames(8)) + live.update(frames(52, begin=9))
    assert tables[0].baseline.tolist() == ["none", "none"]
    assert {str(word) for table in tables[1:] for word in table.baseline} == {"running mean"}
    answers = np.stack([table.va[:, 0] for table in tables])
    offset = np.abs(answers - [[0, 0], [1, 0]] * 30)
    # what persons differ by is learnt: far off at first, and little at the end
    assert offset[:2, 1].mean() > 3 * offset[-10:, 1].mean()
    assert offset[-10:].max() < 0.1
    # A frame is not judged by itself or by later ones.
    first = FaceStream(Smile(), source="a", finder=Acting()).update(frames(5))
    np.testing.assert_allclose(first[4].va, tables[4].va, atol=1e-6)


def test_a_stream_without_baselines():
    network = Smile()
    live = FaceStream(network, source="a", finder=Acting(), relative=False)
    tables = live.update(frames(6))
    assert {str(word) for table in tables for word in table.baseline} == {"none"}
    assert len(network.baselines) == 1
    assert not network.baselines[0].any()


def test_pixels_beside_points():
    network = Smile(inputs=("image", "points"))
    (table,) = FaceStream(network, source="a", finder=Acting()).update(frames(1))
    assert table.baseline.tolist() == ["none", "none"]
    assert len(FaceStream(network, source="a", finder=Acting()).update(frames(5))) == 5


def test_head_pose_and_faces_turned_away():
    from mtl_face.faces import geometry

    def turned(yaw):
        angle = np.radians(yaw)
        turn = np.array(
            [[np.cos(angle), 0, -np.sin(angle)], [0, 1, 0], [np.sin(angle), 0, np.cos(angle)]]
        )
        points = (geometry.mean_face() @ turn.T * 80 + 160).astype(np.float32)
        landmarks = face(0, 0).landmarks
        from mtl_face.faces.detect import Face

        return lambda picture: [Face(landmarks, 0.9, points)]

    for yaw, flagged in ((0, False), (20, False), (-25, False), (40, True), (-40, True)):
        (table,) = FaceStream(Smile(), source="a", finder=turned(yaw)).update(frames(1))
        assert abs(table.pose[0, 0]) == pytest.approx(abs(yaw), abs=0.5)
        assert ("turned" in str(table.status[0]).split("+")) == flagged
