"""Renders one aligned face crop: a person, in a scene, in a pose, with given intensities.

The camera sees the head in perspective. Five landmarks are projected (eyes, nose tip, mouth
corners), disturbed as a detector would, and a similarity brings them to the five-point template of
112 x 112 crops; the head is drawn straight into the crop's pixels.

Letters: V vertices, T triangles, A action units, Y and X samples (twice the pixels), L landmarks.
"""

import functools

import numpy as np

from data_pipeline.rendered_faces import skin
from data_pipeline.rendered_faces.camera import (
    TEMPLATE_L2,
    Pose,
    finish,
    gaze_directions,
    project,
    rotation,
    similarity,
)
from data_pipeline.rendered_faces.head import ACTION_UNITS, LASH, Shape, load_head
from data_pipeline.rendered_faces.person import Person, make_person
from data_pipeline.rendered_faces.raster import rasterise, vertex_normals
from data_pipeline.rendered_faces.scene import Scene, sample_scene
from data_pipeline.rendered_faces.shade import shade

CROP_SIZE = 112
SUPERSAMPLING = 2

_NO_STRANDS = np.zeros(0, np.float32)
_NO_COVER = np.zeros((1, 2), np.float32)


@functools.cache
def _meshes() -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Triangles without lashes, their parts, the lashes, and map coordinates of vertices."""
    head = load_head()
    lash_T = head.part_T == LASH
    return (
        np.ascontiguousarray(head.triangle_T3[~lash_T]),
        np.ascontiguousarray(head.part_T[~lash_T]),
        np.ascontiguousarray(head.triangle_T3[lash_T]),
        skin.map_coordinates_of(head.mean_V3),
    )


def _eye_directions(shape: Shape) -> tuple[np.ndarray, np.ndarray]:
    """Direction of each eye vertex from its eyeball's centre `[V, 3]`, and the two centres."""
    direction_V3 = np.zeros_like(shape.neutral_V3)
    centres = []
    for eye_V in load_head().eyes:
        place_V3 = shape.neutral_V3[eye_V]
        # The sphere through the eyeball's vertices, by linear least squares.
        system = np.concatenate([2 * place_V3, np.ones((len(eye_V), 1))], axis=1)
        solution = np.linalg.lstsq(system, (place_V3**2).sum(axis=1), rcond=None)[0]
        centres.append(solution[:3])
        direction_V3[eye_V] = place_V3 - solution[:3]
    return direction_V3, np.array(centres)


class Renderer:
    """Draws frames of one person in one scene; keeps what does not change between frames."""

    def __init__(self, person: Person, scene: Scene) -> None:
        self.person = person
        self.scene = scene
        self._triangle_T3, self._part_T, self._lash_T3, self._map_V2 = _meshes()
        self._eye_V3, self._eye_centre_23 = _eye_directions(person.shape)
        hair = person.hair
        self._hair_normal_V3 = np.zeros_like(hair.vertex_V3)
        if len(hair.vertex_V3):
            vertex_normals(hair.vertex_V3, hair.triangle_T3, self._hair_normal_V3)
            # The first and last column are the same place, as are all vertices of row 0.
            normal_RC3 = self._hair_normal_V3.reshape(-1, load_head().scalp_RC3.shape[1] + 1, 3)
            normal_RC3[:, 0] = normal_RC3[:, -1] = normal_RC3[:, 0] + normal_RC3[:, -1]
            normal_RC3[0] = (0, 1, 0)
        size = CROP_SIZE * SUPERSAMPLING
        self._nearness_YX = np.empty((size, size), np.float32)
        self._id_YX = np.empty((size, size), np.int32)
        self._lash_id_YX = np.empty((size, size), np.int32)
        self._weight_YX2 = np.empty((size, size, 2), np.float32)
        self._lash_weight_YX2 = np.empty((size, size, 2), np.float32)
        self._colour_YX3 = np.empty((size, size, 3), np.float32)
        self._normal_V3 = np.empty_like(person.shape.neutral_V3)

    def landmarks(self, vertex_V3: np.ndarray) -> np.ndarray:
        """The five landmarks of a posed face in the head's axes, `[5, 3]`."""
        head = load_head()
        corners = list(head.mouth_corners)
        return np.concatenate([self._eye_centre_23, vertex_V3[[head.nose_tip]], vertex_V3[corners]])

    def render(
        self, intensity_A: np.ndarray, pose: Pose, rng: np.random.Generator | None = None
    ) -> np.ndarray:
        """Draws a frame, uint8 `[112, 112, 3]`, sRGB.

        Args:
            intensity_A: intensity of each of `head.ACTION_UNITS`, 0 to 1.
            pose: of head and eyes.
            rng: source of the landmarks' disturbance and of the noise; None for neither.
        """
        scene, looks = self.scene, self.person.appearance
        vertex_V3 = self.person.shape.pose(intensity_A)
        turn_33 = rotation(pose.yaw, pose.pitch, pose.roll)
        mark_L3 = project(self.landmarks(vertex_V3), turn_33, scene.distance)
        scale, shift = similarity(mark_L3[:, :2], TEMPLATE_L2)
        if rng is not None:
            disturbed_L2 = TEMPLATE_L2 + rng.normal(0, scene.landmark_noise_px, (5, 2))
            scale2, shift2 = similarity(TEMPLATE_L2, disturbed_L2)
            scale, shift = scale2 * scale, scale2 * shift + shift2

        def to_screen(place_V3: np.ndarray) -> np.ndarray:
            projected_V3 = project(place_V3, turn_33, scene.distance)
            z_V = scale * (projected_V3[:, 0] + 1j * projected_V3[:, 1]) + shift
            # Pixel (0, 0) has its centre at coordinate (0, 0); a sample's centre lies between.
            x_V = SUPERSAMPLING * (z_V.real + 0.5) - 0.5
            y_V = SUPERSAMPLING * (z_V.imag + 0.5) - 0.5
            return np.stack([x_V, y_V, projected_V3[:, 2]], axis=1).astype(np.float32)

        screen_V3 = to_screen(vertex_V3)
        self._nearness_YX.fill(0)
        self._id_YX.fill(-1)
        self._lash_id_YX.fill(-1)
        seen = (self._nearness_YX, self._id_YX, self._weight_YX2)
        seen_lashes = (self._nearness_YX, self._lash_id_YX, self._lash_weight_YX2)
        rasterise(screen_V3, self._triangle_T3, True, 0, _NO_COVER, _NO_STRANDS, *seen)
        hair = self.person.hair
        if len(hair.vertex_V3):
            place_V3, first = to_screen(hair.vertex_V3), len(self._part_T)
            rasterise(place_V3, hair.triangle_T3, False, first, hair.cover_V2, hair.tip_S, *seen)
        rasterise(screen_V3, self._lash_T3, False, 0, _NO_COVER, _NO_STRANDS, *seen_lashes)
        head = load_head()
        vertex_normals(vertex_V3, head.triangle_T3, self._normal_V3)

        relief_HW3 = skin.relief(intensity_A, looks.fold_strength, looks.permanent_fold)
        view_3 = turn_33.T @ np.array([0.0, 0.0, 1.0])
        settings_6 = np.array([looks.gloss, 0.75 * looks.lash_density, *view_3, 0], np.float32)
        sclera_3 = np.array([0.60, 0.57, 0.54], np.float32)
        colours_43 = np.stack(
            [looks.lip_colour_3, looks.iris_colour_3, looks.hair_colour_3, sclera_3]
        )
        shade(
            self._id_YX,
            self._weight_YX2,
            self._lash_id_YX,
            self._triangle_T3,
            self._part_T,
            self._normal_V3,
            self._map_V2,
            head.lips_V,
            head.inside_mouth_V,
            head.openness_V,
            self._eye_V3,
            looks.albedo_HW3,
            relief_HW3,
            gaze_directions(pose, turn_33),
            colours_43,
            hair.triangle_T3,
            self._hair_normal_V3,
            hair.cover_V2,
            hair.grain_SG,
            scene.lights_in(turn_33),
            settings_6,
            scene.background_at(pose.yaw, pose.pitch),
            self._colour_YX3,
        )
        pixel_yx3 = np.empty((CROP_SIZE, CROP_SIZE, 3), np.uint8)
        noise_yx3 = np.zeros((CROP_SIZE, CROP_SIZE, 3), np.float32)
        if rng is not None:
            noise_yx3 = rng.standard_normal(noise_yx3.shape, np.float32)
            noise_yx3 *= np.float32(scene.noise)
        finish(
            self._colour_YX3,
            np.float32(scene.exposure),
            np.float32(scene.saturation),
            np.float32(scene.blur),
            noise_yx3,
            pixel_yx3,
        )
        return pixel_yx3


def warm_up() -> None:
    """Compiles what drawing needs, so that it is in numba's cache before workers start."""
    rng = np.random.default_rng(0)
    person = make_person(rng)
    Renderer(person, sample_scene(rng)).render(np.zeros(len(ACTION_UNITS)), Pose(), rng)
