"""What a person looks like apart from shape: skin, brows, eyes, lips, stubble and hair.

Colours are linear RGB in 0..1. Letters: H rows, W columns, C colour channels.
"""

from dataclasses import dataclass

import numpy as np

from data_pipeline.rendered_faces import brows, skin
from data_pipeline.rendered_faces.head import Shape

_SKIN_SRGB = np.array(
    [
        [243, 214, 196],
        [232, 195, 170],
        [217, 172, 142],
        [193, 144, 112],
        [160, 112, 82],
        [122, 82, 59],
        [88, 57, 42],
    ]
)
"""Skin colours from the lightest to the darkest."""

_HAIR_SRGB = np.array(
    [
        [26, 22, 21],
        [44, 33, 28],
        [72, 50, 36],
        [112, 78, 50],
        [165, 125, 80],
        [205, 170, 120],
        [120, 60, 35],
        [150, 148, 145],
        [215, 213, 208],
    ]
)
"""Hair colours: black, browns, blondes, red, grey, white."""

_IRIS_SRGB = np.array(
    [[52, 32, 20], [80, 50, 28], [110, 80, 45], [85, 100, 70], [90, 125, 150], [110, 125, 135]]
)

HAIR_STYLES = ("bald", "buzz", "short", "fringe", "side", "long", "long_fringe", "up")


def to_linear(srgb: np.ndarray) -> np.ndarray:
    """Linear colour of 8-bit sRGB values (gamma 2.2)."""
    return (np.asarray(srgb, float) / 255) ** 2.2


@dataclass(frozen=True)
class Appearance:
    """The looks of one person.

    Attributes:
        albedo_HW3: float32 linear colour of the skin in the canonical map, brows painted in.
        lip_colour_3, hair_colour_3, iris_colour_3: linear colours.
        hair_style: one of `HAIR_STYLES`.
        hairline: how far the hairline lies above its usual place, decimetres.
        gloss: strength of the skin's highlight.
        fold_strength: how deeply the skin folds; about 1.
        permanent_fold: depth of the folds that stay in a neutral face, decimetres.
        lash_density: 0..1.
    """

    albedo_HW3: np.ndarray
    lip_colour_3: np.ndarray
    hair_colour_3: np.ndarray
    iris_colour_3: np.ndarray
    hair_style: str
    hairline: float
    gloss: float
    fold_strength: float
    permanent_fold: float
    lash_density: float


def _skin_tone(shape: Shape, rng: np.random.Generator) -> np.ndarray:
    african, asian, caucasian = shape.ancestry
    depth = 5.2 * african + 2.0 * asian + 1.0 * caucasian + rng.normal(0, 0.7)
    depth = float(np.clip(depth, 0, len(_SKIN_SRGB) - 1.001))
    low = int(depth)
    tone_3 = _SKIN_SRGB[low] + (depth - low) * (_SKIN_SRGB[low + 1] - _SKIN_SRGB[low])
    return to_linear(tone_3 + rng.normal(0, 3, 3))


def sample_appearance(shape: Shape, rng: np.random.Generator) -> Appearance:
    """Draws the looks of a person of the given shape."""
    x_HW, y_HW = skin.texel_places()
    tone_3 = _skin_tone(shape, rng)
    darkness = 1 - float(tone_3.mean() ** (1 / 2.2))

    fair = shape.ancestry[2] > 0.55
    if shape.old > 0.5 and rng.random() < 0.6:
        hair_index = int(rng.integers(7, 9))
    else:
        hair_index = int(rng.integers(0, 7)) if fair else int(rng.integers(0, 3))
    hair_3 = to_linear(_HAIR_SRGB[hair_index] * rng.uniform(0.85, 1.15))
    iris_index = int(rng.integers(0, 6)) if fair else int(rng.integers(0, 2))

    albedo_HW3 = np.ones((skin.HEIGHT, skin.WIDTH, 3)) * tone_3
    mottle_HW = (
        0.035 * skin.smooth_noise(rng, 6, 6)
        + 0.025 * skin.smooth_noise(rng, 24, 24)
        + 0.02 * skin.smooth_noise(rng, 90, 90)
    )
    albedo_HW3 *= 1 + mottle_HW[..., None]

    # Blood shows in the cheeks, the nose and the ears, more so in fair skin.
    blush = rng.uniform(0.3, 1.0) * (1 - 0.6 * darkness)
    red_HW = np.exp(-(((np.abs(x_HW) - 0.36) / 0.16) ** 2) - ((y_HW - 6.95) / 0.16) ** 2)
    red_HW += 0.7 * np.exp(-((x_HW / 0.1) ** 2) - ((y_HW - 6.93) / 0.1) ** 2)
    albedo_HW3 *= 1 + blush * red_HW[..., None] * np.array([0.02, -0.17, -0.15])
    # Darker skin around the eyes.
    tired = rng.uniform(0.05, 0.22)
    socket_HW = np.exp(-(((np.abs(x_HW) - 0.28) / 0.16) ** 2) - ((y_HW - 7.2) / 0.09) ** 2)
    albedo_HW3 *= 1 - tired * socket_HW[..., None] * np.array([0.8, 1.0, 0.95])

    freckles = 30 * max(0.0, rng.normal(-0.3, 1)) if fair else 0
    for _ in range(int(freckles) + int(rng.integers(0, 4))):
        column, row = rng.integers(60, skin.WIDTH - 60), rng.integers(70, skin.HEIGHT - 70)
        albedo_HW3[row : row + 2, column : column + 2] *= rng.uniform(0.65, 0.9)

    # Stubble or a beard on the jaw, around the mouth and above the lip.
    if shape.masculine > 0.5 and rng.random() < 0.6:
        growth = rng.uniform(0.12, 0.45) if rng.random() < 0.75 else rng.uniform(0.5, 0.75)
        jaw_HW = np.clip(
            (6.72 - 0.16 * np.exp(-((x_HW / 0.30) ** 2)) - y_HW) / 0.16
            + 1.4 * np.clip(np.abs(x_HW) - 0.42, 0, 0.3) / 0.3 * (y_HW < 7.1),
            0,
            1,
        )
        lip_HW = np.exp(-((x_HW / 0.2) ** 4) - ((y_HW - 6.775) / 0.045) ** 2)
        grain_HW = np.clip(0.85 + 0.25 * skin.smooth_noise(rng, 110, 110), 0, 1)
        cover_HW = np.clip(np.maximum(jaw_HW, lip_HW), 0, 1) * growth * grain_HW
        beard_3 = 0.7 * hair_3 + 0.3 * 0.3 * tone_3
        albedo_HW3 += cover_HW[..., None] * (beard_3 - albedo_HW3)

    brow = brows.Brow(
        density=float(np.clip(rng.normal(0.72, 0.12), 0.45, 0.92)),
        thickness=float(rng.uniform(0.026, 0.04) * (0.85 + 0.3 * shape.masculine)),
        arch=float(rng.uniform(0.015, 0.05)),
        lift=float(rng.normal(0.0, 0.012)),
    )
    brow_colour_3 = 0.75 * hair_3 + 0.25 * 0.4 * tone_3
    if hair_index == 8:
        brow_colour_3 = to_linear(np.array([130, 125, 120]))
    cover_HW = brows.brow_map(brow, rng)
    albedo_HW3 += cover_HW[..., None] * (brow_colour_3 - albedo_HW3)

    # Short hair shows as a shade on the scalp, which also softens the edge of longer hair.
    style = _hair_style(shape, rng)
    hairline = float(rng.normal(0, 0.05) + 0.05 * shape.masculine * shape.old)
    if style != "bald":
        edge_HW = scalp_edge(x_HW, hairline)
        shade_HW = np.clip((y_HW - edge_HW + 0.03 * skin.smooth_noise(rng, 60, 90)) / 0.12, 0, 1)
        shade_HW *= 0.75 if style == "buzz" else 0.9
        albedo_HW3 += shade_HW[..., None] * (hair_3 - albedo_HW3)

    lip_3 = tone_3 * np.array([0.92, 0.62, 0.64])
    if shape.masculine < 0.5 and rng.random() < 0.5:
        paint_3 = to_linear(np.array([rng.uniform(150, 205), rng.uniform(50, 95), 85]))
        lip_3 = lip_3 + rng.uniform(0.3, 0.8) * (paint_3 - lip_3)
    return Appearance(
        albedo_HW3=np.clip(albedo_HW3, 0.004, 1).astype(np.float32),
        lip_colour_3=lip_3.astype(np.float32),
        hair_colour_3=hair_3.astype(np.float32),
        iris_colour_3=to_linear(_IRIS_SRGB[iris_index] * rng.uniform(0.85, 1.15)).astype(
            np.float32
        ),
        hair_style=style,
        hairline=hairline,
        gloss=float(rng.uniform(0.05, 0.22)),
        fold_strength=float(rng.uniform(0.8, 1.15)),
        permanent_fold=float(0.0025 * shape.old * rng.uniform(0.3, 1)),
        lash_density=float(
            rng.uniform(0.55, 0.95) if shape.masculine < 0.5 else rng.uniform(0.25, 0.5)
        ),
    )


def scalp_edge(x_HW: np.ndarray, hairline: float) -> np.ndarray:
    """Height of the hairline over the mean head's front, decimetres."""
    side_HW = np.abs(x_HW)
    return 7.93 + hairline - 0.10 * (side_HW / 0.5) ** 2 - 2.6 * np.clip(side_HW - 0.56, 0, 1)


def _hair_style(shape: Shape, rng: np.random.Generator) -> str:
    if shape.masculine > 0.5:
        weights = [0.12, 0.2, 0.3, 0.12, 0.2, 0.04, 0.02, 0.0]
    else:
        weights = [0.0, 0.03, 0.1, 0.08, 0.12, 0.32, 0.17, 0.18]
    return str(rng.choice(HAIR_STYLES, p=np.array(weights) / sum(weights)))
