"""`export`: write a network for use elsewhere: its parameters, or its whole program."""

import argparse

from mtl_face.cli import flags
from mtl_face.config import Config
from mtl_face.errors import ConfigError


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
    parser.add_argument(
        "--precision",
        choices=("float32", "float16", "int8"),
        default="float32",
        help="of --format=onnx: the numbers that the network computes in; float16 and int8 make "
        "smaller files, whose answers differ (default: float32)",
    )
    flags.path(
        parser,
        "--crops",
        "FOLDER",
        "of --precision: aligned crops like those to come, as the folder of a data set; int8 "
        "measures the ranges of values on them",
    )


def run(config: Config, options: argparse.Namespace) -> int:
    from mtl_face.run.export import PROGRAMS, export
    from mtl_face.run.smaller import export_smaller

    if options.precision != "float32":
        if options.format != "onnx":
            raise ConfigError(
                f"--precision={options.precision} goes with --format=onnx", remedy="give both"
            )
        if options.output is None:
            raise ConfigError(
                "where to write the smaller file is not said", remedy="give --output=FILE.onnx"
            )
        export_smaller(
            options.model,
            options.output,
            config,
            precision=options.precision,
            crops=options.crops,
            crop_size=options.crop_size,
            calibration=options.calibration,
        )
        print(f"next: python run.py evaluate --model={options.output} --output=DIR")
        print("      --against=MODEL says what its scores lose")
        return 0
    if options.crops is not None:
        raise ConfigError("--crops go with --precision", remedy="leave them out, or give both")
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
