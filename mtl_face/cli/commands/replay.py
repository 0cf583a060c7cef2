"""`replay`: take a bad step of a run again, and find where its first bad number appears."""

import argparse

from mtl_face.cli import flags
from mtl_face.config import Config


def add_arguments(parser: argparse.ArgumentParser) -> None:
    flags.model(parser, exports=False, required=True)
    flags.path(parser, "--dump", "FILE", "the bad step: RUN/replay/STEP.npz", required=True)


def run(config: Config, options: argparse.Namespace) -> int:
    from mtl_face.run.replay import take_again

    path = take_again(config, options.model, options.dump, say=print)
    print(f"its images: {path.with_suffix('.json')}; its batch: {path}")
    print(
        "next: look at these images and labels, or train again with training.on_bad_step=skip, "
        "optimizer.gradient_clip=1.0 or a lower rate"
    )
    return 0
