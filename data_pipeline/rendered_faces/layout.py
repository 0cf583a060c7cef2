"""Writes label files in the layout of s-Aff-Wild2.

One line per labelled image: `video/frame.jpg,valence,arousal,expression,au1,...,au26`, below a
header that names the AUs in one word. A missing valence or arousal is -5, a missing expression or
AU -1. Letters as in `annotate`.
"""

from collections.abc import Sequence

import numpy as np

from data_pipeline.rendered_faces.annotate import Labels
from mtl_face.tasks import AU, EXPR, TASKS, VA

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


def image_name(video: str, frame: int) -> str:
    """Name of an image as the label files spell it."""
    return f"{video}/{frame:05d}.jpg"


def annotation_lines(
    video: str, frame_F: np.ndarray, labels: Labels, repeats_F: np.ndarray
) -> list[str]:
    """The lines of one video.

    Args:
        video: name of the video.
        frame_F: frame numbers.
        labels: what to write; labels that a frame lacks become the markers of the format.
        repeats_F: how many times each frame's line is written (duplicates exist in the original).
    """
    columns = {task: labels.has_FK[:, index] for index, task in enumerate(TASKS)}
    lines = []
    for row, frame in enumerate(frame_F):
        va = [f"{value:.6g}" for value in labels.va_F2[row]] if columns[VA][row] else ["-5", "-5"]
        expression = str(labels.expr_F[row]) if columns[EXPR][row] else "-1"
        units = [str(unit) if columns[AU][row] else "-1" for unit in labels.au_FU[row]]
        line = ",".join([image_name(video, int(frame)), *va, expression, *units])
        lines.extend([line] * int(repeats_F[row]))
    return lines


def noise_lines(
    video: str, frame_F: np.ndarray, va_std_F: np.ndarray, repeats_F: np.ndarray
) -> list[str]:
    """The lines of one video that tell the noise of its frames; rows as in `annotation_lines`."""
    lines = []
    for row, frame in enumerate(frame_F):
        line = f"{image_name(video, int(frame))},{va_std_F[row]:.6g}"
        lines.extend([line] * int(repeats_F[row]))
    return lines


def file_text(header: str, lines: Sequence[str]) -> str:
    """A whole file: header, lines, final newline."""
    return "\n".join([header, *lines]) + "\n"
