"""`replay`: take a bad step of a run again, and find where its first bad number appears."""

import argparse
import math
from collections.abc import Callable
from typing import Any

from mtl_face.cli import flags
from mtl_face.config import Config
from mtl_face.errors import shortened
from mtl_face.tasks import TASKS

_SHOWN = 8
"""Examples and places listed at most."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    flags.model(parser, exports=False, required=True)
    flags.path(parser, "--dump", "FILE", "the bad step: RUN/replay/STEP.npz", required=True)


def run(config: Config, options: argparse.Namespace) -> int:
    from mtl_face.run import replay

    found = replay.take_again(config, options.model, options.dump, say=print)
    print(f"taken again it is {'refused again' if found.refused else 'SOUND'}:")
    print("\n".join(_numbers(found.numbers, found.dump.note["numbers"])))

    def name_of(example: int) -> str:
        """Its image, and the one that MixUp blends it with: its neighbour."""
        images = found.dump.images
        mixed = config.augmentation.mixup_alpha > 0
        blended = f", blended with {images[example ^ 1]}" if mixed else ""
        return f"{images[example]} (example {example}{blended})"

    print("\n".join(_findings(found.diagnosis, name_of)))
    path = found.dump.path
    print(f"its images: {path.with_suffix('.json')}; its batch: {path}")
    print(
        "next: look at these images and labels, or train again with training.on_bad_step=skip, "
        "optimizer.gradient_clip=1.0 or a lower rate"
    )
    return 0


def _numbers(again: dict[str, float], then: dict[str, Any]) -> list[str]:
    """A line for each number, with what it was in the run where that differs."""
    lines = []
    for name, value in again.items():
        if name.endswith("_weight"):
            continue
        before = float(then.get(name, "nan"))
        same = before == value or (math.isnan(before) and math.isnan(value))
        label = (
            f"loss of {name}" if name in TASKS else name.replace("gradient_norm", "gradient norm")
        )
        lines.append(f"  {label:28} {value:.6g}" + ("" if same else f"  (in the run {before:.6g})"))
    return lines


def _findings(found: Any, name_of: Callable[[int], str]) -> list[str]:
    first = found.first_bad
    if first is None:
        losses = found.example_loss["loss"].tolist()
        worst = sorted(range(len(losses)), key=lambda example: -losses[example])[:_SHOWN]
        largest = sorted(found.places, key=lambda place: -place.largest)[:_SHOWN]
        return [
            "every value is finite. The examples with the largest losses:",
            *(f"  {losses[example]:.6g}  {name_of(example)}" for example in worst),
            "the largest magnitudes:",
            *(f"  {place.largest:.4g}  {place.name}" for place in largest),
        ]
    lines = [f"the first value that is not finite: {_words(first)}"]
    before = found.places[: found.places.index(first)]
    lines += [f"  just before it: {_words(place)}" for place in before[-2:]]
    if first.bad_B is not None:
        bad = first.bad_B.nonzero()[0].tolist()
        lines.append(f"  its examples ({len(bad)} of {len(first.bad_B)}):")
        lines += [f"    {line}" for line in shortened(bad, _SHOWN, name_of)]
    later = [place.name for place in found.places if place.bad and place is not first]
    lines.append(f"  {len(later)} later values are not finite either")
    return lines


def _words(place: Any) -> str:
    return f"{place.name}: {place.bad} of {place.size} bad, the rest up to {place.largest:.4g}"
