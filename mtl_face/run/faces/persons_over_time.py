"""Answers of a network over time to the persons of a video, when all of its frames are known."""

import contextlib
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from data_pipeline import windows
from mtl_face import files
from mtl_face.inference.predictor import Predictor
from mtl_face.inference.stream import Seen
from mtl_face.tables import FrameTable, PredictionTable


def answers(predictor: Predictor, parts: Iterable[Seen], folder: Path) -> PredictionTable | None:
    """The answer to each face, from a window of frames of the same person.

    Args:
        predictor: a network over time.
        parts: the rows of one source, frame after frame, with what `Predictor.read` gives of them.
        folder: where that is laid down meanwhile, in files that have no name.

    Returns:
        A row for each face, in their order; None if there is none.

    Raises:
        WorkdirError: the folder cannot be written.
    """
    with contextlib.ExitStack() as stack:
        written: dict[str, Any] = {}
        like: dict[str, NDArray[Any]] = {}
        persons, frames = [], []
        try:
            for part in parts:
                named = part.table.take(part.table.has_face)
                persons.append(named.person)
                frames.append(named.frame)
                for name, array in part.arrays.items():
                    if name not in written:
                        like[name] = array[:0]
                        written[name] = stack.enter_context(tempfile.TemporaryFile(dir=folder))
                    written[name].write(array.tobytes())
            for file in written.values():
                file.flush()
        except OSError as error:
            raise files.unwritable(folder, error) from error
        person_N, frame_N = np.concatenate(persons), np.concatenate(frames)
        if not len(person_N):
            return None
        arrays = {
            name: np.memmap(
                file, like[name].dtype, "r", shape=(len(person_N), *like[name].shape[1:])
            )
            for name, file in written.items()
        }
        table = FrameTable.from_columns(
            dataset="faces",
            video=person_N.astype(str),
            frame=frame_N,
            image=[""] * len(person_N),
            root=".",
            sort=False,
        )
        temporal = predictor.config.temporal
        batches = windows.eval_batches(
            windows.Windows.of(table, temporal.window, causal=temporal.causal),
            arrays,
            batch_size=predictor.config.evaluation.batch_size,
        )
        return predictor.predict_batches(table, map(predictor.forward.place, batches))
