"""A small data set in the s-Aff-Wild2 layout whose labels can be seen in the pixels."""

from pathlib import Path

import numpy as np
from PIL import Image

from mtl_face.tasks import AU_NAMES, EXPRESSION_NAMES

_HEADER = "image,valence,arousal,expression,aus"


def write(root: Path, *, rows: dict[str, int] | None = None, size: int = 32, seed: int = 0) -> Path:
    """Writes crops and annotation files.

    Brightness of the left and right half carry valence and arousal, the colour of a stripe the
    expression, twelve small squares the action units. About a third of each task is missing.
    """
    rows = rows or {"training": 40, "validation": 19}
    random = np.random.default_rng(seed)
    for split, count in rows.items():
        lines = [_HEADER]
        for index in range(count):
            video, frame = f"{split}_{index % 4}", 1 + 3 * (index // 4)
            va = random.uniform(-1, 1, 2)
            expression = int(random.integers(len(EXPRESSION_NAMES)))
            au = random.integers(0, 2, len(AU_NAMES))
            image = f"{video}/{frame:05}.jpg"
            _save(root / "cropped_aligned" / image, va, expression, au, size)
            missing = random.random(3) < 1 / 3
            if missing.all():
                missing[0] = False
            values = [
                *(["-5", "-5"] if missing[0] else [f"{v:.4f}" for v in va]),
                "-1" if missing[1] else str(expression),
                *(["-1"] * len(au) if missing[2] else map(str, au)),
            ]
            lines.append(",".join([image, *values]))
        (root / f"{split}_set_annotations.txt").write_text("\n".join(lines) + "\n")
    return root


def _save(path: Path, va: np.ndarray, expression: int, au: np.ndarray, size: int) -> None:
    pixels = np.empty((size, size, 3), np.uint8)
    pixels[:, : size // 2] = 128 + round(100 * va[0])
    pixels[:, size // 2 :] = 128 + round(100 * va[1])
    pixels[: size // 4] = [255 * (expression >> bit & 1) for bit in range(3)]
    step = size // 8
    for index, present in enumerate(au):
        row, column = size // 2 + step * (index // 6), step * (index % 6)
        pixels[row : row + step, column : column + step] = 255 * present
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path, quality=95)
