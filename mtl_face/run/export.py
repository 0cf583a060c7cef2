"""The parameters of a run alone, with a card that says what they are."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax

from mtl_face import export as exports
from mtl_face import files, probabilities
from mtl_face.config import Config
from mtl_face.errors import ConfigError
from mtl_face.faces import align, points
from mtl_face.inference.predictor import Predictor
from mtl_face.inputs import POINTS
from mtl_face.run import Say, models, provenance, show
from mtl_face.run import workdir as workdirs
from mtl_face.tables import TRAINING
from mtl_face.weights import card as cards
from mtl_face.weights import card_network, exported


def export(
    model: str | Path,
    config: Config | None = None,
    *,
    form: exports.Format = "orbax",
    output: str | Path | None = None,
    say: Say = show,
) -> Path:
    """Writes the network of a run, at the checkpoint that the settings ask for, for use elsewhere.

    Args:
        model: the folder of a trained run; or an export or the name of a bundled model, to be
            written as it is in another form.
        config: the settings of the run; None for its own.
        form: `orbax`, a folder of arrays, or `safetensors`, one file.
        output: folder to write; None, for a run: RUN/export, or RUN/export_safetensors.
        say: called with each line for the user.

    Raises:
        ConfigError: the output is named like a file, or an export has none.
        WorkdirError: the folder holds no run, its evaluation cannot be read, or the output cannot
            be written.
    """
    model = workdirs.existing(model)
    if output is not None and Path(output).suffix == ".safetensors":
        raise ConfigError(
            f"the output {output} is named like a file",
            remedy=f"give a folder: {exported.SAFETENSORS} and {cards.FILE} are written into it",
        )
    if not models.is_run(model):
        if output is None:
            raise ConfigError(
                f"{model} is an export, and where to write another is not said",
                remedy="give an output: a new folder",
            )
        folder = files.require_writable(output)
        variables, card = exported.load(model)
        card = _completed(card, workdirs.own_config(model), variables)
    else:
        default = "export" if form == "orbax" else f"export_{form}"
        folder = files.require_writable(output or model / default)
        predictor = models.open_run(model, config or workdirs.own_config(model), say)
        variables, card = jax.device_get(predictor.variables), _card(model, predictor, say)
    exports.save(folder, variables, card, form=form)
    provenance.warn(card["provenance"], say)
    arrays = exported.PARAMS if form == "orbax" else exported.SAFETENSORS
    say(f"parameters: {folder}  ({arrays} holds the arrays, {cards.FILE} says what they are)")
    return folder


def _card(workdir: Path, predictor: Predictor, say: Say) -> dict[str, Any]:
    """The card of a run's network, with the evaluation of its checkpoint if there is one."""
    config = predictor.config
    metrics = _metrics(workdir, predictor.step)
    scored = (metrics or {}).get("probability", {"definition": probabilities.FITTED})["definition"]
    defined = predictor.probability["definition"]
    if metrics is not None and scored != defined:
        say(
            f"note: the evaluation in the card scored the probability {scored}, the card's formula "
            f"is {defined} (evaluation.probability): evaluate again to have both alike"
        )
    card = cards.make(
        config,
        temperatures=predictor.temperatures,
        crop={"data": provenance.data_sets(config), **align.specification(config.data.image_size)},
        step=predictor.step,
        metrics=metrics,
        provenance=predictor.origin["provenance"],
        training=predictor.origin.get(TRAINING),
    )
    if POINTS in config.model.inputs:
        card["points"] = points.statement(config.data.baseline)
    return card


def _completed(
    card: dict[str, Any], config: Config, variables: Mapping[str, Any]
) -> dict[str, Any]:
    """The card of an export that an older version wrote, with all that a card says today.

    It is added only where this version computes as that one did.
    """
    if card["network"] is None and not models.is_larger(config.model, variables):
        card = {**card, "network": card_network.statement(config.model)}
    stated = card["points"]
    if stated is not None and "mean_face" not in stated and not points.differences(stated):
        card = {**card, "points": {**points.statement(stated.get("baseline", [])), **stated}}
    return card


def _metrics(workdir: Path, step: int) -> dict[str, Any] | None:
    """The evaluation of this checkpoint; None if there is none."""
    file = workdir / workdirs.EVALUATION / "metrics.json"
    if not file.is_file():
        return None
    remedy = "evaluate the run again (run.py evaluate), or delete the file"
    metrics = files.read_json(file, remedy=remedy)
    return metrics if metrics.get("checkpoint_step") == step else None
