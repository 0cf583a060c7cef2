"""Annotation files, predictions and submissions of the same rows, for the tests of the scorer."""

import dataclasses
from pathlib import Path

import numpy as np
from evaluation_tables import make_labels, make_predictions

from mtl_face.evaluation import prediction_files
from mtl_face.tables import FrameTable, PredictionTable
from mtl_face.tasks import AU_NUMBERS

HEADER = "image,valence,arousal,expression,aus"


def as_read(labels: FrameTable) -> FrameTable:
    """Labels as the multi-task format can hold them: missing for a whole task at a time."""
    no_va = np.isnan(labels.valence) | np.isnan(labels.arousal)
    missing = np.float32(np.nan)
    return dataclasses.replace(
        labels,
        valence=np.where(no_va, missing, labels.valence),
        arousal=np.where(no_va, missing, labels.arousal),
    )


def make_rows(num_rows: int = 200, *, seed: int = 0) -> tuple[FrameTable, PredictionTable]:
    """Labels of videos of ten frames, and predictions of them."""
    labels = as_read(make_labels(num_rows, seed=seed))
    table = make_predictions(labels)
    clipped = {name: np.clip(getattr(table, name), -1, 1) for name in ("valence", "arousal")}
    return labels, dataclasses.replace(table, **clipped)


def write_truth(path: Path, labels: FrameTable) -> Path:
    lines = [HEADER]
    for i, (video, frame) in enumerate(zip(labels.video, labels.frame, strict=True)):
        va = [labels.valence[i], labels.arousal[i]]
        cells = ["-5" if np.isnan(value) else str(value) for value in va]
        cells.append(str(labels.expression[i]))
        cells += ["-1" if np.isnan(value) else str(int(value)) for value in labels.au[i]]
        lines.append(f"{video}/{frame:05d}.jpg," + ",".join(cells))
    path.write_text("\n".join(lines) + "\n")
    return path


def submission_lines(table: PredictionTable) -> list[str]:
    lines = [HEADER]
    for i in range(len(table)):
        values = [table.valence[i], table.arousal[i], table.expression[i]]
        cells = [str(value) for value in (*values, *table.au[i])]
        lines.append(",".join([str(table.image[i]), *cells]))
    return lines


def write_submission(path: Path, table: PredictionTable) -> Path:
    path.write_text("\n".join(submission_lines(table)) + "\n")
    return path


def write_au_submission(path: Path, table: PredictionTable) -> Path:
    """A file of the action unit track of later editions."""
    lines = ["image_location," + ",".join(f"AU{number}" for number in AU_NUMBERS)]
    for image, row in zip(table.image, table.au.tolist(), strict=True):
        lines.append(",".join([str(image), *map(str, row)]))
    path.write_text("\n".join(lines) + "\n")
    return path


def write_va_folder(folder: Path, labels: FrameTable) -> Path:
    """Labels of the valence-arousal track: a file a video, line i + 1 for frame i."""
    folder.mkdir()
    for video in np.unique(labels.video):
        rows = np.flatnonzero(labels.video == video)
        lines = ["-5,-5"] * int(labels.frame[rows].max())
        for row in rows:
            if not np.isnan(labels.valence[row]):
                lines[labels.frame[row] - 1] = f"{labels.valence[row]},{labels.arousal[row]}"
        (folder / f"{video}.txt").write_text("\n".join(["valence,arousal", *lines]) + "\n")
    return folder


def write_predictions(path: Path, table: PredictionTable) -> Path:
    prediction_files.write(table, path)
    return path


def write_files(folder: Path, num_rows: int, *names: str) -> PredictionTable:
    """Writes `truth.txt`, and predictions of its rows, which are returned, under each name."""
    labels, table = make_rows(num_rows)
    write_truth(folder / "truth.txt", labels)
    for name in names:
        prediction_files.write(table, folder / name)
    return table
