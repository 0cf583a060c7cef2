"""Exported programs in the place of a network: their answers as a network's outputs.

A program goes the whole way from crops to answers (`export.whole_way`). What a table of predictions
is made of is taken from its logits and standard deviations, which a calibration inside changes by
factors that the card knows; so a table is as of the network, before any calibration.

Dimension letters: B crops of a batch.
"""

import functools
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh
from numpy.typing import NDArray

from mtl_face.config import Config
from mtl_face.evaluation.calibration import Calibration
from mtl_face.inference.predictor import Forward, Step
from mtl_face.inputs import BASELINE, IMAGE, POINTS
from mtl_face.tasks import AU, EXPR, VA, VA_LOG_VARIANCE, VA_NAMES
from mtl_face.weights.card import ExportError
from mtl_face.weights.programs.interface import CROP, OUTPUTS, STD, WHOLE_WAY

Run = Callable[[Mapping[str, NDArray[Any]]], Mapping[str, NDArray[Any]]]
"""From arrays [B, ...] by the program's names to its answers [B, ...] by name."""


class ProgramForward(Forward):
    """A program from stored crops to outputs; it has weights of its own.

    Of a network that takes points it finds them in the crops, and takes a baseline.

    Args:
        config: the settings; `data.image_size` is the side of the program's crops.
        mesh: one device, to which batches are brought.
        run: the program.
        card: its card.
        path: the file that holds it.
    """

    shows_attention = False

    def __init__(
        self, config: Config, *, mesh: Mesh, run: Run, card: Mapping[str, Any], path: Path
    ) -> None:
        self.config = config
        self.mesh = mesh
        self.calibration = _calibration(card, path)
        self.path = path
        self._run = run
        self._card = card

    @property
    def inputs(self) -> tuple[str, ...]:
        """Crops, and beside them points for a baseline of a network that takes points."""
        return (IMAGE, POINTS) if POINTS in self.config.model.inputs else (IMAGE,)

    @functools.cached_property
    def plain(self) -> Step:
        """`(_, _, inputs, index) -> outputs` as of `make_predict_step`; NaN: points not found."""
        temperature = self._card["temperatures"][VA]
        divisors = self._card["probability"]["divisors"]
        scale_2 = np.ones(2)
        if self.calibration is not None and self.calibration.std_scales:
            scale_2 = np.asarray([self.calibration.std_scales[name] for name in VA_NAMES])

        def predict(
            params: Any, batch_stats: Any, inputs: Mapping[str, jax.Array], index_B: jax.Array
        ) -> dict[str, Any]:
            arrays = {CROP: np.asarray(inputs[IMAGE])}
            if BASELINE in inputs:
                arrays[BASELINE] = np.asarray(inputs[BASELINE])
            answers = self._run(arrays)
            outputs = {task: answers[name] for task, name in OUTPUTS.items()}
            for task in (AU, EXPR):
                outputs[task] = outputs[task] * np.float32(divisors[task])
            if self.config.model.predicts_variance:
                std_B2 = answers[STD].astype(np.float64) / scale_2
                outputs[VA_LOG_VARIANCE] = np.log(std_B2**2 / temperature).astype(np.float32)
            return {**outputs, "index": index_B}

        return predict

    @property
    def with_tokens(self) -> None:
        """A program gives no task tokens."""
        return None

    @property
    def sampled(self) -> None:
        """There is no dropout in a program."""
        return None


def _calibration(card: Mapping[str, Any], path: Path) -> Calibration | None:
    """The calibration inside a program."""
    values = card[WHOLE_WAY].get("calibration")
    try:
        return None if values is None else Calibration.of(values)
    except (ValueError, TypeError, AttributeError) as error:
        raise ExportError(
            f"has a calibration in its card that is none ({error})",
            path=path,
            remedy="export it again",
        ) from error
