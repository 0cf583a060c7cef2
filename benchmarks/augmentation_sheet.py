"""Draws augmented crops by both ways of resampling, their difference, and MixUp.

    python -m benchmarks.augmentation_sheet crop1.jpg crop2.jpg --output docs/augmentation.png

The crops must be square and of one size; they are used in turn, two after two being partners in
MixUp. The first column is the resize alone.
"""

import argparse
from pathlib import Path

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
from PIL import Image

from mtl_face.config import AugmentationConfig
from mtl_face.objective import augment, mixup, resample

INPUT_SIZE = 224
COLUMNS = 8
GAIN = 8


def main() -> None:
    """Writes the picture."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("crops", nargs="+", type=Path, help="image files")
    parser.add_argument("--output", type=Path, default=Path("docs/augmentation.png"))
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()

    crops = [np.asarray(Image.open(path).convert("RGB")) for path in arguments.crops]
    image_BHWC = jnp.asarray(np.stack([crops[column % len(crops)] for column in range(COLUMNS)]))
    stored_size = image_BHWC.shape[1]
    geometry_key, mixup_key = jax.random.split(jax.random.key(arguments.seed))
    transform_B23 = augment.draw_transforms(
        geometry_key,
        COLUMNS,
        AugmentationConfig(),
        stored_size=stored_size,
        input_size=INPUT_SIZE,
    )
    identity_B23 = augment.identity_transforms(
        COLUMNS, stored_size=stored_size, input_size=INPUT_SIZE
    )
    transform_B23 = transform_B23.at[0].set(identity_B23[0])
    gathered, separable = (
        resample.resample(image_BHWC, transform_B23, input_size=INPUT_SIZE, method=method)
        for method in ("gather", "separable")
    )
    difference = jnp.abs(gathered - separable)
    mixed, _, _ = mixup.mixup(mixup_key, gathered, {}, {}, alpha=0.4)
    share = mixup.draw_shares(mixup_key, COLUMNS, alpha=0.4)
    rows = {
        "gather": gathered,
        "separable": separable,
        f"difference x {GAIN}": difference * GAIN,
        "MixUp": mixed,
    }

    figure, axes = plt.subplots(
        len(rows), COLUMNS, figsize=(1.5 * COLUMNS, 1.62 * len(rows)), layout="constrained"
    )
    for axis_row, (name, pictures) in zip(axes, rows.items(), strict=True):
        for column, (axis, picture) in enumerate(zip(axis_row, pictures, strict=True)):
            axis.imshow(np.clip(np.rint(picture), 0, 255).astype(np.uint8))
            axis.set(xticks=[], yticks=[])
            if name == "MixUp":
                axis.set_xlabel(f"share {share[column]:.2f}", fontsize=8)
            elif name.startswith("difference"):
                mean, largest = difference[column].mean(), difference[column].max()
                axis.set_xlabel(f"mean {mean:.2f}, max {largest:.0f}", fontsize=8)
        axis_row[0].set_ylabel(name)
    arguments.output.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(arguments.output, dpi=80)


if __name__ == "__main__":
    main()
