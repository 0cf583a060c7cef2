"""`export`: write a network for use elsewhere: its parameters, or its whole program."""

import argparse

from mtl_face.cli import flags
from mtl_face.config import Config


def add_arguments(parser: argparse.ArgumentParser) -> None:
    flags.model(parser, required=True)
    flags.path(
        parser,
        "--output",
        "FOLDER|FILE",
        "what to write (default: RUN/export, RUN/export_safetensors, RUN/export.stablehlo.zip or "
        "RUN/export.onnx)",
    )
    parser.add_argument(
        "--format",
        choices=("orbax", "safetensors", "stablehlo", "onnx"),
        default="orbax",
        help="orbax: a folder of arrays, for JAX; safetensors: one file of arrays that numpy can "
        "read; stablehlo, onnx: one file of the whole program, from uint8 crops to named answers, "
        "for JAX alone and for ONNX Runtime",
    )
    parser.add_argument(
        "--crop_size",
        type=flags.positive_number,
        metavar="PIXELS",
        help="of a program: side of the crops that it takes (default: as in training)",
    )
    flags.calibration(parser)


def run(config: Config, options: argparse.Namespace) -> int:
    from mtl_face.run.export import PROGRAMS, export

    written = export(
        options.model,
        config,
        form=options.format,
        output=options.output,
        crop_size=options.crop_size,
        calibration=options.calibration,
    )
    if options.format in PROGRAMS:
        print(f"next: docs/export.md has the lines that run it ({options.format})")
        return 0
    print(f"next: python run.py evaluate --model={written} --output=DIR evaluates them without")
    print("the workdir; mtl_face.load(FOLDER) reads them in Python (docs/export.md)")
    return 0
