"""A trained model, wherever it lies: in the folder of a run, or in an export."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jax

from mtl_face import config as config_lib
from mtl_face import files
from mtl_face.config import Config
from mtl_face.errors import ConfigError, WeightsError, WorkdirError
from mtl_face.faces import align, points
from mtl_face.inference.predictor import Forward, Predictor
from mtl_face.inference.program import ProgramForward, Run
from mtl_face.inputs import IMAGE, POINTS
from mtl_face.run import Say
from mtl_face.run import workdir as workdirs
from mtl_face.tables import TRAINING
from mtl_face.training import sharding
from mtl_face.weights import exported
from mtl_face.weights.card import ExportError, model_differences
from mtl_face.weights.programs import interface, onnx_file
from mtl_face.weights.programs.onnx_file import OnnxFile
from mtl_face.weights.provenance import amend, warnings_of_training

if TYPE_CHECKING:
    from mtl_face.training.experiment import Experiment


def load(path: str | Path) -> Predictor:
    """Loads a trained model.

    Args:
        path: the folder of a run (its best checkpoint, or as `evaluation.checkpoint` says), the
            folder of an export, or its `model.safetensors`; a program that was exported, as ONNX or
            StableHLO; or the
            name of a bundled model, as `geometry`.

    Returns:
        A predictor: `predict(images)` finds faces and gives a table of them, `stream(video)` one
        a frame; `predict_crops(uint8 [N, height, width, 3])` answers aligned crops.

    Raises:
        ExportError: the export cannot be read.
        WorkdirError: it is none of these, or the run's checkpoint is damaged or was not evaluated.
    """
    return open_model(path, workdirs.own_config(path), lambda line: None)


def open_model(path: str | Path, config: Config, say: Say) -> Predictor:
    """Loads a model under given settings, whose network must be the model's.

    Raises:
        ExportError: the export cannot be read, or its network is not that of the settings.
        WorkdirError: the run belongs to other settings, or has no evaluated checkpoint.
    """
    path = workdirs.existing(path)
    if workdirs.is_run(path):
        return open_run(path, config, say)
    opened = open_program if exported.is_program(path) else open_export
    return opened(path, config, say)


def frame_model(config: Config) -> Predictor:
    """The network of frames that the settings name.

    Raises:
        ConfigError: none is named, or it is over time itself, or its tokens are not as the
            settings say.
        UserError: it cannot be opened.
    """
    path = config.temporal.frame_model
    if path is None:
        raise ConfigError(
            f"temporal.kind is {config.temporal.kind}, and temporal.frame_model names no network",
            remedy="name the network of frames whose tokens it reads: temporal.frame_model=RUN",
        )
    if workdirs.own_config(path).is_over_time:
        raise ConfigError(
            "is a network over time, and temporal.frame_model names one of frames",
            path=path,
            remedy="name the network of frames whose tokens it reads: temporal.frame_model=RUN",
        )
    model = load(path)
    width, varies = model.config.model.embed_dim, model.config.model.va_variance
    for name, own, needed in (
        ("model.embed_dim", config.model.embed_dim, width),
        ("model.va_variance", config.model.va_variance, varies),
    ):
        if own != needed:
            raise ConfigError(
                f"{name} is {own}, and the network of temporal.frame_model has {needed}",
                path=path,
                remedy=f"set {name}={needed}",
            )
    return model


def require_read(
    provenance: Mapping[str, Any] | None, model: Predictor, path: str | Path | None
) -> None:
    """Raises WeightsError unless `model`, in `path`, is what a network over time was trained on.

    `provenance` is that of the network over time.
    """
    recorded = (provenance or {}).get("initial_weights") or {}
    found = model.origin["weights_sha256"]
    if recorded.get("sha256") not in (None, found):
        raise WeightsError(
            "is not the network of frames whose tokens it was trained on: its weights have the "
            f"hash {found[:12]}, those had {recorded['sha256'][:12]}",
            path=path,
            remedy=f"name that one, which was {recorded.get('file')}: temporal.frame_model=RUN",
        )


def require_of_frames(config: Config, what: str) -> None:
    """ConfigError if the settings are of a network over time, which `what` is not for."""
    if config.is_over_time:
        raise ConfigError(
            f"temporal.kind is {config.temporal.kind}, and {what} networks of frames alone",
            remedy="give the network of frames that it reads, or temporal.kind=none",
        )


def is_run(path: str | Path) -> bool:
    """Whether a path is the folder of a run and not an export; WorkdirError for neither."""
    return workdirs.is_run(workdirs.existing(path))


def open_run(
    workdir: Path, config: Config, say: Say, *, experiment: "Experiment | None" = None
) -> Predictor:
    """The network of the checkpoint that the settings ask for.

    `experiment` is that of the settings, where it was built already. The settings of `evaluation`
    may differ from training.

    Raises:
        WorkdirError: the folder holds no run, or one of other settings, or no evaluated
            checkpoint, or a damaged one.
        UserError: the network of frames that it reads cannot be opened, or is another one.
    """
    # what an export does without: orbax, optax, and all that reads data sets
    from mtl_face.run import provenance
    from mtl_face.training import history as histories
    from mtl_face.training.checkpoint import Checkpoints
    from mtl_face.training.experiment import Experiment

    workdir = workdirs.open_for_reading(workdir, config)
    folder = workdir / workdirs.CHECKPOINTS
    begun = (
        "wait for the first evaluation of its training, or take its newest checkpoint: "
        "evaluation.checkpoint=last"
    )
    problem = WorkdirError(
        "has no evaluated checkpoint yet",
        path=folder,
        remedy=begun if workdirs.has_checkpoint(workdir) else workdirs.TRAIN,
    )
    if not folder.is_dir():
        raise problem
    experiment = experiment or Experiment(config)
    forward = _forward(config, experiment.mesh)
    with Checkpoints(folder, keep=1, read_only=True) as checkpoints:
        best = config.evaluation.checkpoint == "best"
        step = checkpoints.best() if best else checkpoints.newest()
        if step is None:
            raise problem
        state = checkpoints.restore(step, experiment.state_like)
        recorded = provenance.recorded(config, workdir, checkpoints, step)
        training = checkpoints.read_metadata(step).get(TRAINING)
    selection = histories.selection(histories.read(workdir / workdirs.HISTORY), step)
    if best and selection is not None:
        training = {**(training or {}), "selection": selection}
    say(f"{config.evaluation.checkpoint} checkpoint, step {step}")
    for line in warnings_of_training(training):
        say(f"warning: {line}")
    frames = None
    if config.is_over_time:
        frames = frame_model(config)
        require_read(recorded, frames, config.temporal.frame_model)
    return _predictor(
        forward,
        sharding.whole(experiment.variables(state), experiment.mesh),
        temperatures=experiment.temperatures(state),
        step=int(jax.device_get(state.step)),
        origin=_origin(recorded, training),
        frames=frames,
    )


def open_export(path: Path, config: Config, say: Say) -> Predictor:
    """The network of an export, which must be that of the settings.

    Raises:
        ExportError: the export cannot be read, or its network is not that of the settings.
        ConfigError: the batch or the mesh does not fit the devices.
    """
    variables, card = exported.load(path)
    frames = None
    if card["frames"] is not None:
        variables, read = exported.split_frames(variables)
        own = config_lib.of_export(card["frames"]["config"])
        own_config = config_lib.load_values(own, [], path)
        frames = _of_arrays(read, card["frames"], own_config, path, say)
    return _of_arrays(variables, card, config, path, say, frames=frames)


def _of_arrays(
    variables: Mapping[str, Any],
    card: Mapping[str, Any],
    config: Config,
    path: Path,
    say: Say,
    *,
    frames: Predictor | None = None,
) -> Predictor:
    """The network of the arrays of an export, see `open_export`."""
    _check_card(card, config, path)
    if is_larger(config, variables):
        raise ExportError(
            "does not fit the network of its settings, which is larger than its arrays",
            path=path,
            remedy="export it again from its run",
        )
    stored = card["input"]["stored_size"]
    if stored != config.data.image_size:
        say(
            f"note: it was trained on crops of {stored} pixels, these are read at "
            f"{config.data.image_size} (data.image_size)"
        )
    forward = _forward(config, sharding.make_mesh(data=config.mesh.data, fsdp=config.mesh.fsdp))
    found = exported.tensor_differences(
        exported.specification(variables),
        exported.specification(forward.abstract_variables()),
        expected_by="the network",
    )
    if found:
        raise ExportError(
            "does not fit the network of its settings: " + "; ".join(found),
            path=path,
            remedy="evaluate it with the version of mtl_face that exported it "
            f"({card['versions'].get('mtl_face', 'unknown')})",
        )
    say(f"parameters of {path}, step {card['step']} of their run")
    predictor = _predictor(
        forward,
        variables,
        temperatures=card["temperatures"],
        step=card["step"],
        origin=_origin_of_export(card, config, say),
        frames=frames,
    )
    if frames is not None:
        require_read(card["provenance"], frames, path)
    return dataclasses.replace(predictor, crop=card["crop"] or {})


def open_program(path: Path, config: Config, say: Say) -> Predictor:
    """A program of ONNX or StableHLO in place of a network, which must be that of the settings.

    Raises:
        ExportError: the file cannot be read or run, or its network or its crops are not those of
            the settings.
        ConfigError: the settings ask for samples of dropout.
    """
    file = onnx_file.read(path) if onnx_file.is_one(path) else None
    card = exported.read_card(path) if file is None else file.card
    _check_card(card, config, path)
    size = card[interface.WHOLE_WAY]["crop_size"]
    if size != config.data.image_size:
        raise ExportError(
            f"takes crops of {size} pixels, the settings give {config.data.image_size} "
            "(data.image_size)",
            path=path,
            remedy="leave data.image_size out, or export a file for such crops (--crop_size)",
        )
    if config.evaluation.mc_dropout_samples:
        raise ConfigError(
            "a program has no dropout to sample",
            path=path,
            remedy="set evaluation.mc_dropout_samples=0, or give the run or export that it is of",
        )
    if jax.process_count() > 1:
        raise ConfigError(
            "a program is run by one process", path=path, remedy="start one process alone"
        )
    run = _stablehlo(path) if file is None else _onnx(file)
    mesh = sharding.make_mesh(devices=jax.local_devices()[:1])
    forward = ProgramForward(config, mesh=mesh, run=run, card=card, path=path)
    say(f"program of {path}, step {card['step']} of its run")
    origin = {
        "weights_sha256": card["weights_sha256"],
        "program_sha256": files.sha256(path),
        **_origin_of_export(card, config, say),
    }
    variables: dict[str, Any] = {"params": {}, "batch_stats": {}}
    crop, stored = card["crop"] or {}, align.specification(card["input"]["stored_size"])
    if stored.items() <= crop.items():
        crop = {**crop, **align.specification(size)}
    return Predictor(forward, variables, card["temperatures"], card["step"], origin, crop)


def _onnx(file: OnnxFile) -> Run:
    """The program of an ONNX file."""
    session = onnx_file.session(file)
    names = list(interface.expected_outputs(file.card))

    def run(arrays: Mapping[str, Any]) -> dict[str, Any]:
        return dict(zip(names, session.run(names, dict(arrays)), strict=True))

    return run


def _stablehlo(path: Path) -> Run:
    """The program of a file of StableHLO, compiled for each size of a batch."""
    from mtl_face.export import stablehlo

    answers, _ = stablehlo.read(path)
    return lambda arrays: jax.device_get(answers(arrays))


def _check_card(card: Mapping[str, Any], config: Config, path: Path) -> None:
    """Raises ExportError if a card's network is not that of the settings, or of other points."""
    found = model_differences(card, config.model, config.temporal)
    if found:
        raise ExportError(
            "is another network than that of the settings: " + "; ".join(found),
            path=path,
            remedy="leave config (--config) out: the export knows its settings, of which those of "
            "the data may change (--config.data.NAME=VALUE)",
        )
    if POINTS in config.model.inputs and (found := points.differences(card["points"] or {})):
        raise ExportError(
            "takes face points that this version makes otherwise: " + "; ".join(found),
            path=path,
            remedy="use it with the version of mtl_face that exported it "
            f"({card['versions'].get('mtl_face', 'unknown')})",
        )


def _origin_of_export(card: Mapping[str, Any], config: Config, say: Say) -> dict[str, Any]:
    """What tables say of the weights of an export; what to beware of in its training is said."""
    recorded, training = card["provenance"], card.get(TRAINING)
    for line in warnings_of_training(training):
        say(f"warning: {line}")
    used = config_lib.of_export(config_lib.to_dict(config))
    origin = _origin(None if recorded is None else amend(recorded, config.provenance), training)
    # the settings of the training, where those of the network lack them
    return {**origin, "config": _changed(card["config"], used)}


def is_larger(config: Config, variables: Mapping[str, Any]) -> bool:
    """Whether arrays are too few or too small for a network, which is then not worth tracing."""
    shapes = [shape for shape, _ in exported.specification(variables).values()]
    largest = max((max(shape, default=1) for shape in shapes), default=0)
    if config.is_over_time:
        return config.temporal.layers > len(shapes) or config.temporal.width > largest
    model = config.model
    backbone = model.backbone
    layers = model.encoder_layers + model.decoder_modules + model.head_layers
    widths = [model.embed_dim, model.mlp_ratio]
    if IMAGE in model.inputs:
        layers += backbone.num_blocks
        widths += {
            "resnet": (backbone.width, backbone.expansion),
            "mobilenet": (backbone.width,),
            "vit": (backbone.vit.width, backbone.vit.mlp_width, backbone.vit.patch),
            "convnext": backbone.convnext.widths,
        }[backbone.kind]
    hidden = model.head_width if model.head_layers > 1 else 0
    return layers > len(shapes) or max(*widths, hidden) > largest


def _origin(recorded: Mapping[str, Any] | None, training: Any) -> dict[str, Any]:
    """What tables say of the weights; older versions kept nothing of the training."""
    known = {TRAINING: training} if isinstance(training, Mapping) else {}
    return {"provenance": recorded, **known}


def _forward(config: Config, mesh: Any) -> Forward:
    """The network on these devices; ConfigError if they cannot split a batch."""
    sharding.check_batch(config.evaluation.batch_size, mesh, name="evaluation.batch_size")
    return Forward(config, mesh=mesh)


def _predictor(
    forward: Forward,
    variables: Mapping[str, Any],
    *,
    temperatures: Mapping[str, float],
    step: int,
    origin: Mapping[str, Any],
    frames: Predictor | None = None,
) -> Predictor:
    """Puts arrays of the host whole on every device; no traffic between processes."""
    assert forward.mesh is not None  # `_forward` gave it one
    place = sharding.replicated(forward.mesh)
    placed = jax.tree.map(
        lambda leaf: jax.make_array_from_callback(leaf.shape, place, lambda index: leaf[index]),
        variables,
    )
    origin = {"weights_sha256": exported.weights_sha256(variables), **origin}
    crop = {} if frames is None else frames.crop
    return Predictor(forward, placed, temperatures, step, origin, crop, frames)


def _changed(values: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """Nested settings with others over them."""
    return dict(values) | {
        name: _changed(values.get(name, {}), value) if isinstance(value, Mapping) else value
        for name, value in changes.items()
    }
