"""What a generated data set says about itself: `dataset.json`."""

import json
from pathlib import Path
from typing import Any

import numpy as np

from data_pipeline.rendered_faces import annotate, motion
from data_pipeline.rendered_faces.plan import DUPLICATE_SHARE, SPLITS, Video
from mtl_face.errors import WorkdirError
from mtl_face.tasks import AU_NAMES, EXPRESSION_NAMES

GENERATOR_VERSION = 6
"""Rises whenever the same arguments give other bytes."""

DESCRIPTION_FILE = "dataset.json"

NOTICE = (
    "Rendered faces with labels known by construction and noise of known size. They show that a "
    "system works from end to end and what its uncertainty is worth. Scores on them are no "
    "evidence of accuracy on people."
)


def count_labels(videos: list[Video]) -> dict[str, dict[str, Any]]:
    """What each split holds: rows, images, labels present, true classes and AUs."""
    counts: dict[str, dict[str, Any]] = {}
    for split in SPLITS:
        members = [video for video in videos if video.split == split]
        repeats_R = np.concatenate([video.repeats_F for video in members])
        has_RK = np.concatenate([video.annotations.has_FK for video in members])
        expr_R = np.concatenate([video.truth.expr_F for video in members])
        au_RU = np.concatenate([video.truth.au_FU for video in members])
        present_K = (has_RK * repeats_R[:, None]).sum(axis=0)
        counts[split] = {
            "videos": len(members),
            "identities": len({video.identity for video in members}),
            "images": len(repeats_R),
            "rows": int(repeats_R.sum()),
            "rows_with_va": int(present_K[0]),
            "rows_with_au": int(present_K[1]),
            "rows_with_expr": int(present_K[2]),
            "rows_with_all": int((has_RK.all(axis=1) * repeats_R).sum()),
            "true_expressions": {
                name: int((expr_R == index).sum()) for index, name in enumerate(EXPRESSION_NAMES)
            },
            "true_aus": {name: int(au_RU[:, index].sum()) for index, name in enumerate(AU_NAMES)},
        }
    return counts


def describe(
    videos: list[Video], arguments: dict[str, Any], counts: dict[str, dict[str, Any]]
) -> dict[str, Any]:
    """The content of `dataset.json`.

    Args:
        videos: the plan.
        arguments: what the data set was asked for with.
        counts: from `count_labels`.
    """
    return {
        "name": "rendered_faces",
        "generator_version": GENERATOR_VERSION,
        "notice": NOTICE,
        "arguments": arguments,
        "noise": {
            **_va_noise(arguments.get("va_noise", "constant")),
            "au_flip_probability": annotate.AU_FLIP_PROBABILITY,
            "expression_confusion_probability": annotate.EXPRESSION_CONFUSION_PROBABILITY,
        },
        "thresholds": {
            "au_visible": annotate.AU_VISIBLE,
            "expression_visible": annotate.EXPRESSION_VISIBLE,
        },
        "valence_weights": annotate.VALENCE_WEIGHTS,
        "arousal_weights": annotate.AROUSAL_WEIGHTS,
        "at_rest": [annotate.VALENCE_AT_REST, annotate.AROUSAL_AT_REST],
        "frame_gap": {"median": motion.GAP_MEDIAN, "mean": motion.GAP_MEAN},
        "duplicate_share": DUPLICATE_SHARE,
        "counts": counts,
        "videos": {
            video.name: {
                "split": video.split,
                "identity": video.identity,
                "scene": video.scene,
                "images": len(video.motion.frame_F),
            }
            for video in videos
        },
    }


def _va_noise(va_noise: str) -> dict[str, Any]:
    if va_noise == "constant":
        return {"va_std": annotate.VA_NOISE_STD}
    return {
        "va_std_ahead_and_turned": list(annotate.VA_NOISE_YAW_STD),
        "turned_from_yaw_degrees": annotate.VA_NOISE_YAW_DEG,
    }


def read_description(root: Path) -> dict[str, Any] | None:
    """The description of a data set, or None where there is none.

    Raises:
        WorkdirError: the description cannot be read.
    """
    path = Path(root) / DESCRIPTION_FILE
    try:
        description = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise WorkdirError(
            f"cannot be read as the description of a data set: {error}",
            path=path,
            remedy="delete the folder and generate the data set again",
        ) from error
    return description if isinstance(description, dict) else {}
