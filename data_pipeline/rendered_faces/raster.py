"""The compiled rasteriser: triangles to a buffer of the nearest surface at each sample.

Letters: V vertices, T triangles, Y and X rows and columns of the (supersampled) picture. Screen
positions are in samples, x to the right and y down; `nearness` grows toward the camera.
"""

import numba
import numpy as np


def compiled(function):
    """Compiles a function on its first call and keeps the result on disk where it can be kept."""
    try:
        return numba.njit(cache=True, fastmath=True)(function)
    except RuntimeError:
        # Neither the package's folder nor the user's cache can be written.
        return numba.njit(fastmath=True)(function)


@compiled
def blend(neutral_V3, unit_AV3, intensity_A, out_V3):
    """Writes `neutral + sum over A of intensity x unit`; always adds in the same order."""
    # Number by number: `out_V3[:] = neutral_V3` has an error message, which takes numba 4 s.
    for v in range(out_V3.shape[0]):
        for axis in range(3):
            out_V3[v, axis] = neutral_V3[v, axis]
    for a in range(unit_AV3.shape[0]):
        weight = intensity_A[a]
        if weight != 0:
            for v in range(out_V3.shape[0]):
                out_V3[v, 0] += weight * unit_AV3[a, v, 0]
                out_V3[v, 1] += weight * unit_AV3[a, v, 1]
                out_V3[v, 2] += weight * unit_AV3[a, v, 2]


@compiled
def vertex_normals(vertex_V3, triangle_T3, normal_V3):
    """Writes area-weighted unit normals of a mesh into `normal_V3`."""
    normal_V3[:] = 0.0
    for t in range(triangle_T3.shape[0]):
        a, b, c = triangle_T3[t, 0], triangle_T3[t, 1], triangle_T3[t, 2]
        ux = vertex_V3[b, 0] - vertex_V3[a, 0]
        uy = vertex_V3[b, 1] - vertex_V3[a, 1]
        uz = vertex_V3[b, 2] - vertex_V3[a, 2]
        vx = vertex_V3[c, 0] - vertex_V3[a, 0]
        vy = vertex_V3[c, 1] - vertex_V3[a, 1]
        vz = vertex_V3[c, 2] - vertex_V3[a, 2]
        nx = uy * vz - uz * vy
        ny = uz * vx - ux * vz
        nz = ux * vy - uy * vx
        for corner in (a, b, c):
            normal_V3[corner, 0] += nx
            normal_V3[corner, 1] += ny
            normal_V3[corner, 2] += nz
    for v in range(normal_V3.shape[0]):
        length = np.sqrt(normal_V3[v, 0] ** 2 + normal_V3[v, 1] ** 2 + normal_V3[v, 2] ** 2)
        scale = np.float32(1.0) / max(length, np.float32(1e-12))
        for axis in range(3):
            normal_V3[v, axis] *= scale


@numba.njit(inline="always", fastmath=True)
def within(value_V3, corners, weights, axis):
    """Value of one axis at a place in a triangle."""
    a, b, c = corners
    w0, w1, w2 = weights
    return w0 * value_V3[a, axis] + w1 * value_V3[b, axis] + w2 * value_V3[c, axis]


@compiled
def rasterise(
    screen_V3, triangle_T3, cull, first_id, cover_V2, tip_S, nearness_YX, id_YX, weight_YX2
):
    """Draws a mesh into the buffers.

    Args:
        screen_V3: float32 x, y, nearness of each vertex.
        triangle_T3: int32 vertex indices.
        cull: whether triangles that turn away from the camera are left out.
        first_id: identifier of triangle 0 in `id_YX`.
        cover_V2: float32 strand coordinate in 0..1 (around the head) and distance along the
            strand; used for hair only.
        tip_S: float32 length at which each strand ends; empty for a mesh without holes.
        nearness_YX: float32 depth buffer, updated.
        id_YX: int32 identifiers, updated.
        weight_YX2: float32 barycentric weights of corners 1 and 2, updated.
    """
    height, width = nearness_YX.shape
    num_strands = tip_S.shape[0]
    for t in range(triangle_T3.shape[0]):
        a, b, c = triangle_T3[t, 0], triangle_T3[t, 1], triangle_T3[t, 2]
        ax, ay, az = screen_V3[a, 0], screen_V3[a, 1], screen_V3[a, 2]
        bx, by, bz = screen_V3[b, 0], screen_V3[b, 1], screen_V3[b, 2]
        cx, cy, cz = screen_V3[c, 0], screen_V3[c, 1], screen_V3[c, 2]
        area = (bx - ax) * (cy - ay) - (by - ay) * (cx - ax)
        # y points down, so that a triangle wound anticlockwise in space has negative area here.
        if area > -1e-9 and (cull or area < 1e-9):
            continue
        left = max(0, int(np.ceil(min(ax, bx, cx))))
        right = min(width - 1, int(np.floor(max(ax, bx, cx))))
        top = max(0, int(np.ceil(min(ay, by, cy))))
        bottom = min(height - 1, int(np.floor(max(ay, by, cy))))
        if left > right or top > bottom:
            continue
        inverse = np.float32(1.0) / area
        step1 = (cy - ay) * inverse
        step2 = -(by - ay) * inverse
        for y in range(top, bottom + 1):
            dy = np.float32(y) - ay
            dx = np.float32(left) - ax
            weight1 = (dx * (cy - ay) - dy * (cx - ax)) * inverse
            weight2 = (dy * (bx - ax) - dx * (by - ay)) * inverse
            for x in range(left, right + 1):
                weight0 = np.float32(1.0) - weight1 - weight2
                if weight0 >= 0 and weight1 >= 0 and weight2 >= 0:
                    near = weight0 * az + weight1 * bz + weight2 * cz
                    if near > nearness_YX[y, x]:
                        visible = True
                        if num_strands > 0:
                            corners, weights = (a, b, c), (weight0, weight1, weight2)
                            around = within(cover_V2, corners, weights, 0)
                            strand = int(around * num_strands) % num_strands
                            visible = within(cover_V2, corners, weights, 1) < tip_S[strand]
                        if visible:
                            nearness_YX[y, x] = near
                            id_YX[y, x] = first_id + t
                            weight_YX2[y, x, 0] = weight1
                            weight_YX2[y, x, 1] = weight2
                weight1 += step1
                weight2 += step2
