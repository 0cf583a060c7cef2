"""Draws a sheet to judge the data set by: people, action units, expressions and a video.

python -m benchmarks.rendered_faces_sheet docs/rendered_faces.png
"""

import argparse
import sys
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from data_pipeline.rendered_faces.camera import Pose
from data_pipeline.rendered_faces.head import intensities
from data_pipeline.rendered_faces.motion import PROTOTYPES, Card, sample_motion
from data_pipeline.rendered_faces.person import Person, make_person
from data_pipeline.rendered_faces.render import CROP_SIZE, Renderer
from data_pipeline.rendered_faces.scene import CANVAS, Scene, sample_scene
from mtl_face.tasks import AU_NUMBERS, EXPRESSION_NAMES

COLUMNS = 13
_CAPTION_HEIGHT = 13

Tile = tuple[str, np.ndarray]
"""Caption and picture."""


def plain_scene() -> Scene:
    """Even light before a grey wall, with a clean camera: for pictures that compare faces."""
    key = np.array([0.35, 0.45, 0.8])
    return Scene(
        distance=9.0,
        lights_63=np.array(
            [
                key / np.linalg.norm(key),
                [0.80, 0.77, 0.73],
                [-0.7, 0.1, 0.7],
                [0.14, 0.15, 0.17],
                [0.33, 0.34, 0.36],
                [0.16, 0.15, 0.14],
            ]
        ),
        background_YX3=np.full((CANVAS, CANVAS, 3), 0.18, np.float32),
        exposure=1.0,
        saturation=1.0,
        blur=0.06,
        noise=0.0,
        landmark_noise_px=0.0,
        jpeg_quality=95,
    )


def _person(seed: int, number: int) -> Person:
    return make_person(np.random.default_rng([seed, number]))


def neutral_row(seed: int, first: int) -> list[Tile]:
    """People with nothing moved, in even light."""
    return [
        ("", Renderer(_person(seed, first + number), plain_scene()).render(intensities({}), Pose()))
        for number in range(COLUMNS)
    ]


def action_unit_row(seed: int, number: int) -> list[Tile]:
    """One person at rest and with each action unit alone at full intensity."""
    renderer = Renderer(_person(seed, number), plain_scene())
    tiles = [("neutral", renderer.render(intensities({}), Pose()))]
    for unit in AU_NUMBERS:
        tiles.append((f"AU{unit}", renderer.render(intensities({unit: 1.0}), Pose())))
    return tiles


def expression_row(seed: int, number: int) -> list[Tile]:
    """One person in one scene, no noise: each expression, then further mixtures of `Other`."""
    rng = np.random.default_rng([seed, number, 1])
    renderer = Renderer(_person(seed, number), sample_scene(rng))
    shown = [(name, PROTOTYPES[name][0]) for name in EXPRESSION_NAMES]
    others = PROTOTYPES["Other"]
    spare = COLUMNS - len(shown)
    shown += [
        ("Other", others[(1 + number * spare + place) % len(others)]) for place in range(spare)
    ]
    return [(name, renderer.render(intensities(mixture), Pose())) for name, mixture in shown]


def video_row(seed: int, number: int) -> list[Tile]:
    """Consecutive frames of one video, with the frames' numbers."""
    rng = np.random.default_rng([seed, number, 2])
    renderer = Renderer(_person(seed, number), sample_scene(rng))
    motion = sample_motion(COLUMNS, [Card(4, 0), Card(6, 0), Card(5, 0)], rng)
    tiles = []
    for row, frame in enumerate(motion.frame_F):
        tiles.append(
            (f"frame {frame}", renderer.render(motion.intensity_FA[row], motion.pose(row), rng))
        )
    return tiles


def assemble(rows: list[list[Tile]]) -> Image.Image:
    """Puts rows of tiles with captions on one sheet."""
    height = CROP_SIZE + _CAPTION_HEIGHT
    sheet = Image.new("RGB", (COLUMNS * CROP_SIZE, len(rows) * height), "white")
    draw = ImageDraw.Draw(sheet)
    for y, row in enumerate(rows):
        for x, (caption, picture) in enumerate(row):
            sheet.paste(Image.fromarray(picture), (x * CROP_SIZE, y * height + _CAPTION_HEIGHT))
            draw.text((x * CROP_SIZE + 3, y * height), caption, fill="black")
    return sheet


def contact_sheet(seed: int = 0) -> Image.Image:
    """The whole sheet.

    Args:
        seed: chooses the people and scenes.
    """
    rows = [neutral_row(seed, 0), neutral_row(seed, COLUMNS)]
    rows += [action_unit_row(seed, number) for number in (1, 3)]
    rows += [expression_row(seed, number) for number in (8, 4, 9)]
    rows += [video_row(seed, number) for number in (11, 14)]
    return assemble(rows)


def main(argv: list[str] | None = None) -> int:
    """Entry point of the command."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("out", type=Path, help="PNG file to write")
    parser.add_argument("--seed", type=int, default=0, help="chooses the people and scenes")
    arguments = parser.parse_args(argv)
    # Six bits a channel: half the size, and no difference that one sees.
    sheet = contact_sheet(arguments.seed).point(
        [level & 0xFC | level >> 6 for level in range(256)] * 3
    )
    sheet.save(arguments.out, optimize=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
