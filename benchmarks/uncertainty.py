"""Trains the embedded network, by AdamW, under each uncertainty, and tables what it predicts.

    python -m benchmarks.uncertainty --output=runs/uncertainty --document=docs/uncertainty.md
    python -m benchmarks.uncertainty --output=runs/uncertainty --seeds=1 --epochs=6

Every run is a folder below --output, by epochs, kind and seed. A finished one is not trained again
and a stopped one goes on where it was, so the same command takes up an interrupted benchmark, and
with more seeds adds to it. The table is made of all finished runs that were asked for and lies in
--output too; --document replaces what stands between the two marks of that file. A run of 12 epochs
takes about five minutes of two cores.
"""

import argparse
from pathlib import Path
from typing import Any

from benchmarks import uncertainty_table
from benchmarks.runs import train, write_between
from mtl_face.errors import UserError

CONFIG = "configs/rendered_faces.py"

ADAMW: dict[str, Any] = {
    "optimizer.kind": "adamw",
    "optimizer.batch_size": 16,
    "optimizer.learning_rate": 4e-4,
    "optimizer.backbone_learning_rate": 2e-3,
    "optimizer.weight_decay": 2e-2,
}
"""Its optimizer in the tables: the paper's, at the rates that suit this network."""

EPOCHS = 12

_PER_EXAMPLE = {
    "uncertainty.kind": "learned",
    "uncertainty.beta_nll": 0.5,
    "model.va_variance": "per_example",
}
_FROM_FEATURES = {**_PER_EXAMPLE, "model.va_variance": "from_features"}
_HEAD_ALONE = {
    "optimizer.trains": "head_va_variance",
    "optimizer.learning_rate": 1e-4,
    "model.backbone.batch_norm": "frozen",
    "uncertainty.temperatures.va": 0.1,
    # The noise of a label is not that of a mixture, and the head is to see what it is to judge.
    "augmentation.mixup_alpha": 0.0,
    "augmentation.rotation_degrees": 0.0,
    "augmentation.translation": 0.0,
    "augmentation.zoom": "1,1",
}
_YAW = {"data.rendered_faces.va_noise": "yaw"}
KINDS: dict[str, dict[str, object]] = {
    "unweighted": {
        # MSE / (2 T), BCE / (2 T) and CCE / T all with weight 1
        "uncertainty.temperatures.va": 0.5,
        "uncertainty.temperatures.au": 0.5,
        "uncertainty.temperatures.expr": 1.0,
    },
    "fixed": {},
    "learned": {"uncertainty.kind": "learned"},
    "likelihood": {"uncertainty.kind": "likelihood"},
    "heteroscedastic": _PER_EXAMPLE,
    "heteroscedastic_nll": {**_PER_EXAMPLE, "uncertainty.beta_nll": 0.0},
    "dropout": {**_PER_EXAMPLE, "model.dropout": 0.1, "evaluation.mc_dropout_samples": 20},
    "learned_yaw": {"uncertainty.kind": "learned", **_YAW},
    "heteroscedastic_yaw": {**_PER_EXAMPLE, **_YAW},
    "from_features_yaw": {**_FROM_FEATURES, **_YAW},
    "head_after_yaw": {**_FROM_FEATURES, **_HEAD_ALONE, **_YAW},
}
"""Settings by the name of what they try; those with `yaw` train on the noise that differs."""

AFTER = {"head_after_yaw": "learned_yaw"}
"""Kinds that start from the weights of another kind's run of the same seed."""

BEGIN, END = "<!-- table of benchmarks/uncertainty.py -->", "<!-- end of the table -->"


def main() -> None:
    """Trains what is missing, and writes the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--output", type=Path, required=True, help="folder of runs and table")
    parser.add_argument("--document", type=Path, help="file that takes the table between its marks")
    parser.add_argument("--seeds", type=int, default=3, help="seeds 0 to this, less one")
    parser.add_argument("--epochs", type=int, default=EPOCHS)
    parser.add_argument("--kinds", default=",".join(KINDS), help="of " + ", ".join(KINDS))
    parser.add_argument("--table-only", action="store_true", help="train nothing")
    options = parser.parse_args()
    kinds = options.kinds.split(",")
    if unknown := set(kinds) - KINDS.keys():
        parser.error(f"unknown kinds {', '.join(sorted(unknown))}")
    if options.document and BEGIN not in options.document.read_text():
        parser.error(f"{options.document} has no line {BEGIN}")

    finished: dict[str, list[Path]] = {}
    for seed in range(options.seeds):
        for kind in kinds:
            folder = options.output / f"epochs{options.epochs}" / f"{kind}-seed{seed}"
            if not options.table_only:
                train_kind(folder, kind, seed=seed, epochs=options.epochs)
            if (folder / "evaluation" / "metrics.json").is_file():
                finished.setdefault(kind, []).append(folder)
    ordered = {kind: finished[kind] for kind in KINDS if kind in finished}
    try:
        text = uncertainty_table.make(ordered, epochs=options.epochs)
    except UserError as error:
        parser.exit(2, f"{error}\n")
    table = options.output / f"table_epochs{options.epochs}.md"
    table.parent.mkdir(parents=True, exist_ok=True)
    table.write_text(text)
    print(text)
    print(f"table: {table}")
    if options.document:
        write_between(BEGIN, END, text, options.document)
        print(f"and in {options.document}")


def train_kind(folder: Path, kind: str, *, seed: int, epochs: int) -> None:
    """Trains a run, and before it the one that it starts from, as far as they are not finished."""
    settings = {**ADAMW, "seed": seed, "optimizer.epochs": epochs, **KINDS[kind]}
    if kind in AFTER:
        before = folder.with_name(f"{AFTER[kind]}-seed{seed}")
        train_kind(before, AFTER[kind], seed=seed, epochs=epochs)
        settings["training.init_from"] = before.absolute()
    train(folder, CONFIG, settings)


if __name__ == "__main__":
    main()
