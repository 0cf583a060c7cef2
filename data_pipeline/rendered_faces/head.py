"""The parametric head: loads the asset, gives identities their shape and moves the face.

Letters: V vertices, T triangles, S shapes, A action units (`ACTION_UNITS`). Positions are in
decimetres: x to the person's left, y up, z forward.
"""

import functools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from data_pipeline.rendered_faces.raster import blend
from mtl_face.tasks import AU_NUMBERS

ASSET_PATH = Path(__file__).parent / "assets" / "head.npz"

ACTION_UNITS = (*AU_NUMBERS, 5, 9, 14, 20, 45)
"""FACS number of each of the 17 action units that move the face, in the order of intensities.

The last five are not annotated: upper lid raiser, nose wrinkler, dimpler, lip stretcher, blink."""

SCALP_CENTRE = (0.0, 7.55, 0.35)
"""Centre of the grid of directions in which hair is rooted, decimetres."""

SCALP_LAST_ANGLE_DEG = 140.0
"""Polar angle of the grid's last row; the first row looks straight up."""

SKIN, EYE, TEETH, TONGUE, LASH = range(5)
"""Codes of the parts of the mesh."""

_UNIT_SHAPES: dict[int, dict[str, float]] = {
    1: {"browInnerUp": 1.7},
    2: {"browOuterUp": 1.5, "browInnerUp": 0.3},
    4: {"browDown": 1.25},
    6: {"cheekSquint": 1.15},
    7: {"eyeSquint": 1.35},
    10: {"mouthUpperUp": 1.5},
    12: {"mouthSmile": 1.0},
    15: {"mouthFrown": 1.35},
    23: {"mouthRollLower": 0.95, "mouthRollUpper": 0.95, "mouthPucker": 0.12},
    24: {
        "mouthPress": 0.35,
        "mouthRollLower": 0.3,
        "mouthRollUpper": 0.3,
        "mouthShrugLower": 1.1,
        "mouthFrown": 0.3,
        "mouthPucker": 0.2,
    },
    25: {"mouthLowerDown": 1.55, "mouthUpperUp": 0.3, "jawOpen": 0.06},
    26: {"jawOpen": 0.62},
    5: {"eyeWide": 1.2},
    9: {"noseSneer": 1.3},
    14: {"mouthDimple": 1.1},
    20: {"mouthStretch": 1.1},
    45: {"eyeBlink": 1.0},
}
"""Blend shapes of each action unit, on both sides where they have sides, and their weights at
intensity 1. Weights above 1 make visible at 112 pixels what the shapes move by a millimetre or two.
"""


def intensities(by_number: Mapping[int, float]) -> np.ndarray:
    """Numbers by FACS number, such as intensities, in the order of `ACTION_UNITS`, float64 `[A]`.

    0 for units that are not named.
    """
    return np.array([by_number.get(number, 0.0) for number in ACTION_UNITS])


@dataclass(frozen=True)
class Head:
    """The asset, read only. `benchmarks/derive_rendered_faces_asset.py` made the arrays."""

    mean_V3: np.ndarray
    base_V3: np.ndarray
    triangle_T3: np.ndarray
    part_T: np.ndarray
    part_V: np.ndarray
    openness_V: np.ndarray
    lips_V: np.ndarray
    ears_V: np.ndarray
    inside_mouth_V: np.ndarray
    unit_SV3: dict[str, np.ndarray]
    macro_SV3: dict[str, np.ndarray]
    local_SV3: dict[str, np.ndarray]
    scalp_RC3: np.ndarray
    scalp_weight_RC3: np.ndarray

    @functools.cached_property
    def nose_tip(self) -> int:
        """Vertex of the nose tip: the foremost of the mean head between mouth and eyes."""
        height_V = self.mean_V3[:, 1]
        middle_V = (height_V > 6.75) & (height_V < 7.15) & (self.part_V == SKIN)
        return int(np.argmax(np.where(middle_V, self.mean_V3[:, 2], -np.inf)))

    @functools.cached_property
    def mouth_corners(self) -> tuple[int, int]:
        """Vertices of the mouth corners: the person's right, then left."""
        x_V = np.where(self.lips_V > 0.5, self.mean_V3[:, 0], 0.0)
        return int(np.argmin(x_V)), int(np.argmax(x_V))

    @functools.cached_property
    def eyes(self) -> tuple[np.ndarray, np.ndarray]:
        """Vertex indices of the person's right and left eyeball."""
        eye_V = self.part_V == EYE
        return (
            np.flatnonzero(eye_V & (self.mean_V3[:, 0] < 0)),
            np.flatnonzero(eye_V & (self.mean_V3[:, 0] > 0)),
        )


@functools.cache
def load_head() -> Head:
    """Loads the head asset, once in a process."""
    with np.load(ASSET_PATH, allow_pickle=False) as asset:
        arrays = {name: asset[name] for name in asset.files}

    def shapes(kind: str) -> dict[str, np.ndarray]:
        names, offset_SV3 = arrays[f"{kind}_names"], arrays[f"{kind}_SV3"]
        return {
            str(name): offset_V3.astype(np.float32) / 1000
            for name, offset_V3 in zip(names, offset_SV3, strict=True)
        }

    fractions = ("openness_V", "lips_V", "ears_V", "inside_mouth_V")
    numbers = ("triangle_T3", "part_T", "part_V", "scalp_RC3")
    return Head(
        **{name: arrays[name] for name in ("mean_V3", "base_V3", "scalp_weight_RC3")},
        **{name: arrays[name].astype(np.float32) / 255 for name in fractions},
        **{name: arrays[name].astype(np.int32) for name in numbers},
        unit_SV3=shapes("unit"),
        macro_SV3=shapes("macro"),
        local_SV3=shapes("local"),
    )


@dataclass(frozen=True)
class Shape:
    """The bony and fleshy shape of one person.

    Attributes:
        neutral_V3: float32 vertices with every action unit at rest, decimetres.
        unit_AV3: float32 displacement of each action unit at intensity 1.
        masculine: 0 (feminine) to 1 (masculine).
        old: 0 (young) to 1 (old).
        ancestry: weights of the african, asian and caucasian macro shapes; sum 1.
    """

    neutral_V3: np.ndarray
    unit_AV3: np.ndarray
    masculine: float
    old: float
    ancestry: tuple[float, float, float]

    def pose(self, intensity_A: np.ndarray) -> np.ndarray:
        """Vertices at the given intensities (0 to 1, order of `ACTION_UNITS`), `[V, 3]`."""
        out_V3 = np.empty_like(self.neutral_V3)
        blend(self.neutral_V3, self.unit_AV3, intensity_A.astype(np.float32), out_V3)
        return out_V3


_LOCAL_SPREAD = {
    "head": 0.18,
    "forehead": 0.35,
    "eye": 0.35,
    "eyebrows": 0.2,
    "nose": 0.28,
    "mouth": 0.3,
    "chin": 0.28,
    "cheek": 0.3,
    "ear": 0.22,
}
"""Standard deviation of the weights of the local shapes of each region."""

_LOCAL_LEFT_OUT = (
    "mouth-upperlip-ext",
    "mouth-lowerlip-ext",
    "mouth-angles",  # a permanent smile or frown would contradict AU12 and AU15
    "head-trans",
    "mouth-dimples",
    "eyebrows-angle",  # a permanent AU1 or AU4
    "eyebrows-trans-down",
    "mouth-trans",
    "eye-height",  # a permanent AU5 or AU7
    "ear-shape-pointed",
    "head-age",
)

_BROWS = ("browDown", "browInnerUp", "browOuterUp")
_EYES = ("eyeSquint", "eyeWide", "eyeBlink", "cheekSquint")
_MOUTH = (
    *("mouthSmile", "mouthFrown", "mouthUpperUp", "mouthLowerDown", "mouthStretch", "mouthDimple"),
    *("mouthPress", "mouthRollLower", "mouthRollUpper", "mouthPucker", "mouthShrugLower"),
    *("mouthShrugUpper", "jawOpen", "jawForward"),
)
"""Blend shapes that a unit of the region may move too."""

_SIDE_MOVEMENTS = 3
_SIDE_MOVEMENT_STD = 0.15
"""How many of them a person's unit moves, and the standard deviation of their weights."""

_SMILES = {
    "mouthSmile": (-0.4, 0.1),
    "mouthUpperUp": (0.0, 1.4),
    "mouthLowerDown": (0.0, 0.8),
    "jawOpen": (0.0, 0.2),
    "mouthStretch": (0.0, 0.7),
    "mouthDimple": (0.0, 0.5),
    "cheekSquint": (0.0, 0.5),
    "eyeSquint": (0.0, 0.3),
    "noseSneer": (0.0, 0.3),
}
"""Ranges of what a person's AU12 adds to that of all."""

_REST = {"mouthSmile": 0.07, "browInnerUp": 0.12, "jawOpen": -0.04}
"""What makes the sculpted face, which looks a little stern, neutral; part of everybody's rest."""


def sample_shape(rng: np.random.Generator, *, individual: bool = False) -> Shape:
    """Draws a shape: every region varied around a mixture of the macro shapes.

    With `individual` the person also has a way of moving, see `individual_movement`.
    """
    head = load_head()
    masculine = float(np.clip(rng.beta(0.5, 0.5), 0.05, 0.95))
    old = float(rng.beta(1.0, 2.2))
    ancestry_3 = rng.dirichlet([0.55, 0.55, 0.75])
    vertex_V3 = head.base_V3.copy()
    for name, offset_V3 in head.macro_SV3.items():
        kind, gender, age = name.split("-")[:3]
        weight = masculine if gender == "male" else 1 - masculine
        weight *= old if age == "old" else 1 - old
        if kind != "universal":
            weight *= ancestry_3[("african", "asian", "caucasian").index(kind)]
        vertex_V3 += np.float32(weight) * offset_V3
    for name, offset_V3 in head.local_SV3.items():
        if name.startswith(_LOCAL_LEFT_OUT):
            continue
        spread = _LOCAL_SPREAD[name.split("-")[0]]
        # Shapes come as opposite pairs (incr, decr): half of a normal for each makes one normal.
        vertex_V3 += np.float32(min(max(rng.normal(0, spread), 0.0), 1.0)) * offset_V3
    for offset_V3, weight, _ in _offsets(_REST):
        vertex_V3 += np.float32(weight) * offset_V3
    basis_AV3 = action_unit_basis(rng.normal(0, 0.1, len(ACTION_UNITS)))
    if individual:
        basis_AV3 += individual_movement(np.random.default_rng(rng.integers(2**32)))
    return Shape(
        neutral_V3=vertex_V3.astype(np.float32),
        unit_AV3=basis_AV3,
        masculine=masculine,
        old=old,
        ancestry=(float(ancestry_3[0]), float(ancestry_3[1]), float(ancestry_3[2])),
    )


def individual_movement(rng: np.random.Generator) -> np.ndarray:
    """How one person's action units differ from those of all, float32 `[A, V, 3]`.

    Each unit moves a little of what lies around it too. Above all people smile in different ways:
    with closed or with open lips, the upper one raised as far as to show the gums, which is then
    a part of AU12 and no AU10, as the manual of the Facial Action Coding System has it.
    """
    unit_AV3 = np.zeros((len(ACTION_UNITS), *load_head().base_V3.shape), np.float32)
    for index, number in enumerate(ACTION_UNITS):
        nearby = _BROWS if number in (1, 2, 4) else _EYES if number in (5, 6, 7, 45) else _MOUTH
        names = rng.choice(nearby, _SIDE_MOVEMENTS, replace=False)
        spread = rng.normal(0, _SIDE_MOVEMENT_STD, len(names))
        limit = 2 * _SIDE_MOVEMENT_STD
        weights = {
            str(name): float(np.clip(weight, -limit, limit))
            for name, weight in zip(names, spread, strict=True)
        }
        if number == 12:
            for name, (low, high) in _SMILES.items():
                weights[name] = weights.get(name, 0.0) + rng.uniform(low, high)
        for offset_V3, weight, _ in _offsets(weights):
            unit_AV3[index] += np.float32(weight) * offset_V3
    return unit_AV3


def action_unit_basis(asymmetry_A: np.ndarray) -> np.ndarray:
    """Displacement of each action unit at intensity 1, float32 `[A, V, 3]`.

    `asymmetry_A` is how much stronger (positive) or weaker each unit is on the left side.
    """
    head = load_head()
    unit_AV3 = np.zeros((len(ACTION_UNITS), *head.base_V3.shape), np.float32)
    for index, number in enumerate(ACTION_UNITS):
        asymmetry = float(np.clip(asymmetry_A[index], -0.2, 0.2))
        for offset_V3, weight, side in _offsets(_UNIT_SHAPES[number]):
            unit_AV3[index] += np.float32(weight * (1 + side * asymmetry)) * offset_V3
    return unit_AV3


def _offsets(weights: dict[str, float]) -> Iterator[tuple[np.ndarray, float, int]]:
    """Offsets of blend shapes `[V, 3]`, with their weight and side: 1 left, -1 right, 0 neither."""
    shapes = load_head().unit_SV3
    for name, weight in weights.items():
        for suffix, side in (("Left", 1), ("Right", -1), ("", 0)):
            if name + suffix in shapes:
                yield shapes[name + suffix], weight, side
