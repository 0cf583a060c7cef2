"""The plan of a training step, and the search for the largest batch that fits."""

import dataclasses
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

from mtl_face.config import Config
from mtl_face.errors import ConfigError
from mtl_face.planner import Target, chips, estimate, flops, hlo, programs

_REMEDY = "give a number of images/s, or a file of `python -m benchmarks.input --output=FILE.json`"


def make(
    config: Config, target: Target, *, input_rate: str | None = None, say: Callable[[str], None]
) -> tuple[dict[str, Any], programs.Program]:
    """Compiles a step, unless that was done before, and works out the figures.

    Neither data nor weights are looked for; `input_rate` as in `measured_input`.

    Returns:
        The figures, JSON values, and the compiled step. The figures are the target, `example`
        (image, or window of a network over time, which names with `image` then stand for),
        `device_kind`, `devices`, `chips`, `hosts`, `fits`, `unit` (batches are multiples of it),
        `chip` (its published peaks, as far as a step can use them) and `capacity` (bytes of a chip
        that a step may take; both None if they are not known), `parameters`, `compile_seconds`. If
        the step was compiled, also all of `estimate.analyse`, and `input_rate_measured`, images/s
        of a host.

    Raises:
        UserError: topology, batch or mesh are impossible, the input's rate cannot be read, or the
            compiler is absent or fails.
    """
    if config.is_over_time and input_rate is not None:
        raise ConfigError(
            f"temporal.kind is {config.temporal.kind}, which reads windows, and --input_rate is of "
            "images",
            remedy="leave it out",
        )
    chips.check_topology(target.topology)
    measured = None if input_rate is None else measured_input(config, input_rate)
    program = programs.compiled(config, target, say=say)
    answer = program.answer
    chip = _usable(answer)
    # A network over time computes in float32.
    dtype = "float32" if config.is_over_time else config.model.compute_dtype
    figures: dict[str, Any] = {
        "topology": target.topology,
        "batch_size": target.batch_size,
        "example": programs.example(config),
        "compute_dtype": dtype,
        **{key: answer[key] for key in ("device_kind", "devices", "chips", "hosts", "fits")},
        "unit": answer["devices"]
        * math.lcm(
            2 if config.augmentation.mixup_alpha > 0 else 1, config.optimizer.accumulation_steps
        ),
        "chip": None if chip is None else dataclasses.asdict(chip) | {"flops": chip.flops(dtype)},
        "capacity": None if chip is None else chip.memory_bytes,
        "compile_seconds": answer["seconds"],
        "parameters": answer["parameters"],
    }
    if answer["fits"]:
        figures |= estimate.analyse(
            answer,
            hlo.parse(program.text()),
            batch_size=target.batch_size,
            chip=chip,
            compute_dtype=dtype,
            analytical=flops.total(
                flops.over_time(config, answer["learned"])
                if config.is_over_time
                else flops.by_part(config.model, answer["learned"])
            ),
        )
        if answer["platform"] == "gpu" and chip is not None:  # its compiler refuses nothing
            figures["fits"] = figures["memory"]["needed"] <= chip.memory_bytes
        if chip is not None:
            figures["input_rate_measured"] = measured
    return figures, program


def _usable(answer: dict[str, Any]) -> chips.Chip | None:
    """The peaks of the chip that was compiled for, as far as a step can use them."""
    chip = chips.of_device(answer["device_kind"])
    if chip is None:
        return None
    memory, links = chip.memory_bytes, chip.link_bandwidth
    if answer["memory_limit"]:
        memory = min(memory, round(answer["memory_limit"] * answer["devices"] / answer["chips"]))
    elif answer["platform"] == "gpu":
        memory = int(chips.USABLE_OF_GPU * memory)
    if chip.network_bandwidth is not None and answer["hosts"] > 1:
        # As many rings as a host has GPUs, each with one way to the next host.
        links = min(links, chip.network_bandwidth * answer["chips"] / answer["hosts"])
    return dataclasses.replace(chip, memory_bytes=memory, link_bandwidth=links)


def search(
    config: Config,
    target: Target,
    figures: dict[str, Any],
    *,
    compiles: int,
    say: Callable[[str], None],
) -> dict[str, Any]:
    """As `estimate.largest_batch`, after at most `compiles` more compiles than that of `figures`.

    The chip's memory must be known.
    """

    def needed(batch_size: int) -> int | None:
        wanted = dataclasses.replace(target, batch_size=batch_size)
        answer = programs.compiled(config, wanted, say=say).answer
        if not answer["fits"]:
            return None
        per_chip = answer["devices"] / answer["chips"]
        return estimate.memory(answer, None, per_chip)["needed"]

    memory = figures.get("memory")
    return estimate.largest_batch(
        needed,
        first=target.batch_size,
        first_needed=None if memory is None else memory["needed"],
        fixed=0 if memory is None else memory["total"] - memory["temporaries"] - memory["batch"],
        capacity=figures["capacity"],
        # A TPU pads a batch to whole tiles of 8 anyway, and a GPU likes such batches best.
        unit=math.lcm(figures["unit"], 8 * figures["devices"]),
        compiles=compiles,
    )


def measured_input(config: Config, text: str) -> float:
    """Images/s that one host's input delivers, as the user states it or has measured it.

    `text` is the number, or the path of what `benchmarks/input.py` wrote. ConfigError for anything
    else, or a file without the size of the stored images or the way of reading of `config`.
    """
    try:
        rate = float(text)
    except ValueError:
        sharded = config.data.shards is not None
        source = "shards" if sharded else config.data.source
        return _measured(Path(text), config.data.image_size, source)
    if not (math.isfinite(rate) and rate > 0):
        raise ConfigError(f"--input_rate={text} is no rate", remedy=_REMEDY)
    return rate


def _measured(path: Path, image_size: int, source: str) -> float:
    try:
        measured: Any = json.loads(path.read_text())
    except OSError as error:
        raise ConfigError(
            f"--input_rate={path} is no number and cannot be read ({error.strerror})",
            remedy=_REMEDY,
        ) from error
    except (UnicodeDecodeError, ValueError, RecursionError) as error:
        raise ConfigError(f"is no JSON ({error})", path=path, remedy=_REMEDY) from error
    sizes = measured.get("images_per_second") if isinstance(measured, dict) else None
    if not isinstance(sizes, dict) or not all(isinstance(ways, dict) for ways in sizes.values()):
        raise ConfigError("holds no measured rates", path=path, remedy=_REMEDY)
    if str(image_size) not in sizes:
        raise ConfigError(
            f"was measured with images of {', '.join(sizes)} pixels, "
            f"data.image_size is {image_size}",
            path=path,
            remedy=f"measure with --sizes={image_size}",
        )
    rates = [
        rate
        for way, rate in sizes[str(image_size)].items()
        if way.startswith(f"ours, from {source}") and isinstance(rate, int | float) and rate > 0
    ]
    if not rates:
        raise ConfigError(
            f"has no rate of this program's input from {source}",
            path=path,
            remedy="measure again with the present benchmarks/input.py",
        )
    return float(max(rates))
