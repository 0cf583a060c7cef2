"""Batches as nested dicts of arrays: attaching features and labels, placing them on the devices.

Labels cross to the devices in the form in which they were annotated, and become targets and weights
there: 21 bytes an example in three arrays, in place of 144 bytes in six.

Dimension letters: N rows, B global batch, b batch of one process, S image size in pixels, A action
units (12), E expressions (8).
"""

import collections
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from data_pipeline import order
from data_pipeline.features import Rows
from mtl_face.inputs import IMAGE
from mtl_face.tables import FrameTable
from mtl_face.tasks import AU, EXPR, EXPRESSION_NAMES, VA, VA_RATER_VARIANCE

if TYPE_CHECKING:
    import jax

WEIGHT = "weight"
"""Key of what a row's labels count, beside the labels by task."""

Batch = dict[str, Any]
"""Nested dict of arrays, see `input.train_batches` and `input.eval_batches`."""

IndexedImages = Iterator[tuple[order.Indices, npt.NDArray[np.uint8]]]
"""Row indices [b] and their images [b, S, S, 3]."""

IndexedInputs = Iterator[tuple[order.Indices, dict[str, npt.NDArray[Any]]]]
"""Row indices [b] and what a network takes of these rows, [b, ...] by name."""


def gather_images(
    image_NSSC: npt.NDArray[np.uint8], indices: Iterator[order.Indices]
) -> IndexedImages:
    """Images of each batch of indices out of one array [N, S, S, 3]; padding is black."""
    for index_b in indices:
        image_bSSC = image_NSSC[index_b]
        image_bSSC[index_b == order.PADDING] = 0
        yield index_b, image_bSSC


def with_features(
    decoded: IndexedImages | Iterator[order.Indices], features: Mapping[str, Rows]
) -> IndexedInputs:
    """Adds features by name to batches of images, or to batches of indices alone; 0 in padding."""
    for one in decoded:
        index_b, arrays = (one, {}) if isinstance(one, np.ndarray) else (one[0], {IMAGE: one[1]})
        for name, rows in features.items():
            arrays[name] = np.array(rows[index_b])
            arrays[name][index_b == order.PADDING] = 0
        yield index_b, arrays


def compact_labels(table: FrameTable) -> dict[str, npt.NDArray[Any]]:
    """Labels as they cross to the devices.

    Returns:
        `va` float32 [N, 2], both NaN where one is missing; `au` int8 [N, A] and `expr` int8 [N], -1
        where missing. Of a table with soft labels `au` float32 [N, A] and `expr` float32 [N, E],
        NaN where missing, and `weight` float32 [N]; where annotators' spread of valence and
        arousal is known, `va_rater_variance` float32 [N, 2] too, NaN where missing.
    """
    va_N2 = np.stack([table.valence, table.arousal], axis=1)
    va_N2[np.isnan(va_N2).any(axis=1)] = np.nan
    if not table.is_hard:
        share_NE = table.expression_shares()
        class_NE = table.expression[:, None] == np.arange(len(EXPRESSION_NAMES))
        class_NE = np.where(table.expression[:, None] >= 0, class_NE, np.nan)
        labels = {
            VA: va_N2,
            AU: np.where(np.isnan(table.au_probability), table.au, table.au_probability),
            EXPR: np.where(np.isnan(share_NE), class_NE, share_NE).astype(np.float32),
            WEIGHT: table.label_weight,
        }
        if not np.isnan(table.raters).all():
            labels[VA_RATER_VARIANCE] = table.rater_variance()
        return labels
    return {
        VA: va_N2,
        AU: np.where(np.isnan(table.au), -1, table.au).astype(np.int8),
        EXPR: table.expression,
    }


def expand_labels(labels: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Targets and weights from `compact_labels`, on the device.

    Returns:
        float32 targets `va` [B, 2], `au` [B, A], `expr` [B, E] (one-hot or soft) and, if it is
        among the labels, `va_rater_variance` [B, 2], 0 where missing, never NaN; float32 weights
        `va` [B], `au` [B, A], `expr` [B] in [0, 1].
    """
    import jax
    import jax.numpy as jnp

    va_B2, au_BA, expression_B = labels[VA], labels[AU], labels[EXPR]
    has_va_B2 = ~jnp.isnan(va_B2)
    if WEIGHT in labels:
        weight_B = labels[WEIGHT]
        present = {
            VA: has_va_B2[:, 0],
            AU: ~jnp.isnan(au_BA),
            EXPR: ~jnp.isnan(expression_B[:, 0]),
        }
        return (
            {name: jnp.nan_to_num(labels[name]) for name in labels if name != WEIGHT},
            {
                VA: weight_B * present[VA],
                AU: weight_B[:, None] * present[AU],
                EXPR: weight_B * present[EXPR],
            },
        )
    targets = {
        VA: jnp.where(has_va_B2, va_B2, 0.0),  # before any arithmetic: 0 * NaN is NaN
        AU: jnp.maximum(au_BA, 0).astype(jnp.float32),
        EXPR: jax.nn.one_hot(expression_B, len(EXPRESSION_NAMES)),  # of -1: zeros
    }
    weights = {
        VA: has_va_B2[:, 0].astype(jnp.float32),
        AU: (au_BA >= 0).astype(jnp.float32),
        EXPR: (expression_B >= 0).astype(jnp.float32),
    }
    return targets, weights


def with_labels(table: FrameTable, inputs: IndexedInputs) -> Iterator[Batch]:
    """Adds `labels` (as `compact_labels`) to each batch of inputs."""
    columns = compact_labels(table)
    for index_b, arrays in inputs:
        yield {
            **arrays,
            "labels": {task: column[index_b] for task, column in columns.items()},
        }


def to_devices(
    batches: Iterable[Batch], sharding: "jax.sharding.NamedSharding", ahead: int = 2
) -> Iterator[Batch]:
    """Turns this process's batches [b, ...] into global arrays, with `ahead` transfers running.

    `sharding` lays out the first axis, for instance `NamedSharding(mesh, P("data"))`. Devices of
    one process must be neighbours along it, in the order of the processes.

    Yields:
        The same dicts with global `jax.Array`s [B, ...]; `targets` and `weights` as `expand_labels`
        returns them in place of `labels`.
    """
    import jax

    expand = jax.jit(expand_labels, out_shardings=sharding)

    def place(batch: Batch) -> Batch:
        placed: Batch = jax.tree.map(
            lambda leaf: jax.make_array_from_process_local_data(sharding, leaf), batch
        )
        if "labels" in placed:
            placed["targets"], placed["weights"] = expand(placed.pop("labels"))
        return placed

    placed: collections.deque[Batch] = collections.deque()
    for batch in batches:
        placed.append(place(batch))
        if len(placed) > ahead:
            yield placed.popleft()
    yield from placed
