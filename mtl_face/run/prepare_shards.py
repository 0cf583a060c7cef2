"""`run.py prepare --shards=DIR`: writes rows and images as shards, to be trained on from there."""

import argparse
import importlib.util
import logging
import shlex
from typing import Any

from mtl_face import config as config_lib
from mtl_face.cli.progress import Progress
from mtl_face.errors import ConfigError
from mtl_face.run import datasets, image_faults


def run(config: config_lib.Config, options: argparse.Namespace) -> int:
    """Writes the training and the validation split.

    Args:
        config: the settings; only those of `data` matter.
        options: `shards`, `shard_format`, `beam`.

    Returns:
        Exit status 0.

    Raises:
        UserError: the data cannot be read, an image cannot be decoded, shards are there already, or
            Beam is not installed.
    """
    beam_options = None if options.beam is None else _beam_options(options.beam)
    splits = datasets.load_all(config.data, print)
    for split, table in splits.items():
        image_faults.refuse(table, label=split, folder=None)

    from data_pipeline import shards

    logging.getLogger("absl").setLevel(logging.ERROR)  # it warns of a config of our own
    folder = shards.write(
        splits,
        options.shards.expanduser().resolve(),
        file_format=options.shard_format,
        beam_options=beam_options,
        progress=Progress("records written"),
    )
    size = sum(path.stat().st_size for path in folder.iterdir())
    print(f"wrote {sum(map(len, splits.values()))} records ({size / 2**20:.1f} MiB): {folder}")
    print(f"next: python run.py train with the same --config, --config.data.shards={folder}")
    return 0


def _beam_options(text: str) -> Any:
    if importlib.util.find_spec("apache_beam") is None:
        raise ConfigError(
            "--beam needs Apache Beam, which is not installed",
            remedy="pip install -e '.[beam]' in an environment of its own (see docs/shards.md), or "
            "leave --beam out",
        )
    from apache_beam.options.pipeline_options import PipelineOptions

    return PipelineOptions(shlex.split(text))
