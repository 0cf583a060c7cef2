"""`run.py plan`: what a training step takes on a slice of TPUs, or here, before anything is run."""

import argparse
import dataclasses
import json
import math
from pathlib import Path
from typing import Any

from mtl_face import config as config_lib
from mtl_face.errors import ConfigError
from mtl_face.planner import UNREAD, chips, compiler, flops, hlo, input_rate, text
from mtl_face.planner import estimate as plans


def run(config: config_lib.Config, options: argparse.Namespace) -> int:
    """Plans, prints and writes.

    Args:
        config: the settings; neither data nor weights are looked for.
        options: `topology`, `batch`, `effort`, `search`, `input_rate`, `output`.

    Returns:
        Exit status 0; 1 if the batch does not fit into memory.
    """
    chips.check_topology(options.topology)
    measured = measured_input(config, options)
    batch_size = options.batch or config.optimizer.batch_size
    compiled = _compiled(config, options, batch_size)
    answer = compiled.answer
    plan = make_plan(config, compiled, topology=options.topology, batch_size=batch_size)
    if answer["fits"]:
        print("\n".join(text.lines(plan)))
        if plan["roofline"] is not None:
            plan["input_rate_measured"] = measured
            print("\n".join(text.input_lines(plan, measured)))
    else:
        print(f"{batch_size} images a step do not fit: {answer['message']}")
    _write(plan, options.output)
    if options.search and plan["capacity"] is not None:
        plan["search"] = _search(config, options, plan, batch_size)
        print("\n" + text.search_line(plan["search"], plan["unit"]))
        _write(plan, options.output)
    print(
        f"\ncompiled in {answer['seconds']:.0f} s"
        + (" by an earlier call" if compiled.cached else "")
        + f", effort {options.effort}"
    )
    print(f"program: {compiled.hlo_file}" if answer["fits"] else "")
    if options.output is not None:
        print(f"plan: {options.output}")
    print("next: python run.py train with this --config; docs/scaling.md explains the figures")
    return 0 if answer["fits"] else 1


def measured_input(config: config_lib.Config, options: argparse.Namespace) -> float | None:
    """Images/s of `--input_rate`, for the size and the way of reading that the settings name."""
    if options.input_rate is None:
        return None
    sharded = config.data.shards not in (None, UNREAD)
    source = "shards" if sharded else config.data.source
    return input_rate.read(options.input_rate, image_size=config.data.image_size, source=source)


def make_plan(
    config: config_lib.Config,
    compiled: compiler.Compiled,
    *,
    topology: str,
    batch_size: int,
) -> dict[str, Any]:
    """The plan as plain values; without the compiler's figures if the step does not fit."""
    answer = compiled.answer
    chip = chips.of_device(answer["device_kind"])
    if chip is not None and answer["memory_limit"]:
        per_chip = answer["devices"] / answer["chips"]
        limit = round(answer["memory_limit"] * per_chip)
        chip = dataclasses.replace(chip, memory_bytes=min(chip.memory_bytes, limit))
    dtype = config.model.compute_dtype
    plan: dict[str, Any] = {
        "topology": topology,
        "batch_size": batch_size,
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
        plan |= plans.analyse(
            answer,
            hlo.parse(compiled.text()),
            batch_size=batch_size,
            chip=chip,
            compute_dtype=dtype,
            analytical=flops.total(flops.by_part(config.model)),
        )
    return plan


def _compiled(
    config: config_lib.Config, options: argparse.Namespace, batch_size: int
) -> compiler.Compiled:
    return compiler.compiled(
        config, topology=options.topology, batch_size=batch_size, effort=options.effort, say=print
    )


def _search(
    config: config_lib.Config, options: argparse.Namespace, plan: dict[str, Any], batch_size: int
) -> dict[str, Any]:
    print(
        f"\nsearching for the largest batch that fits: up to {options.search} more compiles of "
        f"about {plan['compile_seconds']:.0f} s (--search=0: none); each is kept"
    )

    def needed(batch: int) -> int | None:
        found = _compiled(config, options, batch)
        if not found.answer["fits"]:
            return None
        chip = chips.of_device(found.answer["device_kind"])
        per_chip = found.answer["devices"] / found.answer["chips"]
        return plans.memory(found.answer, chip, per_chip)["total"]

    state = plan["memory"] if plan["fits"] else None
    result = plans.largest_batch(
        needed,
        first=batch_size,
        first_needed=None if state is None else state["total"],
        fixed=0 if state is None else state["total"] - state["temporaries"] - state["batch"],
        capacity=plan["capacity"],
        # A TPU pads a batch to whole tiles of 8 anyway.
        unit=math.lcm(plan["unit"], 8 * plan["devices"]),
        compiles=options.search,
    )
    return dataclasses.asdict(result)


def _write(plan: dict[str, Any], path: Path | None) -> None:
    if path is None:
        return
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(plan, indent=1) + "\n")
    except OSError as error:
        raise ConfigError(
            f"the plan cannot be written: {error.strerror}", path=path, remedy="choose another path"
        ) from error
