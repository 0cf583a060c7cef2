"""`run.py predict`: predictions for a list of images that have no labels, as a test set's."""

import argparse
import dataclasses
from pathlib import Path
from typing import Any

import jax

from data_pipeline import images
from data_pipeline.formats import test_list
from mtl_face import config as config_lib
from mtl_face.errors import ConfigError, ImageError
from mtl_face.evaluation import prediction_files
from mtl_face.run import evaluate_params, evaluate_run
from mtl_face.run import provenance as lineage
from mtl_face.run import workdir as workdirs
from mtl_face.run.postprocess import post_process, smoothing_of_settings
from mtl_face.run.session import Session, pixels, say
from mtl_face.tables import FrameTable
from mtl_face.training.state import TrainState
from mtl_face.weights.exported import weights_sha256

_SHOWN = 5


def run(config: config_lib.Config | None, options: argparse.Namespace) -> int:
    """Predicts every image of a list.

    Args:
        config: the settings: a file's, or those that the run or the export was made with.
        options: `workdir` or `params`, `test_list`, `images`, `missing_images`, `calibration`,
            `output`.

    Returns:
        Exit status 0.

    Raises:
        ConfigError: the flags name no weights, or two, or no images.
        UserError: the list, an image or the weights cannot be read, or the output not be written.
    """
    if config is None or (options.workdir is None) == (options.params is None):
        raise ConfigError(
            "predict needs the weights of a run or of an export",
            remedy="give --workdir=DIR or --params=EXPORT",
        )
    if options.output.suffix not in (".parquet", ".csv"):
        raise ConfigError(
            f"--output={options.output} is neither .parquet nor .csv",
            remedy="name the file as one of them",
        )
    table = _read_list(config, options)
    session, state, provenance = _weights(config, options)
    say(f"predicting {len(table):,} images of {len(set(table.video)):,} videos ...")
    # Shards hold the rows that the run was trained on, and not those of the list.
    files = dataclasses.replace(config, data=dataclasses.replace(config.data, shards=None))
    predictions = session.predict(state, table, pixels(files, table, say).source)
    variables = jax.device_get(
        {"params": state.params["network"], "batch_stats": state.batch_stats}
    )
    origin = {"weights_sha256": weights_sha256(variables), "provenance": provenance}
    predictions = dataclasses.replace(predictions, metadata={**predictions.metadata, **origin})
    lineage.warn(provenance, say)
    predictions, cautions = post_process(
        predictions,
        smoothing=smoothing_of_settings(config.evaluation.smoothing),
        calibration=options.calibration or config.evaluation.calibration,
        say=say,
    )
    for line in cautions:
        say(f"warning: {line}")
    if jax.process_index() == 0:
        write = (
            prediction_files.write
            if options.output.suffix == ".parquet"
            else prediction_files.write_csv
        )
        workdirs.make_folder(options.output.parent)
        write(predictions, options.output)
        say(f"predictions: {options.output}")
        say(
            f"next: python run.py submit --predictions={options.output} "
            f"--test_list={options.test_list} --edition=NAME --output=FILE"
        )
    return 0


def _read_list(config: config_lib.Config, options: argparse.Namespace) -> FrameTable:
    root = options.images
    if root is None:
        if config.data.root is None:
            raise ConfigError(
                "predict was given no folder of images",
                remedy="give --images=FOLDER, which holds <video>/<frame>.jpg",
            )
        root = Path(config.data.root).expanduser() / config.data.image_folder
    table = test_list.load_test_list(options.test_list, root)
    if options.missing_images == "skip":
        table, dropped = images.drop_missing(table)
        say(f"rows without an image, left out: {len(dropped):,}")
        return table
    missing = images.find_missing(table)
    if len(missing):
        paths = table.paths()
        shown = "".join(f"\n  {paths[row]}" for row in missing[:_SHOWN])
        more = f"\n  ... and {len(missing) - _SHOWN:,} more" if len(missing) > _SHOWN else ""
        raise ImageError(
            f"{len(missing):,} of the {len(table):,} images do not exist:{shown}{more}",
            path=options.test_list,
            line=int(table.row[missing[0]]),
            remedy="check --images; with --missing_images=skip the others are predicted, and "
            "run.py submit --fill=nearest fills these rows",
        )
    return table


def _weights(
    config: config_lib.Config, options: argparse.Namespace
) -> tuple[Session, TrainState, dict[str, Any] | None]:
    if options.params is not None:
        return evaluate_params.restore(config, options.params)
    workdir = workdirs.open_for_reading(options.workdir, config)
    session = Session(config)
    step, state = evaluate_run.restore(session, workdir)
    say(f"{config.evaluation.checkpoint} checkpoint, step {step}")
    return session, state, lineage.of_checkpoint(config, workdir, step)
