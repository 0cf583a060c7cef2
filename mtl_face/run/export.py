"""A network for use elsewhere: its parameters alone, or its whole program, with a card.

Dimension letters: N crops, S side of a crop.
"""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_args

import jax
import numpy as np
from numpy.typing import NDArray

from mtl_face import export as exports
from mtl_face import files, probabilities
from mtl_face.config import Config
from mtl_face.errors import ConfigError
from mtl_face.evaluation import calibration as calibrations
from mtl_face.evaluation.calibration import Calibration
from mtl_face.export import arrays
from mtl_face.faces import align, points
from mtl_face.inference.predictor import Predictor
from mtl_face.inputs import POINTS
from mtl_face.run import Say, models, provenance, show
from mtl_face.run import workdir as workdirs
from mtl_face.tables import TRAINING
from mtl_face.weights import card as cards
from mtl_face.weights import card_network, exported
from mtl_face.weights.card import ExportError

Format = Literal["orbax", "safetensors", "stablehlo", "onnx"]

PROGRAMS = {"stablehlo": "export.stablehlo.zip", "onnx": "export.onnx"}
"""Formats that are one file, with the name that it has in a run's folder by default."""

_FACES, _NOISE = 12, 4  # crops to check a program on


def export(
    model: str | Path,
    config: Config | None = None,
    *,
    form: Format = "orbax",
    output: str | Path | None = None,
    crop_size: int | None = None,
    calibration: str | Path | None = None,
    say: Say = show,
) -> Path:
    """Writes the network of a run, at the checkpoint that the settings ask for, for use elsewhere.

    Args:
        model: the folder of a trained run; or an export or the name of a bundled model, to be
            written in another form.
        config: the settings of the run; None for its own.
        form: `orbax`, a folder of arrays; `safetensors`, one file of them in a folder;
            `stablehlo` or `onnx`, one file of the program from uint8 crops to named answers.
        output: folder or file to write; None, for a run: RUN/export, RUN/export_safetensors,
            RUN/export.stablehlo.zip or RUN/export.onnx.
        crop_size: of a program: the side of the crops that it takes; None for those of the
            training.
        calibration: of a program: a file of a calibration to apply; None for that of the
            settings.
        say: called with each line for the user.

    Returns:
        The folder or file that was written.

    Raises:
        ConfigError: the output is named like a file, or an export has none; or a flag does not go
            with the form.
        WorkdirError: the folder holds no run, its evaluation cannot be read, or the output cannot
            be written.
        ExportError: the program answers otherwise than the network.
    """
    model = workdirs.existing(model)
    run = workdirs.is_run(model)
    if output is None and not run:
        raise ConfigError(
            f"{model} is an export, and where to write another is not said",
            remedy="give an output: a new " + ("file" if form in PROGRAMS else "folder"),
        )
    if exported.is_program(model):
        raise _no_network(model)
    if form in PROGRAMS:
        models.require_of_frames(config or workdirs.own_config(model), "programs are of")
        file = files.require_writable_file(Path(output or model / PROGRAMS[form]).expanduser())
        config = config or workdirs.own_config(model)
        applied = _calibration(calibration or config.evaluation.calibration)
        predictor = models.open_model(model, config, say)
        if run:
            card = card_of(predictor, _evaluation(model, predictor, say))
        else:
            card = _completed(exported.read_card(model), config, predictor.variables)
        _write_program(file, predictor, card, form, _Program(crop_size, applied), say)
        return file
    _require_arrays(form, output, crop_size, calibration)
    if run:
        default = "export" if form == "orbax" else f"export_{form}"
        folder = files.require_writable(output or model / default)
        predictor = models.open_run(model, config or workdirs.own_config(model), say)
        variables = _variables(predictor)
        card = card_of(predictor, _evaluation(model, predictor, say))
    else:
        assert output is not None  # checked above
        folder = files.require_writable(output)
        variables, card = exported.load(model)
        card = _completed(card, workdirs.own_config(model), variables)
    _write_arrays(folder, variables, card, form, say)
    return folder


def export_model(
    predictor: Predictor,
    output: str | Path,
    *,
    format: Format = "onnx",
    crop_size: int | None = None,
    calibration: str | Path | Calibration | None = None,
    say: Say = lambda line: None,
) -> Path:
    """Writes the network of a predictor for use elsewhere, with a card that has no evaluation.

    Args:
        predictor: the network.
        output: the file to write; of arrays the folder.
        format: `onnx` or `stablehlo`, one file of the program from uint8 crops to named answers;
            `safetensors` or `orbax`, arrays.
        crop_size: of a program: the side of the crops that it takes; None for those of the
            training.
        calibration: of a program: a calibration to apply, or the file of one.
        say: called with each line for the user.

    Returns:
        The file or folder that was written.

    Raises:
        ConfigError, WorkdirError, ExportError, CalibrationError: as `export`.
    """
    if predictor.forward.path is not None:
        raise _no_network(predictor.forward.path)
    card = card_of(predictor)
    if format in PROGRAMS:
        models.require_of_frames(predictor.config, "programs are of")
        file = files.require_writable_file(Path(output).expanduser())
        program = _Program(crop_size, _calibration(calibration))
        _write_program(file, predictor, card, format, program, say)
        return file
    _require_arrays(format, output, crop_size, calibration)
    folder = files.require_writable(output)
    _write_arrays(folder, _variables(predictor), card, format, say)
    return folder


def _variables(predictor: Predictor) -> dict[str, Any]:
    """The arrays of a network, and of the network of frames that it reads."""
    own = jax.device_get(predictor.variables)
    if predictor.frames is None:
        return own
    return exported.together(own, jax.device_get(predictor.frames.variables))


def _no_network(path: Path) -> ExportError:
    return ExportError(
        "is a program, whose arrays belong to it",
        path=path,
        remedy="give the run or the export that it was made of; --precision alone makes another "
        "ONNX file of one",
    )


class _Program(NamedTuple):
    """What a program is to have besides the network."""

    crop_size: int | None
    calibration: Calibration | None


def _calibration(given: str | Path | Calibration | None) -> Calibration | None:
    if given is None or isinstance(given, Calibration):
        return given
    return calibrations.read(given)


def _require_arrays(
    form: str, output: str | Path | None, crop_size: int | None, calibration: Any
) -> None:
    """Raises ConfigError where what was asked for does not go with a folder of arrays."""
    if form not in exports.FORMATS:
        raise ConfigError(
            f"format {form!r} is not known", remedy=f"give one of {', '.join(get_args(Format))}"
        )
    if (crop_size, calibration) != (None, None):
        raise ConfigError(
            f"--crop_size and --calibration go with a program, and {form} is arrays",
            remedy=f"leave them out, or give --format={' or --format='.join(PROGRAMS)}",
        )
    if output is not None and Path(output).suffix == ".safetensors":
        raise ConfigError(
            f"the output {output} is named like a file",
            remedy=f"give a folder: {exported.SAFETENSORS} and {cards.FILE} are written into it",
        )


def _write_arrays(
    folder: Path, variables: dict[str, Any], card: dict[str, Any], form: Any, say: Say
) -> None:
    exports.save(folder, variables, card, form=form)
    provenance.warn(card["provenance"], say)
    name = exported.PARAMS if form == "orbax" else exported.SAFETENSORS
    say(f"parameters: {folder}  ({name} holds the arrays, {cards.FILE} says what they are)")


def _write_program(
    file: Path,
    predictor: Predictor,
    card: Mapping[str, Any],
    form: Any,
    program: _Program,
    say: Say,
) -> None:
    """Writes one file, tries it in a process of its own, and keeps it if it answers alike."""
    from mtl_face.export import check, onnx_graph, stablehlo
    from mtl_face.export.whole_way import whole_way

    say(f"writing the program from crops to answers as {form} ...")
    full = arrays.completed(card, jax.device_get(predictor.variables))
    whole = whole_way(
        predictor,
        full,
        crop_size=program.crop_size,
        calibration=program.calibration,
        convolution="matmul" if form == "stablehlo" else "xla",
    )
    with files.replacing(file) as temporary:
        if form == "stablehlo":
            stablehlo.write(temporary, whole)
        else:
            onnx_graph.write(temporary, whole)
        say(f"making {_FACES + _NOISE} crops of rendered faces to try it on ...")
        crops = _crops(whole.card["whole_way"]["crop_size"], noise=POINTS not in predictor.inputs)
        found = check.check(
            temporary, form, whole, predictor, crops, calibration=program.calibration, say=say
        )
    provenance.warn(whole.card["provenance"], say)
    smoothing = None if program.calibration is None else program.calibration.smoothing
    if smoothing is not None and not smoothing.changes_nothing:
        say("note: the calibration was fitted on smoothed predictions; the program does not smooth")
    for line in found.lines():
        say(line)
    say(f"program: {file}  (uint8 crops in, named answers out; the card is inside)")


def _crops(size: int, *, noise: bool) -> NDArray[np.uint8]:
    """Crops of rendered faces, and where asked for of noise, uint8 [N, S, S, 3]."""
    from PIL import Image

    from data_pipeline.rendered_faces import plan
    from data_pipeline.rendered_faces.camera import Pose
    from data_pipeline.rendered_faces.head import ACTION_UNITS
    from data_pipeline.rendered_faces.person import make_person
    from data_pipeline.rendered_faces.render import Renderer
    from data_pipeline.rendered_faces.scene import sample_scene

    random = np.random.default_rng(0)
    count = _FACES if noise else _FACES + _NOISE
    pictures = [random.integers(0, 256, (size, size, 3), np.uint8) for _ in range(_NOISE * noise)]
    for number in range(count):
        person = make_person(plan.stream(0, plan.IDENTITY, number))
        renderer = Renderer(person, sample_scene(plan.stream(0, plan.SCENE, number)))
        yaw, pitch = random.uniform(-15, 15, 2)
        intensity_A = random.uniform(0, 1, len(ACTION_UNITS)) * (
            random.uniform(size=len(ACTION_UNITS)) < 0.2
        )
        face = Image.fromarray(renderer.render(intensity_A, Pose(yaw, pitch, 0.0)))
        pictures.append(np.asarray(face.resize((size, size), Image.Resampling.BILINEAR)))
    return np.stack(pictures)


def card_of(predictor: Predictor, metrics: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """The card of a network, with the evaluation of its checkpoint if there is one."""
    config, frames = predictor.config, predictor.frames
    if frames is not None:  # its crops are those of the whole way, and so are its inputs
        config = dataclasses.replace(config, model=frames.config.model)
    cut = {"data": provenance.data_sets(config), **align.specification(config.data.image_size)}
    card = cards.make(
        config,
        temperatures=predictor.temperatures,
        crop=predictor.crop or cut,
        step=predictor.step,
        metrics=metrics,
        provenance=predictor.origin.get("provenance"),
        training=predictor.origin.get(TRAINING),
    )
    if POINTS in config.model.inputs:
        card["points"] = points.statement((frames or predictor).config.data.baseline)
    if frames is not None:
        card["frames"] = arrays.completed(card_of(frames), jax.device_get(frames.variables))
    return card


def _completed(
    card: dict[str, Any], config: Config, variables: Mapping[str, Any]
) -> dict[str, Any]:
    """The card of an export that an older version wrote, with all that a card says today.

    It is added only where this version computes as that one did.
    """
    if card["network"] is None and not models.is_larger(config, variables):
        card = {**card, "network": card_network.statement(config.model)}
    stated = card["points"]
    if stated is not None and "mean_face" not in stated and not points.differences(stated):
        mean_face = points.statement([])["mean_face"]
        card = {**card, "points": {**stated, "mean_face": mean_face}}
    return card


def _evaluation(workdir: Path, predictor: Predictor, say: Say) -> dict[str, Any] | None:
    """The evaluation of a predictor's checkpoint; says where its probability is another."""
    metrics = _metrics(workdir, predictor.step)
    scored = (metrics or {}).get("probability", {"definition": probabilities.FITTED})["definition"]
    defined = predictor.probability["definition"]
    if metrics is not None and scored != defined:
        say(
            f"note: the evaluation in the card scored the probability {scored}, the card's formula "
            f"is {defined} (evaluation.probability): evaluate again to have both alike"
        )
    return metrics


def _metrics(workdir: Path, step: int) -> dict[str, Any] | None:
    """The evaluation of this checkpoint; None if there is none."""
    file = workdir / workdirs.EVALUATION / "metrics.json"
    if not file.is_file():
        return None
    remedy = "evaluate the run again (run.py evaluate), or delete the file"
    metrics = files.read_json(file, remedy=remedy)
    return metrics if metrics.get("checkpoint_step") == step else None
