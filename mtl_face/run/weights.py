"""`run.py weights`: what a weights file is, and the settings that a run on it needs."""

import argparse
import shlex

from mtl_face import config as config_lib
from mtl_face.weights import load_backbone, pairing
from mtl_face.weights.describe import describe


def run(config: config_lib.Config | None, options: argparse.Namespace) -> int:
    """Reads a file as initial weights and prints what it is. JAX is not imported for a file.

    Args:
        config: none.
        options: `path`, `channels`.

    Returns:
        Exit status 0.
    """
    del config
    order = None if options.channels == "auto" else options.channels
    backbone = load_backbone(options.path, channel_order=order)
    for line in describe(backbone, str(options.path)):
        print(line)
    flags = [
        f"--config.model.backbone.init_from={shlex.quote(str(options.path))}",
        *pairing.settings(backbone),
    ]
    if order is not None:
        flags.append(f"--config.model.backbone.init_channels={order}")
    print("next: python run.py train --config=configs/paper.py --workdir=DIR \\")
    print(" \\\n".join(f"    {flag}" for flag in flags))
    return 0
