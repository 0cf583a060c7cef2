"""`run.py export`: the parameters of a run alone, with a card that says what they are."""

import argparse
import json
from pathlib import Path
from typing import Any

import jax

from data_pipeline.rendered_faces.camera import TEMPLATE_L2
from mtl_face import config as config_lib
from mtl_face.commands import evaluate_run, lineage
from mtl_face.commands import workdir as workdirs
from mtl_face.commands.session import Session, absolute, say, versions
from mtl_face.errors import ConfigError
from mtl_face.weights import card as cards
from mtl_face.weights import export
from mtl_face.weights import provenance as provenance_lib


def run(config: config_lib.Config, options: argparse.Namespace) -> int:
    """Writes the checkpoint that the config asks for, in the form that is asked for.

    Args:
        config: the settings of the run.
        options: `workdir`, `format`, `output`.

    Returns:
        Exit status 0.

    Raises:
        ConfigError: the output is named like a file.
    """
    default = "export" if options.format == "orbax" else f"export_{options.format}"
    if options.output is not None and options.output.suffix == ".safetensors":
        raise ConfigError(
            f"--output={options.output} is named like a file",
            remedy=f"give a folder: {export.SAFETENSORS} and {cards.FILE} are written into it",
        )
    workdir = workdirs.open_for_reading(options.workdir, config)
    session = Session(config)
    step, state = evaluate_run.restore(session, workdir)
    provenance = lineage.of_checkpoint(config, workdir, step)
    variables = jax.device_get(
        {"params": state.params["network"], "batch_stats": state.batch_stats}
    )
    temperatures = jax.device_get(session.temperatures(state))
    model = config.model
    card = cards.make(
        stored_size=config.data.image_size,
        input_size=model.input_size,
        input_mean=model.input_mean,
        input_std=model.input_std,
        crop=_crop(config.data.kind, config.data.image_size),
        temperatures={task: float(value) for task, value in temperatures.items()},
        step=step,
        metrics=_metrics(workdir, step),
        config=config_lib.to_dict(config),
        versions=versions(),
        provenance=provenance,
    )
    folder = absolute(options.output or workdir / default)
    export.save(folder, variables, card, form=options.format)
    lineage.warn(provenance, say)
    arrays = export.PARAMS if options.format == "orbax" else export.SAFETENSORS
    say(f"parameters: {folder}  ({arrays} holds the arrays, {cards.FILE} says what they are)")
    say(f"next: python run.py evaluate --params={folder} --output=DIR evaluates them without")
    say("the workdir; mtl_face.weights.export.load(FOLDER) reads them in Python (docs/export.md)")
    return 0


def _metrics(workdir: Path, step: int) -> dict[str, Any] | None:
    """The evaluation of this checkpoint; None if there is none."""
    file = workdir / workdirs.EVALUATION / "metrics.json"
    metrics = json.loads(file.read_text()) if file.is_file() else None
    return None if metrics is None or metrics.get("checkpoint_step") != step else metrics


def _crop(kind: str, size: int) -> dict[str, Any]:
    """How the stored crops were cut; landmarks as this program puts them in crops of its own."""
    names = ("right_eye", "left_eye", "nose_tip", "right_mouth_corner", "left_mouth_corner")
    return {
        "data": provenance_lib.DATA_SETS.get(kind, kind),
        "size": size,
        "alignment": "similarity transform, least squares, of five landmarks onto `landmarks`",
        "landmarks": {
            name: [round(float(value + 0.5) * size / 112 - 0.5, 4) for value in point]
            for name, point in zip(names, TEMPLATE_L2, strict=True)
        },
        "coordinates": "pixels, centres at whole numbers, x right, y down; sides are the person's",
    }
