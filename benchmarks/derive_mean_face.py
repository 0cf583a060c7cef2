"""Derives the mean neutral face of `mtl_face.faces.geometry` from rendered faces.

    python run.py prepare --config=rendered_faces --config.data.root=FOLDER
    python -m benchmarks.derive_mean_face FOLDER

The packaged one is of `--config.data.rendered_faces.num_videos=1200`. The faces are those of the
training split whose true labels are Neutral without any action unit. Generalised Procrustes
analysis (Gower 1975) gives their mean, turned as the faces are on average; the best assignment
between it and its mirror image gives the point on the other side of each point, and the mean of
both a symmetric face. Letters: N faces, V mesh points, H W height and width.
"""

import argparse
import json
from pathlib import Path

import numpy as np
import safetensors.numpy
from PIL import Image
from scipy.optimize import linear_sum_assignment

from mtl_face.faces import geometry
from mtl_face.faces.crop_mesh import mesh_of_crops
from mtl_face.tasks import EXPRESSION_NAMES

ROUNDS = 8
SIDES = np.array([-1.0, 1.0, 1.0])


def neutral_images(folder: Path) -> list[Path]:
    """Crops of neutral faces of the training split of a data set of rendered faces."""
    images = []
    for line in (folder / "training_set_truth.txt").read_text().splitlines()[1:]:
        image, _, _, expression, *units = line.split(",")
        if int(expression) == EXPRESSION_NAMES.index("Neutral") and not any(map(float, units)):
            images.append(folder / "cropped_aligned" / image)
    return sorted(set(images))


def mean_shape(mesh_NV3: geometry.Points) -> tuple[geometry.Points, geometry.Points]:
    """The symmetric mean [V, 3] and the mirror [V] of meshes [N, V, 3]."""
    mean_V3 = mesh_NV3[0] - mesh_NV3[0].mean(axis=0)
    for _ in range(ROUNDS):
        mean_V3 /= np.linalg.norm(
            eye(mean_V3, geometry.RIGHT_EYE) - eye(mean_V3, geometry.LEFT_EYE)
        )
        mean_V3 = geometry.aligned(mesh_NV3, mean_V3)[0].mean(axis=0)
        mean_V3 -= mean_V3.mean(axis=0)
    left_33, _, right_33 = np.linalg.svd(geometry.aligned(mesh_NV3, mean_V3)[1].mean(axis=0))
    mean_V3 = mean_V3 @ (left_33 @ right_33).T
    for _ in range(ROUNDS):
        distance_VV = ((mean_V3[:, None] - mean_V3 * SIDES) ** 2).sum(axis=-1)
        mirror_V = linear_sum_assignment(distance_VV)[1]
        symmetric_V3 = (mean_V3 + mean_V3[mirror_V] * SIDES) / 2
        mean_V3 = geometry.aligned(mean_V3[None], symmetric_V3)[0][0]
    if not (mirror_V[mirror_V] == np.arange(len(mirror_V))).all():
        raise ValueError("the points do not form pairs: are there enough faces?")
    symmetric_V3 = (mean_V3 + mean_V3[mirror_V] * SIDES) / 2
    symmetric_V3 -= symmetric_V3.mean(axis=0)
    between = eye(symmetric_V3, geometry.RIGHT_EYE) - eye(symmetric_V3, geometry.LEFT_EYE)
    return symmetric_V3 / np.linalg.norm(between), mirror_V


def eye(point_V3: geometry.Points, corners: tuple[int, int]) -> geometry.Points:
    """Centre of an eye, [3]."""
    return point_V3[list(corners)].mean(axis=0)


def main() -> None:
    """Reads the command line, writes the file."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, help="a data set of rendered faces")
    parser.add_argument("--output", type=Path, default=geometry.MEAN_FACE)
    options = parser.parse_args()
    images = neutral_images(options.folder)
    print(f"{len(images):,} neutral faces")
    crop_NHW3 = np.stack([np.asarray(Image.open(image).convert("RGB")) for image in images])
    points_V3, mirror_V = mean_shape(mesh_of_crops(crop_NHW3).astype(np.float64))
    arrays = {"points": points_V3.astype(np.float32), "mirror": mirror_V.astype(np.int32)}
    about = json.loads((options.folder / "dataset.json").read_text())
    made_of = {name: about[name] for name in ("generator_version", "arguments")}
    metadata = {
        "what": "mean neutral face of MediaPipe's 468 points, in distances between its eyes",
        "made_by": "python -m benchmarks.derive_mean_face",
        "made_of": json.dumps({"faces": len(images), "rendered_faces": made_of}),
        "licence": "CC0 1.0 (the faces are rendered)",
    }
    options.output.write_bytes(safetensors.numpy.save(arrays, metadata))
    print(f"mean face: {options.output}")


if __name__ == "__main__":
    main()
