"""A plan as text."""

from typing import Any

GIB = 2**30

_MEANING = {
    "parameters": "parameters, float32",
    "optimizer": "optimizer: two moments of each",
    "statistics": "running statistics of batch norms",
    "batch": "one batch of images and labels",
    "padding": "padding of these on the chip",
    "output": "results that replace no argument",
    "temporaries": "activations, gradients, workspace",
    "code": "the program itself",
}


def lines(plan: dict[str, Any]) -> list[str]:
    """The plan, section by section.

    Args:
        plan: see `training.plan.analyse`, with `topology`, `batch_size`, `chips`, `devices`,
            `hosts`, `chip` (or None) and `compute_dtype`.
    """
    chip = plan["chip"]
    text = [
        f"{plan['topology']}: {_count(plan['chips'], 'chip')} "
        f"({plan['device_kind']}), {_count(plan['hosts'], 'host')}; {plan['batch_size']} images a "
        f"step, {plan['images_per_chip']:g} a chip, {plan['compute_dtype']}"
    ]
    if chip is None:
        text.append("no published peaks known of this device: no roofline, no memory limit")
    text += ["", "memory a chip", *_memory(plan["memory"])]
    text += ["", "arithmetic and memory traffic, an image", *_arithmetic(plan["arithmetic"])]
    text += ["", "exchanges between chips, a step", *_exchanges(plan)]
    if plan["roofline"] is not None:
        text += ["", "shortest time of a step by published peaks", *_roofline(plan)]
    return text


def input_lines(plan: dict[str, Any], measured: float | None) -> list[str]:
    """What each host must deliver, beside what one is known to deliver."""
    needed = plan["roofline"]["images_per_second_per_host"]
    text = [f"  each host must deliver {needed:,.0f} images/s to keep up with that"]
    if measured is None:
        text.append("  measure a host: python -m benchmarks.input --output=input.json on it, then")
        text.append("  --input_rate=input.json")
    elif measured >= needed:
        text.append(f"  measured {measured:,.0f} images/s a host: enough, {measured / needed:.1f}x")
    else:
        text.append(
            f"  measured {measured:,.0f} images/s a host: TOO SLOW, the chips would idle "
            f"{100 * (1 - measured / needed):.0f} % of the time"
        )
    return text


def search_line(search: dict[str, Any], unit: int) -> str:
    """What is known of the largest batch."""
    fits, too_large = search["fits"], search["too_large"]
    text = "largest batch: "
    text += f"{fits} fits (compiled)" if fits else "none of those compiled fits"
    if too_large:
        text += f", {too_large} does not"
    if not too_large or (fits and too_large - fits > max(unit, 0.03 * fits)):
        if not too_large or search["estimate"] < too_large:
            text += f"; the limit may be near {search['estimate']}"
        text += "; more of --search tells it closer"
    return text


def _memory(rows: dict[str, Any]) -> list[str]:
    text = [
        f"  {name:<12}{rows[name] / GIB:9.3f} GiB  {_MEANING[name]}"
        for name in _MEANING
        if rows[name]
    ]
    total = f"  {'total':<12}{rows['total'] / GIB:9.3f} GiB"
    if rows["capacity"]:
        total += f"  of {rows['capacity'] / GIB:.1f}: {100 * rows['share']:.0f} %"
    return [*text, total]


def _arithmetic(rows: dict[str, Any]) -> list[str]:
    text = [
        f"  compiled    {rows['flops_per_image'] / 1e9:9.3f} GFLOP, {rows['ratio']:.3f} times the "
        f"closed form's {rows['analytical_flops_per_image'] / 1e9:.3f}",
        f"  traffic     {rows['hbm_bytes_per_image'] / 1e9:9.3f} GB to and from memory",
    ]
    if rows["on_chip_bytes_per_image"]:
        text.append(
            f"  on the chip {rows['on_chip_bytes_per_image'] / 1e9:9.3f} GB to and from its own "
            "memory, no part of the traffic"
        )
    if rows["loops"]:
        lengths = ", ".join(str(length) if length else "unknown" for length in rows["loops"])
        text.append(
            f"  loops of length {lengths} hold products, and the compiler counts each once: the "
            "figures above are too low"
        )
    return text


def _exchanges(plan: dict[str, Any]) -> list[str]:
    rows = plan["collectives"]
    if not rows:
        return ["  none"]
    text = [
        f"  {row['count']:4} {row['kind']:<19}{row['role']:<11}{row['phase']:<9}"
        f"{_bytes(row['bytes']):>10}  largest {_bytes(row['largest']):>9}  "
        f"{'/'.join(row['dtypes'])}, groups of {row['group_size']}"
        + ("  (the forward pass waits)" if row["awaited_by_forward"] else "")
        for row in rows
    ]
    gradients, others = plan["gradients"], plan["not_gradients"]
    text.append(
        f"  gradients: {_bytes(gradients['bytes'])} as {'/'.join(gradients['dtypes']) or 'none'}; "
        f"the parameters once in float32 are {_bytes(gradients['expected_bytes'])}"
    )
    if gradients["missing_elements"]:
        text.append(
            f"  without an exchange of their own: {gradients['missing_elements']} numbers "
            "(equal sums, as of biases side by side, are exchanged once)"
        )
    text.append(
        f"  all else: {_bytes(others['bytes'])}, the largest of {_bytes(others['largest'])}; "
        f"the forward pass waits for {plan['forward']['count']} of them"
    )
    text.append(f"  sent by each device: {_bytes(plan['sent_bytes'])} (rings)")
    return text


def _roofline(plan: dict[str, Any]) -> list[str]:
    times, chip = plan["roofline"], plan["chip"]
    text = [
        f"  arithmetic  {1e3 * times['arithmetic']:9.2f} ms  at {chip['flops'] / 1e12:g} TFLOP/s",
        f"  memory      {1e3 * times['memory']:9.2f} ms  at "
        f"{chip['memory_bandwidth'] / 1e9:g} GB/s",
        f"  links       {1e3 * times['links']:9.2f} ms  at {chip['link_bandwidth'] / 1e9:g} GB/s",
        f"  step        {1e3 * times['step']:9.2f} ms  bound by {times['bound']}, all overlapped; "
        f"{1e3 * times['without_overlap']:.2f} ms if the links wait",
        f"  at most     {times['images_per_second']:9,.0f} images/s "
        f"({times['images_per_second'] / plan['chips']:,.0f} a chip); no run reaches the peaks",
        f"  peaks from: {chip['source']}",
    ]
    if plan["arithmetic"]["loops"]:
        text.append(
            "  the memory's time counts loops once: the step takes longer. With "
            "optimizer.accumulation_steps=1 nothing is left out"
        )
    return text


def _bytes(count: float) -> str:
    for unit, size in (("GB", 1e9), ("MB", 1e6), ("KB", 1e3)):
        if count >= size:
            return f"{count / size:.3g} {unit}"
    return f"{count:.0f} B"


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" + ("s" if number != 1 else "")
