"""Where in a network it stands which labels are noisy: linear probes of a run of the `yaw` set.

    python -m benchmarks.uncertainty_probe --model=runs/heteroscedastic_yaw-seed0

The noise of valence and arousal of that set is known for every row. A ridge regression is fitted to
it on the training set, from what a layer gave: the task token that the head reads, and the map of
the backbone, from which tokens are made. The rank correlation with the noise of the validation set
says how much of it stands there. A second regression is fitted to the logarithm of the squared
error to the labels, which is all that training shows of the noise. Last, what is to be gained: the
likelihood of the labels under one standard deviation for all rows, and under that of a network that
knows the noise of each row.

Dimension letters: N rows, D channels.
"""

import argparse
import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
from scipy.optimize import minimize_scalar
from scipy.stats import spearmanr
from sklearn.linear_model import RidgeCV

import mtl_face
from benchmarks.uncertainty_table import read_labels
from data_pipeline import input as data_input
from mtl_face.inference.predictor import Predictor
from mtl_face.inputs import IMAGE
from mtl_face.model.network import TASK_TOKENS
from mtl_face.run import datasets
from mtl_face.run.inputs.pixels import find_pixels
from mtl_face.tasks import TASKS, VA

PENALTIES = np.logspace(0, 6, 13)


@dataclasses.dataclass(frozen=True)
class Split:
    """Rows of a split that have valence and arousal.

    Attributes:
        layers: float64 [N, D] by name.
        square_N: mean squared error of valence and arousal to the labels.
        noise_N: standard deviation of the labels' noise.
    """

    layers: dict[str, np.ndarray]
    square_N: np.ndarray
    noise_N: np.ndarray


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", type=Path, required=True, help="a run on the yaw set")
    model = mtl_face.load(parser.parse_args().model)
    train, validation = (read(model, split) for split in ("train", "val"))
    print(
        "| layer | channels | rank, from the noise | rank, from the errors |\n" + "| --- " * 4 + "|"
    )
    targets = {"noise": train.noise_N, "errors": np.log(train.square_N + 1e-3)}
    for name, layer_ND in train.layers.items():
        mean_D, std_D = layer_ND.mean(axis=0), layer_ND.std(axis=0) + 1e-6
        ranks = []
        for target_N in targets.values():
            fitted = RidgeCV(PENALTIES).fit((layer_ND - mean_D) / std_D, target_N)
            found_N = fitted.predict((validation.layers[name] - mean_D) / std_D)
            ranks.append(spearmanr(found_N, validation.noise_N)[0])
        print(f"| {name} | {layer_ND.shape[1]} | " + " | ".join(f"{r:.2f}" for r in ranks) + " |")
    one = likelihood(validation, np.full_like(validation.noise_N, validation.square_N.mean()))
    error = minimize_scalar(
        lambda variance: likelihood(validation, validation.noise_N**2 + variance),
        bounds=(1e-4, 1.0),
        method="bounded",
    )
    print("\nnegative log-likelihood of a label, in nats:")
    print(f"one standard deviation {one:.3f}, the noise of each row known {error.fun:.3f}")


def likelihood(split: Split, variance_N: np.ndarray) -> float:
    """Mean negative log-likelihood of a label, in nats."""
    return float(np.mean(np.log(2 * np.pi * variance_N) + split.square_N / variance_N) / 2)


def read(model: Predictor, split: str) -> Split:
    """What the layers of a model say of a split of its own data set."""
    config = model.config
    table = datasets.load_split(
        config.data, "train" if split == "train" else "validation", say=lambda line: None
    )
    root = datasets.ensure_data(config.data, print)
    labels = read_labels(root, split, str(table.dataset[0]))
    rows = find_pixels(config, table, print, split=split, inputs=model.inputs)
    batches = data_input.eval_batches(
        rows.table,
        batch_size=config.evaluation.batch_size,
        image_size=rows.image_size,
        source=rows.inputs(),
    )
    look = _look(model)
    found: dict[str, list[np.ndarray]] = {}
    for batch in batches:
        kept = batch["index"] >= 0  # others are padding
        for name, layer in look(batch[IMAGE]).items():
            found.setdefault(name, []).append(np.asarray(layer, np.float64)[kept])
    layers = {name: np.concatenate(parts) for name, parts in found.items()}
    va_N2, label_N2 = layers.pop(VA), labels.noisy_va
    known_N = np.isfinite(label_N2).all(axis=1)
    assert labels.noise_std_N is not None, "the run is not on the yaw set"
    return Split(
        {name: layer_ND[known_N] for name, layer_ND in layers.items()},
        ((va_N2 - label_N2) ** 2).mean(axis=1)[known_N],
        labels.noise_std_N[known_N],
    )


def _look(model: Predictor) -> Callable[[Any], dict[str, jax.Array]]:
    """From stored crops to the layers that are probed, and the answers `va`."""

    @jax.jit
    def look(variables: Any, crop_BSS3: jax.Array) -> dict[str, jax.Array]:
        outputs, seen = model.forward.network.apply(
            variables,
            model.forward.prepare({IMAGE: crop_BSS3}),
            train=False,
            return_tokens=True,
            capture_intermediates=lambda module, _: module.name == "backbone",
            mutable=["intermediates"],
        )
        map_BHWC = seen["intermediates"]["backbone"]["__call__"][0]
        token_BTD = outputs[TASK_TOKENS]
        return {
            "token of valence and arousal": token_BTD[:, TASKS.index(VA)],
            "map, mean over its places": map_BHWC.mean(axis=(1, 2)),
            "map, all places": map_BHWC.reshape(map_BHWC.shape[0], -1),
            VA: outputs[VA],
        }

    return lambda crop: look(model.variables, crop)


if __name__ == "__main__":
    main()
