"""What networks over time take of the rows of a table: windows of task tokens."""

import dataclasses
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from data_pipeline import order
from data_pipeline import windows as windowed
from data_pipeline.batch import Batch
from mtl_face import inputs
from mtl_face.config import Config
from mtl_face.errors import WeightsError
from mtl_face.inference.predictor import Predictor
from mtl_face.run import Say, models
from mtl_face.run.inputs import features, tokens
from mtl_face.run.inputs.pixels import Pixels, find_pixels
from mtl_face.tables import FrameTable
from mtl_face.tasks import VA_LOG_VARIANCE
from mtl_face.weights.provenance import TASK_TOKENS


@dataclasses.dataclass(frozen=True)
class Windowed(Pixels):
    """Rows, and their windows with the task tokens of the frames.

    `arrays` are by the names of inputs, a row for each of the table.
    """

    windows: windowed.Windows = dataclasses.field(kw_only=True)
    arrays: Mapping[str, NDArray[Any]] = dataclasses.field(kw_only=True)

    def train_batches(
        self, rows: order.Order, batch_size: int, *, start_step: int, process: order.Process
    ) -> Iterator[Batch]:
        """Endless batches of windows, see `data_pipeline.windows.train_batches`."""
        return windowed.train_batches(
            self.windows,
            self.table,
            self.arrays,
            batch_size=batch_size,
            rows=rows,
            start_step=start_step,
            process=process,
        )

    def eval_batches(
        self, batch_size: int, *, first: int = 0, process: order.Process = order.ALONE
    ) -> Iterator[Batch]:
        """Every window once, see `data_pipeline.windows.eval_batches`; `first` is 0."""
        assert not first, "windows are not rows"
        return windowed.eval_batches(
            self.windows, self.arrays, batch_size=batch_size, process=process
        )


def windows_of(config: Config, table: FrameTable) -> windowed.Windows:
    """The windows of a table that the settings ask for."""
    temporal = config.temporal
    return windowed.Windows.of(table, temporal.window, causal=temporal.causal)


def find_inputs(
    config: Config,
    table: FrameTable,
    say: Say,
    *,
    split: str = "validation",
    predictor: Predictor | None = None,
) -> Pixels:
    """Finds what a network takes of the rows of a table, as `find_pixels` does.

    Of a network over time that is the task tokens, which are computed where they are absent.
    `predictor` is the network that will read them; None for that of the settings, which is to be
    trained.

    Raises:
        WeightsError: it was trained on other tokens than the settings say.
        UserError: as `find_pixels`, `models.frame_model` and `tokens.ensure`.
    """
    reads = config if predictor is None else predictor.config
    if not reads.is_over_time:
        names = None if predictor is None else predictor.inputs
        return find_pixels(config, table, say, split=split, inputs=names)
    model = (predictor and predictor.frames) or models.frame_model(config)
    if predictor is not None and predictor.config.temporal.tokens != config.temporal.tokens:
        raise WeightsError(
            f"was trained on temporal.tokens={predictor.config.temporal.tokens}, and the "
            f"settings say {config.temporal.tokens}",
            remedy=f"set temporal.tokens={predictor.config.temporal.tokens}, or train anew",
        )
    kept = tokens.ensure(model, config, table, split=split, say=say)
    expected = inputs.windows(
        config.temporal.window,
        config.model.embed_dim,
        va_variance=VA_LOG_VARIANCE in kept,
        patches=config.temporal.reads_patches,
    )
    arrays = {inputs.TOKENS: kept[inputs.TOKENS]}
    arrays |= {inputs.answer(n): a for n, a in kept.items() if inputs.answer(n) in expected}
    windows = windows_of(config, table)
    if (windows.row_MW[:, 1] < 0).all():
        say(f"note: each video of the {split} set has one row, so that no frame has neighbours")
    return Windowed(
        table,
        features.find_images(config, table, split),
        config.data.image_size,
        config.data.exif_orientation == "apply",
        windows=windows,
        arrays=arrays,
    )


def source(model: Predictor, path: str) -> dict[str, Any]:
    """What a run records of the network of frames, see `weights.provenance.record`."""
    return {
        "file": Path(path).name,
        "sha256": model.origin["weights_sha256"],
        "format": TASK_TOKENS,
        "provenance": model.origin.get("provenance"),
    }
