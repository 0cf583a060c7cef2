"""`run.py prepare`: makes the embedded data set, or checks every row and image of a real one.

With a flag it does something else, each in a module of its own.
"""

import argparse
import dataclasses

from mtl_face import config as config_lib
from mtl_face.errors import ConfigError
from mtl_face.run import datasets, image_faults
from mtl_face.run.every_split import every_split


def run(config: config_lib.Config | None, options: argparse.Namespace) -> int:
    """Does what the flags ask for; without one of them, makes or checks the data.

    Args:
        config: the settings; only those of `data` matter. None if no config was given.
        options: `videos`, `audit`, `output`, `num_videos`, `shards`, `shard_format`, `beam`.

    Returns:
        Exit status 0.

    Raises:
        UserError: for a wrong combination of flags, or for what the chosen work finds wrong.
    """
    if options.videos is not None:
        from mtl_face.run import prepare_videos

        return prepare_videos.run(config, options)
    if config is None:
        raise ConfigError(
            "prepare needs --config, which names the data",
            remedy="add --config=configs/NAME.py, or give --videos=PATH to cut faces out of videos",
        )
    _check_flags(options)
    config = _without_shards(config)
    if options.shards is not None:
        from mtl_face.run import prepare_shards

        return prepare_shards.run(config, options)
    if options.audit:
        from mtl_face.run import prepare_audit

        return prepare_audit.run(config, options)
    return _check(config, options)


def _check_flags(options: argparse.Namespace) -> None:
    """Refuses flags that would have no effect together."""
    if options.beam is not None and options.shards is None:
        raise ConfigError("--beam goes with --shards", remedy="add --shards=DIR, or leave it out")
    if options.audit and options.shards is not None:
        raise ConfigError("--audit and --shards do two things", remedy="run one after the other")
    if options.output is not None and not options.audit:
        raise ConfigError(
            "--output goes with --audit or --videos",
            remedy="add one of them, or leave --output out",
        )
    if options.num_videos is not None and (options.audit or options.shards is not None):
        raise ConfigError(
            "--num_videos goes with neither --audit nor --shards",
            remedy="give --config.data.rendered_faces.num_videos=N",
        )


def _without_shards(config: config_lib.Config) -> config_lib.Config:
    """The config with the data set's own files in place of shards, which is said.

    Raises:
        ConfigError: the settings do not name those files.
    """
    if config.data.shards is None:
        return config
    print(
        f"data.shards={config.data.shards} is left aside: this reads the data set itself, its "
        "annotations and image files, and not the shards"
    )
    data = dataclasses.replace(config.data, shards=None)
    return config_lib.validate(config_lib.to_dict(dataclasses.replace(config, data=data)))


def _check(config: config_lib.Config, options: argparse.Namespace) -> int:
    """Makes the data, then decodes every image.

    Raises:
        UserError: for the first kind of defect that is found; several are listed together.
    """
    data = config.data
    if options.num_videos is not None:
        data = dataclasses.replace(
            data,
            rendered_faces=dataclasses.replace(data.rendered_faces, num_videos=options.num_videos),
        )
        config = config_lib.validate(config_lib.to_dict(dataclasses.replace(config, data=data)))
        data = config.data
    roots: dict[str, None] = {}
    for part in every_split(data):
        roots[str(part.root)] = None
        table = datasets.load_split(part.settings, part.root, part.split, print)
        image_faults.refuse(table, label=part.label, folder=part.root / part.settings.image_folder)
    print(f"all rows and images are sound: {', '.join(roots)}")
    print("next: python run.py train with the same --config and --workdir=DIR")
    return 0
