"""`weights`: say what a file of initial weights is, and the settings that it needs."""

import argparse
import shlex
from pathlib import Path

CONFIG = "none"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "path", type=Path, metavar="PATH", help="a weights file, or the folder of an export"
    )
    parser.add_argument(
        "--channels",
        choices=("auto", "rgb", "bgr"),
        default="auto",
        help="channel order of its first convolution, if the file does not say",
    )


def run(config: None, options: argparse.Namespace) -> int:
    from mtl_face.weights.backbone import describe, flags, load_backbone, needed_settings

    order = None if options.channels == "auto" else options.channels
    backbone = load_backbone(options.path, channel_order=order)
    for line in describe(backbone, str(options.path)):
        print(line)
    settings = {"backbone.init_from": shlex.quote(str(options.path)), **needed_settings(backbone)}
    if order is not None:
        settings["backbone.init_channels"] = order
    print("next: python run.py train --config=configs/paper.py --workdir=DIR \\")
    print(" \\\n".join(f"    {flag}" for flag in flags(settings)))
    return 0
