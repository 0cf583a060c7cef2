"""Rays against the mean head, for deriving the asset: open sky above vertices, roots of hair.

Letters: V vertices, T triangles, R rays, P points of the direction grid, C candidate vertices.
"""

import numba
import numpy as np

from data_pipeline.rendered_faces.head import SCALP_CENTRE, SCALP_LAST_ANGLE_DEG

SCALP_ROWS = 28
SCALP_COLUMNS = 64


@numba.njit
def nearest_hit(origin, direction, vertex_V3, triangle_T3, skip_T):
    """Index, distance and barycentric weights of the nearest triangle that a ray meets."""
    best = -1
    best_distance = 1e9
    best_u = 0.0
    best_v = 0.0
    for t in range(triangle_T3.shape[0]):
        if skip_T[t]:
            continue
        a, b, c = triangle_T3[t, 0], triangle_T3[t, 1], triangle_T3[t, 2]
        ex = vertex_V3[b, 0] - vertex_V3[a, 0]
        ey = vertex_V3[b, 1] - vertex_V3[a, 1]
        ez = vertex_V3[b, 2] - vertex_V3[a, 2]
        fx = vertex_V3[c, 0] - vertex_V3[a, 0]
        fy = vertex_V3[c, 1] - vertex_V3[a, 1]
        fz = vertex_V3[c, 2] - vertex_V3[a, 2]
        px = direction[1] * fz - direction[2] * fy
        py = direction[2] * fx - direction[0] * fz
        pz = direction[0] * fy - direction[1] * fx
        det = ex * px + ey * py + ez * pz
        if abs(det) < 1e-12:
            continue
        s0 = origin[0] - vertex_V3[a, 0]
        s1 = origin[1] - vertex_V3[a, 1]
        s2 = origin[2] - vertex_V3[a, 2]
        u = (s0 * px + s1 * py + s2 * pz) / det
        if u < 0.0 or u > 1.0:
            continue
        qx = s1 * ez - s2 * ey
        qy = s2 * ex - s0 * ez
        qz = s0 * ey - s1 * ex
        v = (direction[0] * qx + direction[1] * qy + direction[2] * qz) / det
        if v < 0.0 or u + v > 1.0:
            continue
        distance = (fx * qx + fy * qy + fz * qz) / det
        if 1e-4 < distance < best_distance:
            best, best_distance, best_u, best_v = t, distance, u, v
    return best, best_distance, best_u, best_v


@numba.njit(parallel=True)
def openness(vertex_V3, normal_V3, triangle_T3, skip_T, direction_R3, reach):
    """Cosine-weighted share of the hemisphere above each vertex that is open, `[V]` in 0..1."""
    count = vertex_V3.shape[0]
    open_V = np.zeros(count)
    for v in numba.prange(count):
        origin = vertex_V3[v] + normal_V3[v] * 0.004
        total = 0.0
        free = 0.0
        for r in range(direction_R3.shape[0]):
            cosine = np.sum(direction_R3[r] * normal_V3[v])
            if cosine <= 0.05:
                continue
            total += cosine
            hit, distance, _, _ = nearest_hit(
                origin, direction_R3[r], vertex_V3, triangle_T3, skip_T
            )
            free += cosine * (1.0 if hit < 0 else min(1.0, distance / reach))
        open_V[v] = free / max(total, 1e-9)
    return open_V


def sphere_directions(count: int) -> np.ndarray:
    """Evenly spread unit vectors (Fibonacci sphere), `[count, 3]`."""
    index_R = np.arange(count) + 0.5
    height_R = 1 - 2 * index_R / count
    angle_R = np.pi * (1 + 5**0.5) * index_R
    radius_R = np.sqrt(1 - height_R**2)
    return np.stack([radius_R * np.cos(angle_R), height_R, radius_R * np.sin(angle_R)], axis=1)


def vertex_normals(vertex_V3: np.ndarray, triangle_T3: np.ndarray) -> np.ndarray:
    """Area-weighted unit normals, `[V, 3]`."""
    corner_T33 = vertex_V3[triangle_T3]
    face_T3 = np.cross(corner_T33[:, 1] - corner_T33[:, 0], corner_T33[:, 2] - corner_T33[:, 0])
    normal_V3 = np.zeros_like(vertex_V3)
    for corner in range(3):
        np.add.at(normal_V3, triangle_T3[:, corner], face_T3)
    return normal_V3 / np.maximum(np.linalg.norm(normal_V3, axis=1, keepdims=True), 1e-12)


def scalp_anchors(vertex_V3, triangle_T3, part_T, ears_V, inside_V):
    """Anchor of each node of a direction grid around the head: 3 vertices and their weights.

    Row 0 looks straight up, the last row `SCALP_LAST_ANGLE_DEG` away from that; column 0 looks
    backward and the columns go round by the person's right side. Where a ray meets only an ear,
    the nearest vertex of the bare head stands in.
    """
    bare_T = (part_T == 0) & (ears_V[triangle_T3].max(1) < 64) & (inside_V[triangle_T3].max(1) < 64)
    centre = np.array(SCALP_CENTRE)
    candidate_C = np.unique(triangle_T3[bare_T])
    toward_C3 = vertex_V3[candidate_C] - centre
    toward_C3 /= np.linalg.norm(toward_C3, axis=1, keepdims=True)
    node_P3 = np.zeros((SCALP_ROWS * SCALP_COLUMNS, 3), np.int32)
    weight_P3 = np.zeros((SCALP_ROWS * SCALP_COLUMNS, 3), np.float32)
    for row in range(SCALP_ROWS):
        polar = np.radians(SCALP_LAST_ANGLE_DEG) * (row + 0.05) / (SCALP_ROWS - 1 + 0.05)
        for column in range(SCALP_COLUMNS):
            azimuth = 2 * np.pi * column / SCALP_COLUMNS - np.pi
            direction = np.array(
                [
                    np.sin(polar) * np.sin(azimuth),
                    np.cos(polar),
                    np.sin(polar) * np.cos(azimuth),
                ]
            )
            hit, _, u, v = nearest_hit(centre, direction, vertex_V3, triangle_T3, ~bare_T)
            point = row * SCALP_COLUMNS + column
            if hit >= 0:
                node_P3[point] = triangle_T3[hit]
                weight_P3[point] = (1 - u - v, u, v)
            else:
                nearest = np.argsort(-(toward_C3 @ direction))[:3]
                node_P3[point] = candidate_C[nearest]
                weight_P3[point] = 1 / 3
    shape = (SCALP_ROWS, SCALP_COLUMNS, 3)
    return node_P3.reshape(shape), weight_P3.reshape(shape)
