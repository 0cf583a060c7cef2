"""`plan`: report what a train step takes on TPUs, GPUs or this machine, without data or weights.

The step is compiled, which gives its memory, arithmetic, traffic and shortest time.
"""

import argparse
from typing import Any

from mtl_face.cli import flags
from mtl_face.config import Config
from mtl_face.planner import Target

_GIB = 2**30


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--topology",
        required=True,
        metavar="KIND:SHAPE",
        help="slice of TPUs, as v5e:4x4 or v5p:2x2x4; GPUs of one host or several, as h100:8 or "
        "h100:2x8; local: the devices of this machine",
    )
    parser.add_argument(
        "--batch",
        type=flags.positive_number,
        metavar="N",
        help="images a step, or windows of a network over time, over all chips "
        "(default: optimizer.batch_size)",
    )
    parser.add_argument(
        "--effort",
        choices=("full", "low"),
        default="full",
        help="of the compiler: full, as in training (default), or low, in half the time or less",
    )
    parser.add_argument(
        "--search",
        type=flags.natural_number,
        default=3,
        metavar="N",
        help="compiles to spend on the largest batch that fits (default: 3; 0: none)",
    )
    parser.add_argument(
        "--input_rate",
        metavar="RATE|FILE",
        help="images/s that one host's input delivers, or what benchmarks/input.py --output wrote",
    )
    flags.path(parser, "--output", "FILE.json", "also write the figures", type=flags.new_file)


def run(config: Config, options: argparse.Namespace) -> int:
    """Plans, prints and writes; exit status 1 if the batch does not fit into memory."""
    from mtl_face import files
    from mtl_face.planner import plan as planner

    target = Target(options.topology, options.batch or config.optimizer.batch_size, options.effort)
    figures, program = planner.make(config, target, input_rate=options.input_rate, say=print)
    answer = program.answer
    if answer["fits"]:
        print("\n".join(_lines(figures)))
        problem = "the peak is more than a step may take"
    else:
        problem = answer["message"]
    if not figures["fits"]:
        print(f"{target.batch_size} {figures['example']}s a step do not fit: {problem}")
    if options.output is not None:  # already now: the search can take long
        files.write_json(options.output, figures, indent=1)
    if options.search and figures["capacity"] is not None:
        print(
            f"\nsearching for the largest batch that fits: up to {options.search} more compiles of "
            f"about {figures['compile_seconds']:.0f} s (--search=0: none); each is kept"
        )
        found = planner.search(config, target, figures, compiles=options.search, say=print)
        figures["search"] = found
        print("\n" + _search_line(found, figures["unit"]))
        if options.output is not None:
            files.write_json(options.output, figures, indent=1)
    earlier = " by an earlier call" if program.cached else ""
    print(f"\ncompiled in {answer['seconds']:.0f} s{earlier}, effort {target.effort}")
    print(f"program: {program.hlo_file}" if answer["fits"] else "")
    if options.output is not None:
        print(f"plan: {options.output}")
    print("next: python run.py train with this --config; docs/scaling.md explains the figures")
    return 0 if figures["fits"] else 1


_MEANING = {
    "parameters": "parameters, float32",
    "optimizer": "optimizer: two moments of each",
    "statistics": "running statistics of batch norms",
    "batch": "one batch with its labels",
    "padding": "padding of these on the chip",
    "output": "results that replace no argument",
    "temporaries": "activations, gradients, workspace",
    "code": "the program itself",
}


def _lines(plan: dict[str, Any]) -> list[str]:
    chip, article = plan["chip"], "an" if plan["example"] == "image" else "a"
    text = [
        f"{plan['topology']}: {_count(plan['chips'], 'chip')} "
        f"({plan['device_kind']}), {_count(plan['hosts'], 'host')}; {plan['batch_size']} "
        f"{plan['example']}s a step, {plan['images_per_chip']:g} a chip, {plan['compute_dtype']}"
    ]
    if chip is None:
        text.append("no published peaks known of this device: no roofline, no memory limit")
    text += ["", "memory a chip", *_memory(plan["memory"])]
    if "program" in plan:
        text += ["", "program of a chip, a step", *_program(plan["program"])]
    text += ["", f"arithmetic and memory traffic, {article} {plan['example']}", *_arithmetic(plan)]
    text += ["", "exchanges between chips, a step", *_exchanges(plan)]
    if plan["roofline"] is not None:
        text += ["", "shortest time of a step by published peaks", *_roofline(plan)]
        text += _input_lines(plan)
    return text


def _input_lines(plan: dict[str, Any]) -> list[str]:
    """What each host must deliver, beside what one is known to deliver."""
    needed = plan["roofline"]["images_per_second_per_host"]
    measured = plan["input_rate_measured"]
    text = [f"  each host must deliver {needed:,.0f} {plan['example']}s/s to keep up with that"]
    if plan["example"] != "image":  # windows are cut from tokens in memory
        return text
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


def _search_line(search: dict[str, Any], unit: int) -> str:
    fits, too_large = search["fits"], search["too_large"]
    text = "largest batch: "
    text += f"{fits} fits (compiled)" if fits else "no compiled one fits"
    if too_large:
        text += f", {too_large} does not"
    if not too_large or (fits and too_large - fits > max(unit, 0.03 * fits)):
        if not too_large or search["estimate"] < too_large:
            text += f"; the limit may be near {search['estimate']}"
        text += "; a larger --search narrows it"
    return text


def _memory(rows: dict[str, Any]) -> list[str]:
    text = [
        f"  {name:<12}{rows[name] / _GIB:9.3f} GiB  {_MEANING[name]}"
        for name in _MEANING
        if rows[name]
    ]
    name = "total" if rows["needed"] == rows["total"] else "peak"
    total = f"  {name:<12}{rows['needed'] / _GIB:9.3f} GiB"
    if rows["capacity"]:
        total += f"  of {rows['capacity'] / _GIB:.1f}: {100 * rows['share']:.0f} %"
    return [*text, total]


def _program(rows: dict[str, Any]) -> list[str]:
    """What a program for GPUs is made of, and what only a GPU can tell."""
    text = [
        f"  {row['library']:<7}{row['count']:4} {row['target']:<26}{row['phase']:<9}"
        f"{row['dtype']} to {row['result_dtype']:<5}{row['flops'] / 1e9:9.1f} GFLOP"
        f"{_bytes(row['bytes']):>9}"
        for row in rows["libraries"]
    ]
    text.append(
        f"  fused: {_count(rows['fused_operations'], 'operation')} in "
        f"{_count(rows['kernels'], 'kernel')}, {rows['single_operations']} of which hold one alone"
    )
    for name in ("transposes", "copies"):
        found = rows[name]
        total = sum(row["bytes"] for row in found)
        text.append(
            f"  {name} of activations from 1 MB: {sum(row['count'] for row in found)}"
            + (f", {_bytes(total)}" if found else "")
        )
        text += [f"    {row['count']:4} {row['shape']}  {row['source']}" for row in found]
    text.append(f"  transposes and copies of parameters: {_bytes(rows['parameter_copies'])}")
    if rows["scatters"]["count"]:
        text.append(
            f"  additions to scattered places, atomic and slow: {rows['scatters']['count']}, "
            f"{_bytes(rows['scatters']['bytes'])}"
        )
    text.append(
        "  not known without a GPU: the algorithms that timing would choose, the kernels and "
        "workspace of cuDNN and cuBLAS, products by Triton"
    )
    return text


def _arithmetic(plan: dict[str, Any]) -> list[str]:
    rows = plan["arithmetic"]
    text = [
        f"  compiled    {rows['flops_per_image'] / 1e9:9.3f} GFLOP, {rows['ratio']:.3f} times the "
        f"closed form's {rows['analytical_flops_per_image'] / 1e9:.3f}",
        f"  traffic     {rows['hbm_bytes_per_image'] / 1e9:9.3f} GB to and from memory",
    ]
    if "program" in plan:
        inside = sum(row["bytes"] for row in plan["program"]["libraries"])
        share = inside / plan["program"]["moved_bytes"]
        text[-1] += f", {100 * share:.0f} % of it in library calls"
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
        f"  at most     {times['images_per_second']:9,.0f} {plan['example']}s/s "
        f"({times['images_per_second'] / plan['chips']:,.0f} a chip); no run reaches the peaks",
        f"  peaks from: {chip['source']}",
    ]
    if plan["arithmetic"]["loops"]:
        text.append("  the memory's time counts loops once: the step takes longer")
        if plan["example"] == "image":
            text[-1] += ". With optimizer.accumulation_steps=1 nothing is left out"
    return text


def _bytes(count: float) -> str:
    for unit, size in (("GB", 1e9), ("MB", 1e6), ("KB", 1e3)):
        if count >= size:
            return f"{count / size:.3g} {unit}"
    return f"{count:.0f} B"


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" + ("s" if number != 1 else "")
