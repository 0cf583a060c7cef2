"""Augmentation and MixUp: their share of the paper's train step, and resampling beside other ways.

    python -m benchmarks.augment --output=docs/benchmarks/augment.json
    python -m benchmarks.augment --batch-size 8 --input-size 112

On the default device. The share is what geometry and MixUp take by themselves, jitted as one
program, of a train step that holds them. The other ways do the same with a batch: each crop is
turned, shifted, zoomed and mirrored by its own affine map, with bilinear interpolation and black
around it. dm-pix (`pip install '.[benchmarks]'`, left out where it is absent) keeps the size of a
picture, and beside it all ways do. It is timed by one map, and by one operation after the other, as
it is commonly used. Differences between the results are printed in grey levels. Colours stay as
they are: this project does not change them.
"""

import argparse
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy import ndimage

try:
    import dm_pix
except ModuleNotFoundError:
    dm_pix = None

import mtl_face
from benchmarks import comparison, jax_step
from mtl_face.config import AugmentationConfig
from mtl_face.inputs import IMAGE
from mtl_face.objective import augment, mixup, resample
from mtl_face.run import environment
from mtl_face.training.experiment import Experiment

GOAL = 0.03
"""Largest share of a train step on a processor that augmentation and MixUp may take."""

OURS = "mtl_face"

Ways = dict[str, tuple[Callable[..., Any], tuple[Any, ...]]]
"""Functions to be jitted and their arguments, by name."""


def main() -> None:
    """Prints one table for each question."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    comparison.add_arguments(parser, rounds=9)
    parser.add_argument("--experiment", default="paper_mixup", help="whose train step")
    parser.add_argument("--batch-size", type=int, default=16, help="examples, even")
    parser.add_argument("--stored-size", type=int, default=112, help="side of the crops, pixels")
    parser.add_argument("--input-size", type=int, default=224, help="side of the output, pixels")
    options = parser.parse_args()
    environment.restart_with_huge_pages()
    environment.keep_freed_memory()  # as `run.py train` on a processor
    if dm_pix is None:
        print("dm-pix is not installed and left out: pip install '.[benchmarks]'", flush=True)
    sizes = {"stored_size": options.stored_size, "input_size": options.input_size}
    same = {"stored_size": options.input_size, "input_size": options.input_size}
    batch_size, rounds = options.batch_size, options.rounds
    groups = [
        timed(f"Resampling {arrow(sizes)}", resampling(batch_size, sizes), batch_size, rounds),
        timed(f"Resampling {arrow(same)}", same_size(batch_size, same), batch_size, rounds),
        timed(f"Parts, {arrow(sizes)}", parts(batch_size, sizes), batch_size, rounds),
        share_of_step(options.experiment, batch_size, rounds),
    ]
    comparison.report("Augmentation", groups, options.output)


def arrow(sizes: dict[str, int]) -> str:
    """Sizes in words."""
    return f"{sizes['stored_size']} to {sizes['input_size']} pixels"


def timed(name: str, ways: Ways, batch_size: int, rounds: int) -> comparison.Group:
    """Times of jitted ways, the first the reference, and how far their pictures are from ours."""
    calls = {
        label: functools.partial(jax.jit(function).lower(*inputs).compile(), *inputs)
        for label, (function, inputs) in ways.items()
    }
    if OURS in calls:
        ours = np.asarray(calls[OURS]())
        for label, call in calls.items():
            difference = np.abs(np.asarray(call()) - ours)
            print(f"{name}, {label}: {difference.mean():.3f} grey levels from ours", flush=True)
    seconds = comparison.time_in_turn(
        {label: functools.partial(finished, call) for label, call in calls.items()}, rounds=rounds
    )
    times = {label: [1e3 * each / batch_size for each in found] for label, found in seconds.items()}
    return comparison.Group(name, next(iter(ways)), "ms an image", times)


def finished(call: Callable[[], Any]) -> None:
    """Calls, and waits for the devices."""
    jax.block_until_ready(call())


def resampling(batch_size: int, sizes: dict[str, int]) -> Ways:
    """Through random maps: map_coordinates, and the methods of `resample`."""
    inputs = (pictures(batch_size, sizes["stored_size"]), maps(batch_size, sizes))
    input_size = sizes["input_size"]
    method = resample.resolve_method("auto")
    ways: Ways = {
        "map_coordinates, channel by channel": (
            functools.partial(channel_by_channel, input_size=input_size),
            inputs,
        )
    }
    for name in resample.METHODS[1:]:
        label = OURS if name == method else f"{OURS}, {name}"
        ways[label] = (
            functools.partial(resample.resample, input_size=input_size, method=name),
            inputs,
        )
    return ways


def same_size(batch_size: int, sizes: dict[str, int]) -> Ways:
    """Through random maps that keep the size: dm-pix, map_coordinates, and ours."""
    size = sizes["input_size"]
    drawn = movements(batch_size, size)
    stored = pictures(batch_size, size)
    transform_B23 = augment.compose_transforms(*drawn, **sizes)
    ways: Ways = {}
    if dm_pix is not None:
        ways["dm-pix, one affine map"] = (pix_one_map, (stored, transform_B23))
        ways["dm-pix, flip, rotate, zoom and shift"] = (pix_in_turn, (stored, *drawn))
    ways["map_coordinates, channel by channel"] = (
        functools.partial(channel_by_channel, input_size=size),
        (stored, transform_B23),
    )
    ways[OURS] = (functools.partial(resample.resample, input_size=size), (stored, transform_B23))
    return ways


def parts(batch_size: int, sizes: dict[str, int]) -> Ways:
    """What is added step by step: resampling, random maps, MixUp."""
    stored = pictures(batch_size, sizes["stored_size"])
    resized = augment.identity_transforms(batch_size, **sizes)
    labels = make_labels(batch_size)
    key = jax.random.key(0)
    image_BHWC = jnp.zeros((batch_size, *2 * (sizes["input_size"],), 3))
    resampled = functools.partial(resample.resample, input_size=sizes["input_size"])

    def draw(key: jax.Array, image_BHWC: jax.Array) -> jax.Array:
        return resampled(image_BHWC, maps(batch_size, sizes, key))

    def mix(key: jax.Array, image_BHWC: jax.Array, targets: dict, weights: dict) -> tuple:
        return mixup.mixup(key, image_BHWC, targets, weights, alpha=0.4)

    def draw_and_mix(key: jax.Array, image_BHWC: jax.Array, targets: dict, weights: dict) -> tuple:
        geometry_key, mixup_key = jax.random.split(key)
        return mix(mixup_key, draw(geometry_key, image_BHWC), targets, weights)

    return {
        "resize": (resampled, (stored, resized)),
        "random maps": (draw, (key, stored)),
        "MixUp": (mix, (key, image_BHWC, *labels)),
        "random maps and MixUp": (draw_and_mix, (key, stored, *labels)),
    }


def share_of_step(name: str, batch_size: int, rounds: int) -> comparison.Group:
    """The train step of an experiment, and its augmentation alone."""
    settings = mtl_face.load_config(name, **{"data.root": "."})
    experiment = Experiment(settings, devices=jax.devices()[:1])
    batch = jax_step.make_batch(settings.data.image_size, batch_size)
    step = jax_step.train_way(experiment, batch, experiment.augment)
    inputs = jax.device_put(({IMAGE: batch[IMAGE]}, batch["targets"], batch["weights"]))
    alone = jax.jit(experiment.augment).lower(jax.random.key(0), *inputs).compile()
    call = functools.partial(alone, jax.random.key(0), *inputs)
    seconds = comparison.time_in_turn(
        {"train step": step, "augmentation alone": functools.partial(finished, call)},
        rounds=rounds,
    )
    rows = zip(seconds["augmentation alone"], seconds["train step"], strict=True)
    share = comparison.spread([100 * part / whole for part, whole in rows])
    print(f"augmentation takes {share} % of a train step; goal on a processor: {100 * GOAL:g} %")
    times = {label: [1e3 * each / batch_size for each in found] for label, found in seconds.items()}
    title = f"Train step of {name}, batch {batch_size}: augmentation takes {share} %"
    return comparison.Group(title, "train step", "ms an image", times)


def channel_by_channel(
    image_BHWC: jax.Array, transform_B23: jax.Array, *, input_size: int
) -> jax.Array:
    """What one would write first: `map_coordinates` on one channel after the other."""
    _, height, width, channels = image_BHWC.shape
    x_BVU, y_BVU = resample.source_coordinates(transform_B23, input_size=input_size)

    def sample(image_HWC: jax.Array, x_VU: jax.Array, y_VU: jax.Array) -> jax.Array:
        planes = [
            ndimage.map_coordinates(image_HWC[..., c], [y_VU, x_VU], order=1, mode="nearest")
            for c in range(channels)
        ]
        return jnp.stack(planes, axis=-1)

    output_BVUC = jax.vmap(sample)(image_BHWC.astype(jnp.float32), x_BVU, y_BVU)
    cover_BVU = resample.coverage(x_BVU, y_BVU, height=height, width=width)
    return cover_BVU[..., None] * output_BVUC


def pix_one_map(image_BHWC: jax.Array, transform_B23: jax.Array) -> jax.Array:
    """dm-pix through the same maps, which it takes over row, column and channel."""

    def one(image_HWC: jax.Array, transform_23: jax.Array) -> jax.Array:
        (a, b, c), (d, e, f) = transform_23
        matrix = jnp.array([[e, d, 0.0], [b, a, 0.0], [0.0, 0.0, 1.0]])
        offset = jnp.array([f, c, 0.0])
        return dm_pix.affine_transform(image_HWC, matrix, offset=offset, mode="constant")

    return jax.vmap(one)(image_BHWC.astype(jnp.float32), transform_B23)


def pix_in_turn(
    image_BHWC: jax.Array,
    angle_B: jax.Array,
    shift_B2: jax.Array,
    zoom_B: jax.Array,
    flip_B: jax.Array,
) -> jax.Array:
    """dm-pix by an operation for each movement; two of them interpolate."""

    def one(
        image_HWC: jax.Array, angle: jax.Array, shift_2: jax.Array, zoom: jax.Array, flip: jax.Array
    ) -> jax.Array:
        image_HWC = jnp.where(flip, dm_pix.flip_left_right(image_HWC), image_HWC)
        image_HWC = dm_pix.rotate(image_HWC, angle, mode="constant")
        middle = (image_HWC.shape[0] - 1) / 2
        offset = jnp.append(middle - (middle + shift_2[::-1]) / zoom, 0.0)
        matrix = jnp.diag(jnp.array([1 / zoom, 1 / zoom, 1.0]))
        return dm_pix.affine_transform(image_HWC, matrix, offset=offset, mode="constant")

    return jax.vmap(one)(image_BHWC.astype(jnp.float32), angle_B, shift_B2, zoom_B, flip_B)


def movements(batch_size: int, size: int) -> tuple[jax.Array, jax.Array, jax.Array, jax.Array]:
    """Angles, shifts, zooms and flips of the paper's ranges, as `compose_transforms` takes them."""
    ranges = AugmentationConfig()
    rng = np.random.default_rng(0)
    angle, reach = np.deg2rad(ranges.rotation_degrees), ranges.translation * size
    return (
        jnp.asarray(rng.uniform(-angle, angle, batch_size), jnp.float32),
        jnp.asarray(rng.uniform(-reach, reach, (batch_size, 2)), jnp.float32),
        jnp.asarray(rng.uniform(*ranges.zoom, batch_size), jnp.float32),
        jnp.asarray(rng.random(batch_size) < 0.5),
    )


def maps(batch_size: int, sizes: dict[str, int], key: jax.Array | None = None) -> jax.Array:
    """Random affine maps of the paper's ranges, float32 [B, 2, 3]."""
    key = jax.random.key(0) if key is None else key
    return augment.draw_transforms(key, batch_size, AugmentationConfig(), **sizes)


def pictures(batch_size: int, size: int) -> jax.Array:
    """Smooth random pictures over the whole range, uint8 `[B, size, size, 3]`."""
    coarse = np.random.default_rng(0).uniform(0, 255, (batch_size, 12, 12, 3))
    shape = (batch_size, size, size, 3)
    return jax.image.resize(jnp.asarray(coarse, jnp.float32), shape, "linear").astype(jnp.uint8)


def make_labels(batch_size: int) -> tuple[dict[str, jax.Array], dict[str, jax.Array]]:
    """Targets and weights of a fully labelled batch."""
    batch = jax_step.make_batch(1, batch_size)
    return jax.device_put((batch["targets"], batch["weights"]))


if __name__ == "__main__":
    main()
