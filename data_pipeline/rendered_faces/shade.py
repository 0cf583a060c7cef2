"""The compiled shading: from the buffer of nearest surfaces to colours.

All directions are in the head's own axes, so that nothing but the lights has to turn with it.
Letters: V vertices, T triangles, Y and X rows and columns of the supersampled picture, H and W
rows and columns of the skin maps. Colours are linear RGB.
"""

import numba
import numpy as np

from data_pipeline.rendered_faces.raster import compiled, within

# Codes of the parts (head.py), repeated as numbers that the compiler sees as constants.
_SKIN, _EYE, _TEETH, _TONGUE = 0, 1, 2, 3


@numba.njit(inline="always", fastmath=True)
def _ramp(low, high, value):
    part = (value - low) / (high - low)
    part = min(max(part, np.float32(0)), np.float32(1))
    return part * part * (np.float32(3) - np.float32(2) * part)


@numba.njit(inline="always", fastmath=True)
def _texel(map_HW3, row, column, weights):
    """The three channels between four texels."""
    return (
        _channel(map_HW3, row, column, weights, 0),
        _channel(map_HW3, row, column, weights, 1),
        _channel(map_HW3, row, column, weights, 2),
    )


@numba.njit(inline="always", fastmath=True)
def _channel(map_HW3, row, column, weights, channel):
    m00, m01, m10, m11 = weights
    return (
        m00 * map_HW3[row, column, channel]
        + m01 * map_HW3[row, column + 1, channel]
        + m10 * map_HW3[row + 1, column, channel]
        + m11 * map_HW3[row + 1, column + 1, channel]
    )


@numba.njit(inline="always", fastmath=True)
def _matte(lights_63, channel, diffuse, fill, up, openness):
    """Light of one channel that a white surface scatters."""
    return (
        diffuse * lights_63[1, channel]
        + fill * lights_63[3, channel]
        + openness * (up * lights_63[4, channel] + (np.float32(1) - up) * lights_63[5, channel])
    )


@compiled
def shade(
    id_YX,
    weight_YX2,
    lash_id_YX,
    triangle_T3,
    part_T,
    normal_V3,
    map_V2,
    lips_V,
    inside_V,
    openness_V,
    eye_V3,
    albedo_HW3,
    relief_HW3,
    gaze_23,
    colours_43,
    hair_triangle_T3,
    hair_normal_V3,
    hair_cover_V2,
    grain_SG,
    lights_63,
    settings_6,
    background_YX3,
    out_YX3,
):
    """Colours every sample.

    Args:
        id_YX: what `raster.rasterise` wrote; hair has identifiers from `len(part_T)` on.
        weight_YX2: likewise.
        lash_id_YX: identifiers of lashes, -1 where there are none.
        triangle_T3: triangles of the head.
        part_T: their parts (`head.SKIN` and so on).
        normal_V3: unit normals of the head's vertices.
        map_V2: their places in the skin maps, texels.
        lips_V: how much each belongs to the lips, 0 to 1.
        inside_V: how much each belongs to the inside of the mouth, 0 to 1.
        openness_V: how much of the surroundings each sees, 0 to 1.
        eye_V3: direction from the eyeball's centre, for vertices of the eyes.
        albedo_HW3: the map of the skin's colour.
        relief_HW3: the map of its folds (`skin.relief`).
        gaze_23: direction in which the person's right and left eye look.
        colours_43: lips, iris, hair, sclera.
        hair_triangle_T3: triangles of the hair.
        hair_normal_V3: unit normals of its vertices.
        hair_cover_V2: their places around the head and along the strand.
        grain_SG: brightness along each strand.
        lights_63: key direction, key colour, fill direction, fill colour, colours from above
            and below.
        settings_6: gloss, lash density, and the view direction; one spare.
        background_YX3: colours behind the head.
        out_YX3: float32, written.
    """
    height, width = id_YX.shape
    rows, columns = albedo_HW3.shape[0], albedo_HW3.shape[1]
    num_head = part_T.shape[0]
    num_strands, num_steps = grain_SG.shape
    gloss, lash_density = settings_6[0], settings_6[1]
    vx, vy, vz = settings_6[2], settings_6[3], settings_6[4]
    kx, ky, kz = lights_63[0, 0], lights_63[0, 1], lights_63[0, 2]
    fx, fy, fz = lights_63[2, 0], lights_63[2, 1], lights_63[2, 2]
    hx, hy, hz = kx + vx, ky + vy, kz + vz
    norm = np.float32(1) / np.sqrt(hx * hx + hy * hy + hz * hz)
    hx, hy, hz = hx * norm, hy * norm, hz * norm
    one = np.float32(1)
    half = np.float32(0.5)
    for y in range(height):
        for x in range(width):
            found = id_YX[y, x]
            if found < 0:
                for channel in range(3):
                    out_YX3[y, x, channel] = background_YX3[y, x, channel]
                continue
            w1, w2 = weight_YX2[y, x, 0], weight_YX2[y, x, 1]
            w0 = one - w1 - w2
            weights = (w0, w1, w2)
            if found >= num_head:
                t = found - num_head
                a, b, c = hair_triangle_T3[t, 0], hair_triangle_T3[t, 1], hair_triangle_T3[t, 2]
                normals = hair_normal_V3
                part = -1
            else:
                a, b, c = triangle_T3[found, 0], triangle_T3[found, 1], triangle_T3[found, 2]
                normals = normal_V3
                part = part_T[found]
            corners = (a, b, c)
            nx = within(normals, corners, weights, 0)
            ny = within(normals, corners, weights, 1)
            nz = within(normals, corners, weights, 2)
            openness = one
            shine = np.float32(0)
            sharp = np.float32(0)
            wrap_r, wrap_g, wrap_b = np.float32(0.1), np.float32(0.1), np.float32(0.1)
            if part == _SKIN:
                u = within(map_V2, corners, weights, 0)
                v = within(map_V2, corners, weights, 1)
                u = min(max(u, np.float32(0)), np.float32(columns - 1.001))
                v = min(max(v, np.float32(0)), np.float32(rows - 1.001))
                iu, iv = int(u), int(v)
                pu, pv = u - np.float32(iu), v - np.float32(iv)
                texels = ((one - pu) * (one - pv), pu * (one - pv), (one - pu) * pv, pu * pv)
                red, green, blue = _texel(albedo_HW3, iv, iu, texels)
                slope_u, slope_v, groove = _texel(relief_HW3, iv, iu, texels)
                lips = w0 * lips_V[a] + w1 * lips_V[b] + w2 * lips_V[c]
                inside = w0 * inside_V[a] + w1 * inside_V[b] + w2 * inside_V[c]
                openness = w0 * openness_V[a] + w1 * openness_V[b] + w2 * openness_V[c]
                openness = np.float32(0.25) + np.float32(0.75) * openness
                shine = gloss
                sharp = np.float32(14)
                wrap_r, wrap_g, wrap_b = np.float32(0.32), np.float32(0.18), np.float32(0.13)
                if inside > 0.5:
                    red, green, blue = np.float32(0.035), np.float32(0.008), np.float32(0.007)
                    openness = np.float32(0.3)
                    shine = np.float32(0)
                else:
                    mix = _ramp(np.float32(0.3), np.float32(0.7), lips)
                    red += mix * (colours_43[0, 0] - red)
                    green += mix * (colours_43[0, 1] - green)
                    blue += mix * (colours_43[0, 2] - blue)
                    shine += np.float32(0.12) * mix
                    fade = one - np.float32(0.75) * mix
                    # Tangents of the map: right as seen from the front, and upward.
                    length = np.sqrt(nx * nx + nz * nz) + np.float32(1e-6)
                    tx, tz = nz / length, -nx / length
                    bx, by, bz = ny * tz, nz * tx - nx * tz, -ny * tx
                    nx -= fade * (slope_u * tx + slope_v * bx)
                    ny -= fade * slope_v * by
                    nz -= fade * (slope_u * tz + slope_v * bz)
                    dark = one - np.float32(0.6) * min(groove * fade, one)
                    red *= np.float32(0.35) + np.float32(0.65) * dark
                    green *= dark
                    blue *= dark
            elif part == _EYE:
                dx = within(eye_V3, corners, weights, 0)
                dy = within(eye_V3, corners, weights, 1)
                dz = within(eye_V3, corners, weights, 2)
                scale = one / np.sqrt(dx * dx + dy * dy + dz * dz + np.float32(1e-9))
                dx, dy, dz = dx * scale, dy * scale, dz * scale
                eye = 1 if map_V2[a, 0] > np.float32(columns) * half else 0
                forward = dx * gaze_23[eye, 0] + dy * gaze_23[eye, 1] + dz * gaze_23[eye, 2]
                off_axis = np.sqrt(max(one - forward * forward, np.float32(0)))
                nx, ny, nz = dx, dy, dz
                red, green, blue = colours_43[3, 0], colours_43[3, 1], colours_43[3, 2]
                rim = _ramp(np.float32(0.46), np.float32(0.40), off_axis)
                ring = np.float32(0.35) + np.float32(0.65) * _ramp(
                    np.float32(0.44), np.float32(0.32), off_axis
                )
                red += rim * (colours_43[1, 0] * ring - red)
                green += rim * (colours_43[1, 1] * ring - green)
                blue += rim * (colours_43[1, 2] * ring - blue)
                pupil = _ramp(np.float32(0.20), np.float32(0.15), off_axis)
                keep = one - np.float32(0.96) * pupil
                red, green, blue = red * keep, green * keep, blue * keep
                # The lids shade the upper part of the eye.
                openness = np.float32(0.62) + np.float32(0.38) * _ramp(
                    np.float32(0.42), np.float32(-0.1), dy
                )
                shine = np.float32(0.8)
                sharp = np.float32(120)
                wrap_r, wrap_g, wrap_b = np.float32(0.4), np.float32(0.4), np.float32(0.4)
            elif part == _TEETH:
                red, green, blue = np.float32(0.68), np.float32(0.62), np.float32(0.53)
                # The teeth of the model lean in under the lip; light finds real ones.
                nx, ny, nz = nx * half, ny * np.float32(0.2), abs(nz) + half
                openness = np.float32(0.7)
                wrap_r, wrap_g, wrap_b = np.float32(0.5), np.float32(0.5), np.float32(0.5)
            elif part == _TONGUE:
                red, green, blue = np.float32(0.10), np.float32(0.025), np.float32(0.023)
                openness = np.float32(0.4)
            else:
                around = within(hair_cover_V2, corners, weights, 0)
                along = within(hair_cover_V2, corners, weights, 1)
                strand = int(around * num_strands) % num_strands
                step = min(int(along * np.float32(num_steps / 140.0)), num_steps - 1)
                grain = grain_SG[strand, step]
                red = colours_43[2, 0] * grain
                green = colours_43[2, 1] * grain
                blue = colours_43[2, 2] * grain
                shine = np.float32(0.10) * grain * grain
                sharp = np.float32(9)
            scale = one / np.sqrt(nx * nx + ny * ny + nz * nz + np.float32(1e-9))
            nx, ny, nz = nx * scale, ny * scale, nz * scale
            if part == -1 and nx * vx + ny * vy + nz * vz < 0:
                nx, ny, nz = -nx, -ny, -nz
            key = nx * kx + ny * ky + nz * kz
            fill = max(nx * fx + ny * fy + nz * fz, np.float32(0))
            up = half + half * ny
            spec = np.float32(0)
            if shine > 0:
                facing = max(nx * hx + ny * hy + nz * hz, np.float32(0))
                # Schlick's rational form of a power: several times faster.
                lobe = facing / (half * sharp * (one - facing) + facing)
                spec = shine * lobe * lobe * openness
            partly = half + half * openness
            diffuse_r = max((key + wrap_r) / (one + wrap_r), np.float32(0)) * partly
            diffuse_g = max((key + wrap_g) / (one + wrap_g), np.float32(0)) * partly
            diffuse_b = max((key + wrap_b) / (one + wrap_b), np.float32(0)) * partly
            red *= _matte(lights_63, 0, diffuse_r, fill, up, openness)
            green *= _matte(lights_63, 1, diffuse_g, fill, up, openness)
            blue *= _matte(lights_63, 2, diffuse_b, fill, up, openness)
            red += spec * lights_63[1, 0]
            green += spec * lights_63[1, 1]
            blue += spec * lights_63[1, 2]
            keep = one - lash_density if lash_id_YX[y, x] >= 0 and part != -1 else one
            out_YX3[y, x, 0] = red * keep
            out_YX3[y, x, 1] = green * keep
            out_YX3[y, x, 2] = blue * keep
