"""The figures of a plan: memory, arithmetic, traffic, shortest time; and the largest batch.

Pure functions of the compiler's account of one device (`compiled` below, plain numbers), the text
of its program and the chip's published peaks. Imports no JAX.

One device runs the program. On some TPUs a chip is two devices; a device then has half of it.
"""

import itertools
from collections.abc import Callable, Mapping
from typing import Any

from mtl_face.planner import gpu_program, hlo, traffic
from mtl_face.planner.chips import Chip
from mtl_face.planner.flops import Flops

Numbers = dict[str, Any]


def analyse(
    compiled: Mapping[str, Any],
    module: hlo.Module,
    *,
    batch_size: int,
    chip: Chip | None,
    compute_dtype: str,
    analytical: Flops,
) -> Numbers:
    """Puts the figures of a compiled step (see `compile_step`) and its program together.

    `batch_size` is over all devices; `chip` is None where no peaks are known; `analytical` are the
    operations of one image, in closed form.

    Returns:
        `memory`, `arithmetic`, `collectives`, `gradients`, `roofline` (None without a chip) and
        `loops` (a note where the compiler counted a loop once), see the functions for each; of GPUs
        also `program`, see `gpu_program.summary`.
    """
    devices_per_chip = compiled["devices"] / compiled["chips"]
    images = batch_size / compiled["devices"]
    exchanged = traffic.exchanges(
        traffic.collectives(module, compiled["devices"]),
        compiled["parameter_sizes"],
        shards=compiled["shards"],
    )
    loops = uncounted_loops(module)
    counted = compiled["flops"]
    # The compiler's count has what stays on the chip too: up to half of it.
    on_chip = traffic.on_chip_bytes(module)
    hbm_bytes = max(compiled["bytes_accessed"] - on_chip, 0)
    program = {}
    if compiled["platform"] == "gpu":  # whose compiler's count lacks the calls of libraries
        sizes = compiled["parameter_sizes"]
        parts = [size // compiled["shards"] for size in sizes]
        program["program"] = gpu_program.summary(module, [*sizes, *parts])
        counted += sum(row["flops"] for row in program["program"]["libraries"])
        # In loops too each call and each kernel counts as often as it runs.
        hbm_bytes, loops = program["program"]["moved_bytes"], []
    flops = counted
    if loops:  # counted once, so that the closed form knows better
        flops = max(flops, analytical.training * images)
    return {
        "images_per_chip": images * devices_per_chip,
        "memory": memory(compiled, chip, devices_per_chip),
        **program,
        "arithmetic": {
            "flops_per_image": counted / images,
            "analytical_flops_per_image": analytical.training,
            "ratio": counted / images / analytical.training,
            "hbm_bytes_per_image": hbm_bytes / images,
            "on_chip_bytes_per_image": on_chip / images,
            "loops": loops,
        },
        **exchanged,
        "roofline": None
        if chip is None
        else roofline(
            flops=flops * devices_per_chip,
            hbm_bytes=hbm_bytes * devices_per_chip,
            sent_bytes=exchanged["sent_bytes"] * devices_per_chip,
            batch_size=batch_size,
            hosts=compiled["hosts"],
            chip=chip,
            compute_dtype=compute_dtype,
        ),
    }


def memory(compiled: Mapping[str, Any], chip: Chip | None, devices_per_chip: float) -> Numbers:
    """Where a chip's memory goes.

    Returns:
        Bytes on a chip: `parameters`, `optimizer`, `statistics`, `batch`, `padding` (of the
        arguments' layouts), `output` (results that do not take the place of an argument),
        `temporaries` (activations, gradients and all else that lives during the step), `code`, and
        `total`, their sum; `needed`, on a GPU the compiler's peak, else the total; `capacity`, or
        None, and `share`, the part of it that is needed.
    """
    account, kinds = compiled["memory"], compiled["arguments"]
    rows = {kind: kinds[kind] for kind in ("parameters", "optimizer", "statistics", "batch")}
    rows["padding"] = max(account["arguments"] - sum(rows.values()), 0)
    rows["output"] = max(account["output"] - account["alias"], 0)
    rows["temporaries"] = account["temporaries"]
    rows["code"] = account["code"]
    rows = {name: round(value * devices_per_chip) for name, value in rows.items()}
    total = needed = sum(rows.values())
    if compiled["platform"] == "gpu":
        needed = account["peak"]
    capacity = None if chip is None else chip.memory_bytes
    return {
        **rows,
        "total": total,
        "needed": needed,
        "capacity": capacity,
        "share": None if capacity is None else needed / capacity,
    }


def roofline(
    *,
    flops: float,
    hbm_bytes: float,
    sent_bytes: float,
    batch_size: int,
    hosts: int,
    chip: Chip,
    compute_dtype: str,
) -> Numbers:
    """The shortest time of a step that the chip's published peaks allow.

    `flops`, `hbm_bytes` (read and written) and `sent_bytes` are of a chip in a step, `batch_size`
    is over all chips.

    Returns:
        Seconds: `arithmetic`, `memory`, `links`, and `step`, the longest of the three, as if all
        overlapped; `without_overlap`, where the links wait for the rest; `bound`, the name of the
        longest; `images_per_second` over all chips and `images_per_second_per_host`.
    """
    seconds = {
        "arithmetic": flops / chip.flops(compute_dtype),
        "memory": hbm_bytes / chip.memory_bandwidth,
        "links": sent_bytes / chip.link_bandwidth,
    }
    step = max(seconds.values())
    return {
        **seconds,
        "step": step,
        "without_overlap": max(seconds["arithmetic"], seconds["memory"]) + seconds["links"],
        "bound": max(seconds, key=lambda name: seconds[name]),
        "images_per_second": batch_size / step,
        "images_per_second_per_host": batch_size / step / hosts,
    }


def uncounted_loops(module: hlo.Module) -> list[int]:
    """Lengths of the loops that are run; XLA's cost analysis counts the body of each once.

    Loops with a collective, a convolution or a product in them only: others, as those that draw
    random numbers, cost nothing. 0 stands for a length that the compiler does not know.
    """
    runs = module.runs()
    heavy = {"convolution", "dot", "fusion", "custom-call", *traffic.KINDS}
    lengths = []
    for name, instructions in module.computations.items():
        for item in instructions if runs.get(name) else ():
            bodies = [module.computations.get(called, []) for called in item.called]
            if item.opcode == "while" and any(
                inner.opcode in heavy
                and inner.source.endswith(("conv_general_dilated", "dot_general"))
                for inner in itertools.chain(*bodies)
            ):
                lengths.append(item.trips)
    return lengths


_FURTHER = 1.25
"""Next batch to try, of the largest that fits, where the compiler trades time for memory."""


def largest_batch(
    needed: Callable[[int], int | None],
    *,
    first: int,
    first_needed: int | None,
    fixed: int,
    capacity: int,
    unit: int,
    compiles: int,
) -> Numbers:
    """Searches for the largest batch that fits, with few compiles.

    What a step needs grows almost linearly with the batch, until the compiler is short of memory
    and trades time for it. So the next batch to try is where the line through what was tried last
    meets the capacity, below what is known to be too large; where that line has become flat, a
    quarter more. Bounds closer than one unit, or than 3 %, end the search early.

    Args:
        needed: compiles a batch; bytes on a chip, or None if the compiler refused.
        first: batch that is already compiled.
        first_needed: what `needed` says of it.
        fixed: bytes that do not grow with the batch, at least.
        capacity: bytes of a chip.
        unit: batches are multiples of it.
        compiles: largest number of calls of `needed`.

    Returns:
        `fits`, the largest batch that was compiled and fits, None if none does; `too_large`, the
        smallest that was compiled and does not fit, None if all do; `estimate`, where the line
        through the largest two fitting batches meets the capacity, or a step beyond the larger
        where that line is flat; `tried`, bytes that each batch takes, None where the compiler
        refused it.
    """
    tried: dict[int, int | None] = {first: first_needed}

    def bounds() -> tuple[int | None, int | None]:
        """The largest batch that fits and the smallest that does not."""
        fits = {batch: n is not None and n <= capacity for batch, n in tried.items()}
        return (
            max((batch for batch in fits if fits[batch]), default=None),
            min((batch for batch in fits if not fits[batch]), default=None),
        )

    def estimate() -> int:
        points = sorted((b, n) for b, n in tried.items() if n is not None)
        if not points:
            return max(min(tried) // 2 // unit * unit, unit)
        (small, small_needed), (large, large_needed) = (0, fixed), points[-1]
        if len(points) > 1:
            small, small_needed = points[-2]
        slope = max((large_needed - small_needed) / (large - small), 1.0)
        if slope < (large_needed - fixed) / large / 2:
            # The compiler already trades time for memory: no line predicts how far it can go.
            return max(int(_FURTHER * large) // unit * unit, unit)
        return max(int(large + (capacity - large_needed) / slope) // unit * unit, unit)

    for _ in range(compiles):
        good, bad = bounds()
        candidate = estimate()
        if good:
            candidate = max(candidate, good + unit)
        if bad:
            if candidate >= bad:
                candidate = ((good or 0) + bad) // 2 // unit * unit
            if good and bad - good <= max(unit, 0.03 * good):
                break
        elif good and candidate - good <= 0.03 * good:
            break
        if candidate in tried or candidate < unit:
            break
        tried[candidate] = needed(candidate)
    good, bad = bounds()
    return {
        "fits": good,
        "too_large": bad,
        "estimate": estimate(),
        "tried": dict(sorted(tried.items())),
    }
