"""`features`: compute face points or task tokens of a data set once, and keep them.

With --config the face points that the network of these settings takes; with --model the task
tokens of a trained network, which networks over time read. Training, evaluation and prediction do
so by themselves where they are absent. An interrupted command goes on where it was.
"""

import argparse

from mtl_face.cli import flags
from mtl_face.config import Config
from mtl_face.errors import ConfigError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    flags.model(parser)
    flags.path(
        parser,
        "--output",
        "FOLDER",
        "folder to keep them in, which data.features then names (default: features, below the "
        "root of the data set)",
    )


def run(config: Config | None, options: argparse.Namespace) -> int:
    from mtl_face.cli.progress import Progress

    if options.model is not None:
        from mtl_face.run.inputs import tokens

        progress = Progress("frames")
        tokens.compute(options.model, config, output=options.output, progress=progress)
        return 0
    if config is None:
        raise ConfigError(
            "features was given neither settings nor a model",
            remedy="give --config=FILE for face points, or --model=RUN for task tokens",
        )
    from mtl_face.run.inputs.features import features

    features(config, output=options.output, progress=Progress("faces"))
    return 0
