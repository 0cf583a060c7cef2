"""Brows, painted as soft hair on the skin maps. Letters: H rows, W columns of the maps."""

from dataclasses import dataclass

import numpy as np

from data_pipeline.rendered_faces import skin


@dataclass(frozen=True)
class Brow:
    """How a person's brows look.

    Attributes:
        density: 0 (none) to 1 (opaque) at the thickest.
        thickness: half thickness at the inner end, decimetres.
        arch: how far the arch rises above the straight line, decimetres.
        lift: how far the whole brow lies above its usual place, decimetres.
    """

    density: float
    thickness: float
    arch: float
    lift: float


def brow_map(brow: Brow, rng: np.random.Generator) -> np.ndarray:
    """Coverage of the skin by brow hair, `[H, W]` in 0..1."""
    x_HW, y_HW = skin.texel_places()
    cover_HW = np.zeros((skin.HEIGHT, skin.WIDTH))
    hairs_HW = skin.smooth_noise(rng, 72, 110)
    base = 7.435 + brow.lift
    # The inner end lies level with the outer third: a brow that dips inward reads as a frown.
    points = [
        (0.105, base),
        (0.22, base + 0.55 * brow.arch + 0.012),
        (0.35, base + brow.arch + 0.012),
        (0.47, base + 0.15 * brow.arch - 0.02),
    ]
    for side in (1, -1):
        box = skin.box_of((side * x_HW > 0.0) & (side * x_HW < 0.6) & (np.abs(y_HW - base) < 0.2))
        distance_HW, along_HW = skin.distance_to_curve(side * x_HW[box], y_HW[box], points)
        half_HW = brow.thickness * np.interp(along_HW, [0, 0.12, 0.6, 1], [0.75, 1.0, 0.85, 0.25])
        edge_HW = distance_HW / half_HW + 0.16 * hairs_HW[box]
        soft_HW = np.clip(1.45 - edge_HW, 0, 1)
        fade_HW = np.interp(along_HW, [0.0, 0.10, 0.85, 1.0], [0.35, 0.95, 0.9, 0.4])
        cover_HW[box] = np.maximum(cover_HW[box], soft_HW * fade_HW)
    return np.clip(cover_HW * brow.density * (1 + 0.14 * hairs_HW), 0, 1)
