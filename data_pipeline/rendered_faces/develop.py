"""The compiled sensor: from samples of light to the 8-bit picture.

Letters: Y and X rows and columns of samples, y and x of pixels.
"""

import numpy as np

from data_pipeline.rendered_faces.raster import compiled

_GAMMA = (np.arange(4097) / 4096).astype(np.float32) ** np.float32(1 / 2.2)
"""Encoded value of each of 4096 steps of light: a table is faster than a power."""


@compiled
def finish(linear_YX3, exposure, saturation, blur, noise_yx3, out_yx3):
    """Averages 2 x 2 samples to a pixel, blurs, adds noise and stores 8-bit sRGB (gamma 2.2).

    Args:
        linear_YX3: float32 samples, twice as many in each direction as pixels.
        exposure: factor on the light.
        saturation: 1 leaves colours as they are, 0 makes grey.
        blur: weight of each neighbour in a 3-tap blur, 0 to 1/3.
        noise_yx3: float32 noise in units of 8-bit values.
        out_yx3: uint8 pixels, written.
    """
    height, width = out_yx3.shape[0], out_yx3.shape[1]
    pixel = np.empty((height, width, 3), np.float32)
    for y in range(height):
        for x in range(width):
            for c in range(3):
                pixel[y, x, c] = (
                    exposure
                    * np.float32(0.25)
                    * (
                        linear_YX3[2 * y, 2 * x, c]
                        + linear_YX3[2 * y, 2 * x + 1, c]
                        + linear_YX3[2 * y + 1, 2 * x, c]
                        + linear_YX3[2 * y + 1, 2 * x + 1, c]
                    )
                )
    middle = np.float32(1) - np.float32(2) * blur
    across = np.empty_like(pixel)
    for y in range(height):
        for x in range(width):
            before, after = max(x - 1, 0), min(x + 1, width - 1)
            for c in range(3):
                across[y, x, c] = middle * pixel[y, x, c] + blur * (
                    pixel[y, before, c] + pixel[y, after, c]
                )
    for y in range(height):
        before, after = max(y - 1, 0), min(y + 1, height - 1)
        for x in range(width):
            grey = np.float32(0)
            for c in range(3):
                value = middle * across[y, x, c] + blur * (
                    across[before, x, c] + across[after, x, c]
                )
                # A soft shoulder: light above 0.8 is compressed instead of clipped.
                if value > np.float32(0.8):
                    over = value - np.float32(0.8)
                    value = np.float32(0.8) + over / (np.float32(1) + np.float32(5) * over)
                place = min(max(value, np.float32(0)), np.float32(0.999)) * np.float32(4096)
                low = int(place)
                value = _GAMMA[low] + (place - np.float32(low)) * (_GAMMA[low + 1] - _GAMMA[low])
                pixel[y, x, c] = value
                grey += value * np.float32(1 / 3)
            for c in range(3):
                value = grey + saturation * (pixel[y, x, c] - grey)
                level = np.float32(255) * value + noise_yx3[y, x, c]
                out_yx3[y, x, c] = np.uint8(min(max(level + np.float32(0.5), 0.0), 255.0))
