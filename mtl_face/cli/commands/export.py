"""`export`: write the network's parameters alone, for use elsewhere."""

import argparse

from mtl_face.cli import flags
from mtl_face.config import Config


def add_arguments(parser: argparse.ArgumentParser) -> None:
    flags.model(parser, required=True)
    flags.path(
        parser,
        "--output",
        "DIR",
        "folder for the parameters (default: RUN/export, or RUN/export_safetensors)",
    )
    parser.add_argument(
        "--format",
        choices=("orbax", "safetensors"),
        default="orbax",
        help="orbax: a folder of arrays, for JAX; safetensors: one file that numpy can read",
    )


def run(config: Config, options: argparse.Namespace) -> int:
    from mtl_face.run.export import export

    folder = export(options.model, config, form=options.format, output=options.output)
    print(f"next: python run.py evaluate --model={folder} --output=DIR evaluates them without")
    print("the workdir; mtl_face.load(FOLDER) reads them in Python (docs/export.md)")
    return 0
