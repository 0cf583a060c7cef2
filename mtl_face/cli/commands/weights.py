"""`weights`: say what a file of initial weights is, and the settings that it needs."""

import argparse
import shlex

from mtl_face.cli import flags


def add_arguments(parser: argparse.ArgumentParser) -> None:
    flags.path(parser, "path", "PATH", "a weights file, or the folder of an export")
    parser.add_argument(
        "--channels",
        choices=("auto", "rgb", "bgr"),
        default="auto",
        help="channel order of its first convolution, if the file does not say",
    )
    parser.add_argument(
        "--prefix",
        help="what stands before the names of the network to take, if the file holds several",
    )


def run(config: None, options: argparse.Namespace) -> int:
    from mtl_face.weights import backbone

    order = None if options.channels == "auto" else options.channels
    loaded = backbone.load_backbone(options.path, channel_order=order, prefix=options.prefix)
    print("\n".join(backbone.describe(loaded, str(options.path))))
    file = shlex.quote(str(options.path))
    needed = backbone.needed_settings(loaded)
    changed = backbone.differing_from_defaults(needed)
    # Of a family's own section only what configs/paper.py, which has the defaults, lacks.
    shown = {n: value for n, value in needed.items() if n.count(".") < 2 or n in changed}
    settings = {"backbone.init_from": file, **shown}
    if order is not None:
        settings["backbone.init_channels"] = order
    if options.prefix is not None:
        settings["backbone.init_prefix"] = shlex.quote(options.prefix)
    print("next: python run.py train --config=configs/paper.py --workdir=DIR \\")
    print(" \\\n".join(f"    {flag}" for flag in backbone.flags(settings)))
    return 0
