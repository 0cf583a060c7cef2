"""Compares the ways to augment a batch, side by side on the default device.

    python -m benchmarks.augment
    python -m benchmarks.augment --batch-size 8 --input-size 112

Every row is timed in every round, in turn, and its fastest round counts; `cpu` is processor time,
which other programs on the machine disturb less. Read the ratios, not the rates. Bytes and FLOP are
the compiler's own estimates. Ways of resampling are compared with the first one, in grey levels.
"""

import argparse
import functools
import time
from collections.abc import Callable, Mapping

import jax
import jax.numpy as jnp
import numpy as np

from mtl_face.config import AugmentationConfig
from mtl_face.objective import augment, mixup, resample
from mtl_face.objective.resample import coverage, source_coordinates


def resample_channels_in_turn(
    image_BHWC: jax.Array, transform_B23: jax.Array, *, input_size: int
) -> jax.Array:
    """What one would write first: `map_coordinates` on one channel after the other."""
    _, height, width, channels = image_BHWC.shape
    x_BVU, y_BVU = source_coordinates(transform_B23, input_size=input_size)

    def sample(image_HWC: jax.Array, x_VU: jax.Array, y_VU: jax.Array) -> jax.Array:
        planes = [
            jax.scipy.ndimage.map_coordinates(
                image_HWC[..., c], [y_VU, x_VU], order=1, mode="nearest"
            )
            for c in range(channels)
        ]
        return jnp.stack(planes, axis=-1)

    output_BVUC = jax.vmap(sample)(image_BHWC.astype(jnp.float32), x_BVU, y_BVU)
    return coverage(x_BVU, y_BVU, height=height, width=width)[..., None] * output_BVUC


def make_pictures(batch_size: int, stored_size: int) -> jax.Array:
    """Smooth random pictures over the whole range, uint8 `[B, size, size, 3]`."""
    coarse = np.random.default_rng(0).uniform(0, 255, (batch_size, 12, 12, 3))
    shape = (batch_size, stored_size, stored_size, 3)
    return jax.image.resize(jnp.asarray(coarse, jnp.float32), shape, "linear").astype(jnp.uint8)


def make_labels(batch_size: int) -> tuple[dict[str, jax.Array], dict[str, jax.Array]]:
    """Targets and weights of a fully labelled batch."""
    targets = {"va": (batch_size, 2), "au": (batch_size, 12), "expr": (batch_size, 8)}
    weights = {"va": (batch_size,), "au": (batch_size, 12), "expr": (batch_size,)}
    return (
        {task: jnp.full(shape, 0.5) for task, shape in targets.items()},
        {task: jnp.ones(shape) for task, shape in weights.items()},
    )


def time_in_turn(
    calls: Mapping[str, Callable[[], object]], rounds: int
) -> dict[str, tuple[float, float]]:
    """Wall and processor seconds of each call's fastest round, all calls taking turns."""
    fastest = dict.fromkeys(calls, (float("inf"), float("inf")))
    for _ in range(rounds):
        for name, call in calls.items():
            wall, processor = time.perf_counter(), time.process_time()
            jax.block_until_ready(call())
            wall, processor = time.perf_counter() - wall, time.process_time() - processor
            fastest[name] = min(fastest[name][0], wall), min(fastest[name][1], processor)
    return fastest


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--batch-size", type=int, default=32, help="examples, even")
    parser.add_argument("--stored-size", type=int, default=112, help="side of the crops, pixels")
    parser.add_argument("--input-size", type=int, default=224, help="side of the output, pixels")
    parser.add_argument("--rounds", type=int, default=8, help="times each row is run")
    arguments = parser.parse_args()
    batch_size: int = arguments.batch_size
    stored_size: int = arguments.stored_size
    input_size: int = arguments.input_size

    def draw(key: jax.Array) -> jax.Array:
        return augment.draw_transforms(
            key,
            batch_size,
            AugmentationConfig(),
            stored_size=stored_size,
            input_size=input_size,
        )

    def resampler(method: resample.Method) -> Callable[..., jax.Array]:
        return functools.partial(resample.resample, input_size=input_size, method=method)

    def draw_resample(key: jax.Array, image_BHWC: jax.Array) -> jax.Array:
        return resampler("auto")(image_BHWC, draw(key))

    def draw_resample_mix(
        key: jax.Array, image_BHWC: jax.Array, targets: dict, weights: dict
    ) -> tuple:
        geometry_key, mixup_key = jax.random.split(key)
        output_BVUC = draw_resample(geometry_key, image_BHWC)
        return mixup.mixup(mixup_key, output_BVUC, targets, weights, alpha=0.4)

    key = jax.random.key(0)
    stored_BHWC = make_pictures(batch_size, stored_size)
    labels = make_labels(batch_size)
    warped = (stored_BHWC, draw(key))
    resized = (
        stored_BHWC,
        augment.identity_transforms(batch_size, stored_size=stored_size, input_size=input_size),
    )
    in_turn = functools.partial(resample_channels_in_turn, input_size=input_size)
    rows: dict[str, tuple[Callable, tuple]] = {
        "gather": (resampler("gather"), warped),
        "separable": (resampler("separable"), warped),
        "channels in turn": (in_turn, warped),
        "gather, resize alone": (resampler("gather"), resized),
        "MixUp alone": (
            functools.partial(mixup.mixup, alpha=0.4),
            (key, resampler("auto")(*warped), *labels),
        ),
        "draw + resample": (draw_resample, (key, stored_BHWC)),
        "draw + resample + MixUp": (draw_resample_mix, (key, stored_BHWC, *labels)),
    }
    compiled = {
        name: jax.jit(function).lower(*inputs).compile()
        for name, (function, inputs) in rows.items()
    }
    calls = {name: functools.partial(compiled[name], *inputs) for name, (_, inputs) in rows.items()}
    results = {name: call() for name, call in calls.items()}  # also warms up
    fastest = time_in_turn(calls, arguments.rounds)

    print(
        f"{jax.devices()[0].device_kind}, {batch_size} crops of {stored_size} px to "
        f"{input_size} px; auto = {resample.resolve_method('auto')}\n"
        f"{'':25}{'images/s':>9}{'cpu ms/image':>14}{'cpu / gather':>14}"
        f"{'MB/image':>10}{'MFLOP/image':>13}{'difference: mean':>18}{'max':>6}"
    )
    for name, (wall, processor) in fastest.items():
        cost = compiled[name].cost_analysis() or {}
        row = (
            f"{name:25}{batch_size / wall:9.0f}{1e3 * processor / batch_size:14.2f}"
            f"{processor / fastest['gather'][1]:14.2f}"
            f"{cost.get('bytes accessed', np.nan) / 1e6 / batch_size:10.2f}"
            f"{cost.get('flops', np.nan) / 1e6 / batch_size:13.1f}"
        )
        if rows[name][1] is warped:
            difference = np.abs(np.asarray(results[name]) - np.asarray(results["gather"]))
            row += f"{difference.mean():18.3f}{difference.max():6.2f}"
        print(row)


if __name__ == "__main__":
    main()
