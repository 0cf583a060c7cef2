"""The files of a data set: label files in the layout of s-Aff-Wild2, and `dataset.json`.

One line per labelled image: `video/frame.jpg,valence,arousal,expression,au1,...,au26`, below a
header that names the AUs in one word. A missing valence or arousal is -5, a missing expression or
AU -1. Letters: F frames and U action units as in `annotate`; R frames of a split.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np

from data_pipeline.rendered_faces import annotate, hard, motion
from data_pipeline.rendered_faces.annotate import Labels
from data_pipeline.rendered_faces.plan import DUPLICATE_SHARE, FRAME_STEPS, SPLITS, Video
from mtl_face import files
from mtl_face.errors import WorkdirError
from mtl_face.tasks import AU, AU_NAMES, EXPR, EXPRESSION_NAMES, TASKS, VA

HEADER = "image,valence,arousal,expression,aus"
IMAGE_FOLDER = "cropped_aligned"
ANNOTATION_FILES = {
    "train": "training_set_annotations.txt",
    "val": "validation_set_annotations.txt",
}
TEST_LIST_FILE = "MTL_Challenge_test_set_release.txt"
TRUTH_FILES = {
    "train": "training_set_truth.txt",
    "val": "validation_set_truth.txt",
    "test": "test_set_truth.txt",
}

NOISE_HEADER = "image,va_std"
NOISE_FILES = {
    "train": "training_set_noise.txt",
    "val": "validation_set_noise.txt",
}
"""Written where the noise on valence and arousal differs from frame to frame."""

HARD_HEADER = "image,hard,strength"
HARD_FILES = {
    "train": "training_set_hard.txt",
    "val": "validation_set_hard.txt",
    "test": "test_set_hard.txt",
}
"""Written for dense videos: what makes a frame hard to read (`hard.KINDS` or none)."""


def image_name(video: str, frame: int) -> str:
    """Name of an image as the label files spell it."""
    return f"{video}/{frame:05d}.jpg"


def annotation_lines(
    video: str, frame_F: np.ndarray, labels: Labels, repeats_F: np.ndarray
) -> list[str]:
    """The lines of one video; labels that a frame lacks become the markers of the format.

    `repeats_F` tells how often each frame's line is written: the original has duplicates.
    """
    columns = {task: labels.has_FK[:, index] for index, task in enumerate(TASKS)}
    lines = []
    for row, frame in enumerate(frame_F):
        va = [f"{value:.6g}" for value in labels.va_F2[row]] if columns[VA][row] else ["-5", "-5"]
        expression = str(labels.expr_F[row]) if columns[EXPR][row] else "-1"
        units = [str(unit) if columns[AU][row] else "-1" for unit in labels.au_FU[row]]
        lines.append(",".join([image_name(video, int(frame)), *va, expression, *units]))
    return np.repeat(lines, repeats_F).tolist()


def noise_lines(
    video: str, frame_F: np.ndarray, va_std_F: np.ndarray, repeats_F: np.ndarray
) -> list[str]:
    """The lines of one video with the noise of its frames; rows as in `annotation_lines`."""
    rows = zip(frame_F.tolist(), va_std_F.tolist(), strict=True)
    lines = [f"{image_name(video, frame)},{std:.6g}" for frame, std in rows]
    return np.repeat(lines, repeats_F).tolist()


def hard_lines(video: Video) -> list[str]:
    """The lines of one video with what makes its frames hard; rows as in `annotation_lines`."""
    if video.hardship is None:
        return []
    rows = zip(
        video.motion.frame_F.tolist(),
        video.hardship.kind_F.tolist(),
        video.hardship.strength_F.tolist(),
        strict=True,
    )
    words = (*hard.KINDS, "none")  # -1: none
    lines = [
        f"{image_name(video.name, frame)},{words[kind]},{strength:.3g}"
        for frame, kind, strength in rows
    ]
    return np.repeat(lines, video.repeats_F).tolist()


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
    """The content of `dataset.json`: of a plan, its arguments and its counts (`count_labels`)."""
    va_noise: dict[str, Any] = {"va_std": annotate.VA_NOISE_STD}
    if arguments.get("va_noise", "constant") != "constant":
        va_noise = {
            "va_std_ahead_and_turned": list(annotate.VA_NOISE_YAW_STD),
            "turned_from_yaw_degrees": annotate.VA_NOISE_YAW_DEG,
        }
    frames: dict[str, Any] = {"frame_gap": {"median": motion.GAP_MEDIAN, "mean": motion.GAP_MEAN}}
    step = FRAME_STEPS[arguments.get("density", "sparse")]
    if step is not None:
        frames = {
            "frame_gap": {
                "step": step,
                "lost_every_frames": motion.LOST_EVERY_FRAMES,
                "lost_frames": list(motion.LOST_FRAMES),
            },
            "rater": {
                "delay_frames": list(annotate.RATER_DELAY_FRAMES),
                "response_frames": annotate.RATER_RESPONSE_FRAMES,
                "drift_frames": annotate.RATER_DRIFT_FRAMES,
            },
        }
    return {
        "name": "rendered_faces",
        "generator_version": GENERATOR_VERSION,
        "notice": NOTICE,
        "arguments": arguments,
        "noise": {
            **va_noise,
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
        **frames,
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


def is_rendered(root: Path) -> bool:
    """Whether a folder holds the data set; a description that cannot be read is none."""
    try:
        return "generator_version" in (read_description(root) or {})
    except WorkdirError:
        return False


def read_description(root: Path) -> dict[str, Any] | None:
    """The description of a data set, or None where there is none; raises WorkdirError."""
    path = Path(root) / DESCRIPTION_FILE
    try:
        description = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise WorkdirError(
            f"cannot be read as the description of a data set: {files.reason(error)}",
            path=path,
            remedy="restore the file; if the folder is a data set of your own, name its data.kind, "
            "else name a new or empty folder as data.root",
        ) from error
    return description if isinstance(description, dict) else {}
