"""`run.py export`: the parameters of a run alone, with a card that says what they are."""

import argparse
import json
from pathlib import Path
from typing import Any

import jax

from mtl_face import config as config_lib
from mtl_face import export, probabilities
from mtl_face.errors import ConfigError, WorkdirError
from mtl_face.faces import align
from mtl_face.run import evaluate_run
from mtl_face.run import provenance as lineage
from mtl_face.run import workdir as workdirs
from mtl_face.run.session import Session, absolute, say, versions
from mtl_face.weights import card as cards
from mtl_face.weights import exported


def run(config: config_lib.Config, options: argparse.Namespace) -> int:
    """Writes the checkpoint that the config asks for, in the form that is asked for.

    Args:
        config: the settings of the run.
        options: `workdir`, `format`, `output`.

    Returns:
        Exit status 0.

    Raises:
        ConfigError: the output is named like a file.
        WorkdirError: the folder holds no run, its evaluation cannot be read, or the output cannot
            be written.
    """
    default = "export" if options.format == "orbax" else f"export_{options.format}"
    if options.output is not None and options.output.suffix == ".safetensors":
        raise ConfigError(
            f"--output={options.output} is named like a file",
            remedy=f"give a folder: {exported.SAFETENSORS} and {cards.FILE} are written into it",
        )
    workdir = workdirs.open_for_reading(options.workdir, config)
    session = Session(config)
    step, state = evaluate_run.restore(session, workdir)
    provenance = lineage.of_checkpoint(config, workdir, step)
    variables = jax.device_get(
        {"params": state.params["network"], "batch_stats": state.batch_stats}
    )
    temperatures = {
        task: float(value) for task, value in jax.device_get(session.temperatures(state)).items()
    }
    probability = probabilities.statement(
        config.uncertainty.kind, temperatures, config.evaluation.probability
    )
    metrics = _metrics(workdir, step)
    card = cards.make(
        model=config.model,
        stored_size=config.data.image_size,
        crop={
            "data": lineage.data_sets(config),
            **_crop(config.data.image_size),
        },
        temperatures=temperatures,
        probability=probability,
        step=step,
        metrics=metrics,
        config=config_lib.to_dict(config),
        versions=versions(),
        provenance=provenance,
    )
    folder = absolute(options.output or workdir / default)
    export.save(folder, variables, card, form=options.format)
    lineage.warn(provenance, say)
    scored = (metrics or {}).get("probability", {"definition": probabilities.FITTED})["definition"]
    if metrics is not None and scored != probability["definition"]:
        say(
            f"note: the evaluation in the card scored the probability {scored}, the card's formula "
            f"is {probability['definition']} (evaluation.probability): evaluate again to have both "
            "alike"
        )
    arrays = exported.PARAMS if options.format == "orbax" else exported.SAFETENSORS
    say(f"parameters: {folder}  ({arrays} holds the arrays, {cards.FILE} says what they are)")
    say(f"next: python run.py evaluate --params={folder} --output=DIR evaluates them without")
    say("the workdir; mtl_face.weights.exported.load(FOLDER) reads them in Python (docs/export.md)")
    return 0


def _metrics(workdir: Path, step: int) -> dict[str, Any] | None:
    """The evaluation of this checkpoint; None if there is none."""
    file = workdir / workdirs.EVALUATION / "metrics.json"
    if not file.is_file():
        return None
    try:
        metrics = json.loads(file.read_bytes())
        if not isinstance(metrics, dict):
            raise ValueError("it holds no object")
    except (OSError, ValueError) as error:
        raise WorkdirError(
            f"cannot be read: {error}",
            path=file,
            remedy="evaluate the run again (run.py evaluate), or delete the file",
        ) from error
    return metrics if metrics.get("checkpoint_step") == step else None


def _crop(size: int) -> dict[str, Any]:
    """How the stored crops were cut, scaled to the size that the network was trained on."""
    scale = size / align.STANDARD.size
    template = tuple(
        (round((x + 0.5) * scale - 0.5, 4), round((y + 0.5) * scale - 0.5, 4))
        for x, y in align.STANDARD.template
    )
    return align.CropSpecification(size, template).to_json()
