"""Predictions of a model for the rows of a table, and for a list of images without labels."""

import dataclasses
from pathlib import Path

import jax

from data_pipeline import images as image_files
from data_pipeline import input as data_input
from data_pipeline import order
from data_pipeline.formats import test_list as test_lists
from mtl_face.config import Config
from mtl_face.errors import ConfigError, ImageError, shortened
from mtl_face.inference.predictor import Predictor
from mtl_face.run import Say, datasets, models, provenance, show
from mtl_face.run import workdir as workdirs
from mtl_face.run.inputs import features
from mtl_face.run.inputs.over_time import find_inputs
from mtl_face.run.inputs.pixels import Pixels
from mtl_face.run.postprocess import PostProcessing
from mtl_face.tables import FrameTable, PredictionTable
from mtl_face.training import sharding
from mtl_face.training.monitoring import InputWatch
from mtl_face.training.processes import distributed


def predict(
    model: str | Path | Predictor,
    test_list: str | Path,
    *,
    config: Config | None = None,
    images: str | Path | None = None,
    missing_images: str = "error",
    say: Say = show,
) -> PredictionTable:
    """Predicts every image of a list, as of a challenge's test set.

    Smoothing and calibration are applied as the settings say (`evaluation.smoothing`,
    `evaluation.calibration`).

    Args:
        model: a run, an export, or what `mtl_face.load` returned.
        test_list: a file with `<video>/<frame>.jpg` a line, lines of `video,frames`, or paths of
            aligned crops whose names are no numbers, each of which is a video of one frame.
        config: the settings; None for the model's own.
        images: folder that the list's paths start from; None for that of the data set. The points
            that a network takes are kept in it, unless `data.features` names a folder.
        missing_images: an image of the list that is absent: `error`, or `skip` (left out and
            counted aloud).
        say: called with each line for the user.

    Returns:
        A row for each image of the list, in its order.

    Raises:
        UserError: the list, an image or the weights cannot be read, or no folder of images is
        known.
    """
    if missing_images not in ("error", "skip"):
        raise ConfigError(f"missing_images is {missing_images!r}, neither error nor skip")
    if config is None:
        config = model.config if isinstance(model, Predictor) else workdirs.own_config(model)
    steps = PostProcessing.of_settings(config)
    if not isinstance(model, Predictor):
        model = models.open_model(model, config, say)
    steps = steps.with_own(model)
    frames = read_list(config, Path(test_list), images, missing_images, say)
    say(f"predicting {len(frames):,} images of {len(set(frames.video)):,} videos ...")
    # Shards hold the rows that the run was trained on, and not those of the list.
    data = dataclasses.replace(config.data, shards=None)
    if images is not None and data.features is None:  # the training's data may be elsewhere
        data = dataclasses.replace(data, features=str(Path(images) / features.FOLDER))
    files = dataclasses.replace(config, data=data)
    predictions = predict_table(model, find_inputs(files, frames, say, predictor=model))
    provenance.warn(model.origin.get("provenance"), say)
    return steps.apply(predictions, say)[0]


def predict_table(
    predictor: Predictor, data: Pixels, *, sample_dropout: bool = True
) -> PredictionTable:
    """Predicts every row of a table; its images are read while the network works.

    `sample_dropout` is that of `Predictor.predict_batches`.
    """
    config, mesh = predictor.config, predictor.forward.mesh
    assert mesh is not None  # those of runs and exports have one
    batches = data_input.to_devices(
        data.eval_batches(
            config.evaluation.batch_size,
            process=order.Process(jax.process_index(), jax.process_count()),
        ),
        sharding.by_example(mesh),
    )
    watched = InputWatch(
        batches,
        timeout_seconds=config.training.input_timeout_s,
        where=distributed.this_host(),
        unit="step of the evaluation",
    )
    return predictor.predict_batches(data.table, watched, sample_dropout=sample_dropout)


def read_list(
    config: Config, test_list: Path, images: str | Path | None, missing_images: str, say: Say
) -> FrameTable:
    """The rows of a list of images without labels; arguments and errors as those of `predict`."""
    if images is None:
        data = datasets.evaluated(dataclasses.replace(config.data, shards=None))
        images = datasets.ensure_data(data, say) / data.image_folder
    table = test_lists.load_test_list(test_list, Path(images))
    if missing_images == "skip":
        table, dropped = image_files.drop_missing(table)
        say(f"rows without an image, left out: {len(dropped):,}")
        return table
    missing = image_files.find_missing(table)
    if len(missing):
        paths = table.paths()
        listing = "\n  ".join(shortened(missing.tolist(), 5, paths.__getitem__))
        raise ImageError(
            f"{len(missing):,} of the {len(table):,} images do not exist:\n  {listing}",
            path=test_list,
            line=int(table.row[missing[0]]),
            remedy="check images (--images); with missing_images=skip (--missing_images=skip) the "
            "others are predicted, and run.py submit --fill=nearest fills these rows",
        )
    return table
