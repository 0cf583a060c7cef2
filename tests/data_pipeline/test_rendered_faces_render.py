"""Drawing of rendered_faces: asset, rasteriser, camera, and that every action unit is seen."""

import hashlib
import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.rendered_faces_sheet import plain_scene
from data_pipeline.rendered_faces.camera import TEMPLATE_L2, Pose, rotation, similarity
from data_pipeline.rendered_faces.head import ACTION_UNITS, ASSET_PATH, intensities, load_head
from data_pipeline.rendered_faces.person import make_person
from data_pipeline.rendered_faces.raster import blend, rasterise, vertex_normals
from data_pipeline.rendered_faces.render import Renderer
from data_pipeline.rendered_faces.scene import sample_scene
from mtl_face.tasks import AU_NUMBERS

# Rows and columns of a crop where each action unit acts (eyes at row 52, mouth at row 92).
REGIONS = {
    1: np.s_[18:50, 36:76],
    2: np.s_[18:50, 18:94],
    4: np.s_[30:54, 30:82],
    6: np.s_[44:66, 18:94],
    7: np.s_[44:62, 24:88],
    10: np.s_[70:102, 28:84],
    12: np.s_[66:108, 20:92],
    15: np.s_[80:110, 28:84],
    23: np.s_[80:104, 32:80],
    24: np.s_[80:110, 32:80],
    25: np.s_[80:108, 32:80],
    26: np.s_[78:112, 20:92],
}


class FixedAlignment(Renderer):
    """Aligns to the face at rest, so that a difference picture shows the unit alone."""

    def landmarks(self, vertex_V3):
        return super().landmarks(self.person.shape.neutral_V3)


@pytest.fixture(scope="module")
def people():
    return [make_person(np.random.default_rng([5, number])) for number in range(4)]


def test_asset_is_small_plain_and_as_its_provenance_says():
    content = ASSET_PATH.read_bytes()
    provenance = json.loads((ASSET_PATH.parent / "PROVENANCE.json").read_text())
    assert len(content) < 1_000_000
    assert hashlib.sha256(content).hexdigest() == provenance["asset_sha256"]
    assert not any("soma" in name for name in provenance["files"])
    assert "CC0 1.0" in (ASSET_PATH.parent / "LICENSE-CC0.md").read_text()
    with np.load(ASSET_PATH, allow_pickle=False) as asset:
        arrays = {name: asset[name] for name in asset.files}
    assert not any(array.dtype.hasobject for array in arrays.values())
    for name, array in arrays.items():
        digest = hashlib.sha256(np.ascontiguousarray(array).tobytes()).hexdigest()
        assert digest == provenance["arrays_sha256"][name]


def test_head_is_a_closed_consistent_mesh():
    head = load_head()
    count = len(head.base_V3)
    assert head.triangle_T3.min() == 0
    assert head.triangle_T3.max() == count - 1
    assert {offset.shape for offset in head.unit_SV3.values()} == {(count, 3)}
    assert len(head.unit_SV3) == 52
    right, left = head.mouth_corners
    np.testing.assert_allclose(head.mean_V3[right] * [-1, 1, 1], head.mean_V3[left], atol=1e-3)
    np.testing.assert_allclose(head.scalp_weight_RC3.sum(axis=2), 1, atol=1e-5)


def test_blend_is_a_weighted_sum():
    rng = np.random.default_rng(0)
    neutral, units = rng.normal(size=(7, 3)), rng.normal(size=(4, 7, 3))
    weights = np.array([0.5, 0.0, 1.0, 0.25])
    out = np.empty((7, 3))
    blend(neutral, units, weights, out)
    np.testing.assert_allclose(out, neutral + np.tensordot(weights, units, 1), rtol=1e-12)


def test_normals_of_a_sphere_point_outward():
    angle, polar = np.meshgrid(
        np.linspace(0, 2 * np.pi, 40, endpoint=False), np.linspace(0.2, np.pi - 0.2, 30)
    )
    place = np.stack(
        [np.sin(polar) * np.sin(angle), np.cos(polar), np.sin(polar) * np.cos(angle)], axis=-1
    )
    index = np.arange(1200).reshape(30, 40)
    right = np.roll(index, -1, axis=1)
    a, b, c, d = (grid.ravel() for grid in (index[:-1], index[1:], right[1:], right[:-1]))
    triangles = np.concatenate([np.stack([a, b, c], 1), np.stack([a, c, d], 1)])
    normal = np.zeros((1200, 3))
    vertex_normals(place.reshape(-1, 3), triangles, normal)
    inner = normal.reshape(30, 40, 3)[1:-1]
    assert (np.sum(inner * place[1:-1], axis=-1) > 0.99).all()


def draw(screen, triangles, size, cull=False, cover=None, tips=None):
    nearness = np.zeros((size, size), np.float32)
    ids = np.full((size, size), -1, np.int32)
    weights = np.zeros((size, size, 2), np.float32)
    cover = np.zeros((1, 2), np.float32) if cover is None else cover
    tips = np.zeros(0, np.float32) if tips is None else tips
    rasterise(screen, triangles, cull, 100, cover, tips, nearness, ids, weights)
    return nearness, ids, weights


def reference_nearest(screen, triangles, size, margin):
    """Depth by solving for the barycentric weights of every sample; NaN close to any edge."""
    y, x = np.mgrid[:size, :size]
    points = np.stack([x, y, np.ones_like(x)], axis=-1).astype(float)
    best = np.zeros((size, size))
    owner = np.full((size, size), -1)
    unsure = np.zeros((size, size), bool)
    for t, triangle in enumerate(triangles):
        corners = screen[triangle].astype(float)
        system = np.concatenate([corners[:, :2], np.ones((3, 1))], axis=1)
        if abs(np.linalg.det(system)) < 1:
            continue
        weight = points @ np.linalg.inv(system)
        inside = (weight >= 0).all(axis=-1)
        unsure |= (np.abs(weight).min(axis=-1) < margin) & (weight > -0.1).all(axis=-1)
        near = weight @ corners[:, 2]
        unsure |= inside & (np.abs(near - best) < margin)
        closer = inside & (near > best)
        best[closer], owner[closer] = near[closer], t
    return best, owner, unsure


@settings(deadline=None, derandomize=True, max_examples=25)
@given(seed=st.integers(0, 2**32 - 1))
def test_rasteriser_agrees_with_solving_for_every_sample(seed):
    rng = np.random.default_rng(seed)
    screen = rng.uniform(-10, 42, (12, 3)).astype(np.float32)
    screen[:, 2] = rng.uniform(0.1, 1, 12)
    triangles = rng.permuted(np.tile(np.arange(12), (6, 1)), axis=1)[:, :3].astype(np.int32)
    nearness, ids, weights = draw(screen, triangles, 32)
    best, owner, unsure = reference_nearest(screen, triangles, 32, 1e-3)
    sliver = np.array(
        [
            abs(np.linalg.det(np.concatenate([screen[t][:, :2], np.ones((3, 1))], axis=1))) < 1
            for t in triangles
        ]
    )
    if sliver.any():
        return
    np.testing.assert_allclose(nearness[~unsure], best[~unsure], atol=2e-4)
    np.testing.assert_array_equal(np.where(ids < 0, -1, ids - 100)[~unsure], owner[~unsure])
    drawn = ids >= 0
    assert (weights[drawn].sum(axis=-1) <= 1 + 1e-5).all()


def test_rasteriser_leaves_out_what_turns_away_and_what_lies_beyond_a_strand():
    screen = np.array([[0, 0, 1], [30, 0, 1], [0, 30, 1]], np.float32)
    away, toward = np.array([[0, 1, 2]], np.int32), np.array([[0, 2, 1]], np.int32)
    assert (draw(screen, away, 32, cull=True)[1] < 0).all()
    assert (draw(screen, toward, 32, cull=True)[1] == 100).any()
    cover = np.array([[0.5, 0], [0.5, 0], [0.5, 90]], np.float32)
    ids = draw(screen, toward, 32, cover=cover, tips=np.full(8, 45, np.float32))[1]
    assert (ids[:14, 2] == 100).all()
    assert (ids[17:, 2] < 0).all()


@settings(deadline=None, derandomize=True, max_examples=50)
@given(
    factor=st.floats(0.1, 10),
    angle=st.floats(-3, 3),
    shift=st.tuples(st.floats(-50, 50), st.floats(-50, 50)),
)
def test_similarity_is_recovered(factor, angle, shift):
    cos, sin = factor * np.cos(angle), factor * np.sin(angle)
    moved = TEMPLATE_L2 @ np.array([[cos, sin], [-sin, cos]]) + shift
    scale, offset = similarity(TEMPLATE_L2, moved)
    z = scale * (TEMPLATE_L2[:, 0] + 1j * TEMPLATE_L2[:, 1]) + offset
    np.testing.assert_allclose(np.stack([z.real, z.imag], 1), moved, atol=1e-8)


def test_rotation_turns_the_way_it_says():
    forward = np.array([0.0, 0.0, 1.0])
    np.testing.assert_allclose(rotation(25, -8, 5) @ rotation(25, -8, 5).T, np.eye(3), atol=1e-12)
    assert (rotation(10, 0, 0) @ forward)[0] > 0.1  # to the person's left
    assert (rotation(0, 10, 0) @ forward)[1] < -0.1  # down


def test_pupils_lie_on_the_template(people):
    for person in people:
        picture = Renderer(person, plain_scene()).render(intensities({}), Pose()).astype(float)
        grey = picture.mean(axis=2)
        for x, y in TEMPLATE_L2[:2]:
            left, top = round(x) - 6, round(y) - 5
            window = grey[top : top + 11, left : left + 13]
            dark = np.argwhere(window <= np.sort(window, axis=None)[8])
            centre = dark.mean(axis=0) + np.array([top, left])
            assert np.hypot(centre[0] - y, centre[1] - x) < 3.0


@pytest.mark.parametrize("number", AU_NUMBERS)
def test_each_action_unit_changes_its_own_region_visibly(people, number):
    for person in people:
        renderer = FixedAlignment(person, plain_scene())
        rest = renderer.render(intensities({}), Pose()).astype(float)
        full = renderer.render(intensities({number: 1.0}), Pose()).astype(float)
        visible = renderer.render(intensities({number: 0.31}), Pose()).astype(float)
        change = np.abs(full - rest).mean(axis=2)
        inside = np.zeros(change.shape, bool)
        inside[REGIONS[number]] = True
        assert change[inside].mean() > 3 * change[~inside].mean()
        assert change[inside].mean() > 2.5
        # Fifteen pixels or more differ clearly, even just above the threshold of visibility.
        assert np.sort(change[inside])[-15] > 18
        assert np.sort(np.abs(visible - rest).mean(axis=2)[inside])[-15] > 6


def test_left_and_right_are_the_persons(people):
    person = people[0]
    head = load_head()
    left = person.shape.neutral_V3 + 3 * head.unit_SV3["eyeSquintLeft"]
    moved = np.abs(left - person.shape.neutral_V3).sum(axis=1) > 0.05
    assert head.mean_V3[moved, 0].min() > 0
    renderer = Renderer(person, plain_scene())
    turned = renderer.render(intensities({}), Pose(yaw=18)).astype(float)
    rest = renderer.render(intensities({}), Pose()).astype(float)
    assert np.abs(turned - rest).mean() > 3


def test_rendering_is_deterministic_and_noise_comes_from_the_generator(people):
    scene = sample_scene(np.random.default_rng(3))
    pose = Pose(yaw=7, pitch=-3, roll=2)
    renderer = Renderer(people[1], scene)
    shown = intensities({12: 0.7, 6: 0.5})
    first = renderer.render(shown, pose, np.random.default_rng(9))
    renderer.render(intensities({26: 1.0}), Pose(yaw=-15), np.random.default_rng(2))
    again = renderer.render(shown, pose, np.random.default_rng(9))
    fresh = Renderer(people[1], scene).render(shown, pose, np.random.default_rng(9))
    np.testing.assert_array_equal(first, again)
    np.testing.assert_array_equal(first, fresh)
    assert (renderer.render(shown, pose, np.random.default_rng(10)) != first).any()
    assert first.shape == (112, 112, 3)
    assert first.dtype == np.uint8


def test_people_differ(people):
    pictures = [
        Renderer(person, plain_scene()).render(intensities({}), Pose()).astype(float)
        for person in people
    ]
    for index, one in enumerate(pictures):
        for other in pictures[index + 1 :]:
            assert np.abs(one - other).mean() > 5


def test_order_of_action_units_begins_with_the_annotated():
    assert ACTION_UNITS[:12] == AU_NUMBERS
    assert len(set(ACTION_UNITS)) == 17
