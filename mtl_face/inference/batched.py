"""Predictions for every row of a table, batch by batch."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax
import numpy as np
from numpy.typing import NDArray

from mtl_face.tasks import OUTPUT_SIZES


def predict_rows(
    predict_step: Callable[[Any, Any, jax.Array, jax.Array], dict[str, jax.Array]],
    params: Any,
    batch_stats: Any,
    batches: Iterator[dict[str, jax.Array]],
    *,
    num_rows: int,
    sizes: Mapping[str, int] = OUTPUT_SIZES,
) -> dict[str, NDArray[np.float32]]:
    """Runs the network over batches and puts the outputs in the order of the rows.

    Args:
        predict_step: see `mtl_face.training.step.make_predict_step`.
        params: the network's parameters.
        batch_stats: its running statistics.
        batches: dicts with `image` uint8 [B, H, W, 3] and `index` int32 [B], the row that each
            image belongs to (-1: padding).
        num_rows: rows of the table.
        sizes: widths of the outputs to keep, by name.

    Returns:
        [num_rows, size] by name: `va` [num_rows, 2], `au` [num_rows, 12] and `expr` [num_rows, 8]
        (logits) by default.

    Raises:
        ValueError: if a row got no prediction.
    """
    outputs = {name: np.full((num_rows, size), np.nan, np.float32) for name, size in sizes.items()}
    done_N = np.zeros(num_rows, bool)

    def keep(result: dict[str, jax.Array]) -> None:
        host = jax.device_get(result)
        valid_B = host["index"] >= 0
        index_B = host["index"][valid_B]
        for name, output in outputs.items():
            output[index_B] = host[name][valid_B]
        done_N[index_B] = True

    waiting: dict[str, jax.Array] | None = None
    for batch in batches:
        result = predict_step(params, batch_stats, batch["image"], batch["index"])
        if waiting is not None:
            keep(waiting)  # the devices work on the next batch meanwhile
        waiting = result
    if waiting is not None:
        keep(waiting)
    if not done_N.all():
        raise ValueError(f"{(~done_N).sum()} of {num_rows} rows were in no batch")
    return outputs
