"""`features`: compute the face points of a data set once, and keep them.

Training, evaluation and prediction of a network that takes points do so by themselves where they
are absent. An interrupted command goes on where it was.
"""

import argparse

from mtl_face.cli import flags
from mtl_face.config import Config


def add_arguments(parser: argparse.ArgumentParser) -> None:
    flags.path(
        parser,
        "--output",
        "FOLDER",
        "folder to keep them in, which data.features then names (default: features, below the "
        "root of the data set)",
    )


def run(config: Config, options: argparse.Namespace) -> int:
    from mtl_face.cli.progress import Progress
    from mtl_face.run.inputs.features import features

    features(config, output=options.output, progress=Progress("faces"))
    return 0
