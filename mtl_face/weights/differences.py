"""What differs between an export and what it should be, in words.

Nothing here imports a heavy library. A tensor's specification is its shape and the name of its
dtype.
"""

from collections.abc import Iterable, Mapping
from typing import Any

from mtl_face.config.dotted import affects, flat
from mtl_face.tasks import OUTPUT_NAMES, TASKS


def labels(card: Mapping[str, Any]) -> list[str]:
    """How a card's outputs differ from this version's, in names, number, order and range.

    Args:
        card: a card with `tasks`.

    Returns:
        One sentence a difference; empty if all is the same.
    """
    found, lines = card["tasks"], []
    for task in sorted(found.keys() - set(TASKS)):
        lines.append(f"task {task}: this version knows no such task")
    for task in TASKS:
        if task not in found:
            lines.append(f"task {task}: the export has no such task")
            continue
        part = found[task] if isinstance(found[task], Mapping) else {}
        outputs = part.get("outputs")
        if not isinstance(outputs, list) or not all(isinstance(name, str) for name in outputs):
            lines.append(f"task {task}: the export does not name its outputs")
            continue
        lines += _name_differences(task, outputs, list(OUTPUT_NAMES[task]))
        if task == "va" and list(part.get("range", ())) != [-1.0, 1.0]:
            lines.append(f"task va: the export's range is {part.get('range')}, here it is [-1, 1]")
    return lines


def model(card: Mapping[str, Any], settings: Mapping[str, Any]) -> list[str]:
    """How the network of a card differs from that of a config.

    Settings that trained weights do not depend on, such as dropout, may differ.

    Args:
        card: a card that was read.
        settings: section `model` of a config, nested.

    Returns:
        One line a setting; empty if the weights fit.
    """
    theirs = flat({"model": card["config"]["model"]})
    ours = flat({"model": settings})
    return [
        f"{name} is {theirs[name]!r} in the export, {ours[name]!r} in the config"
        for name in sorted(theirs.keys() & ours.keys())
        if theirs[name] != ours[name] and affects(name) in ("network", None)
    ]


def tensors(
    found: Mapping[str, tuple[tuple[int, ...], str]],
    expected: Mapping[str, tuple[tuple[int, ...], str]],
    *,
    expected_by: str,
) -> list[str]:
    """How tensors differ from what they should be.

    Args:
        found: shape and dtype of each tensor, by name.
        expected: the same, as it should be.
        expected_by: who says so, `the card`.

    Returns:
        One sentence each for missing and surplus tensors, and for those of another shape or dtype.
    """
    lines = []
    missing = sorted(expected.keys() - found.keys())
    surplus = sorted(found.keys() - expected.keys())
    if missing:
        lines.append(f"{_number(missing)} of {expected_by} missing: {_some(missing)}")
    if surplus:
        lines.append(f"{_number(surplus)} unknown to {expected_by}: {_some(surplus)}")
    wrong = []
    for name in sorted(expected.keys() & found.keys()):
        (shape, dtype), (wanted, wanted_dtype) = found[name], expected[name]
        if tuple(shape) != tuple(wanted):
            wrong.append(f"{name} has shape {_shape(shape)}, {expected_by} says {_shape(wanted)}")
        elif dtype != wanted_dtype:
            wrong.append(f"{name} is {dtype}, {expected_by} says {wanted_dtype}")
    return lines + wrong[:5] + ([f"and {len(wrong) - 5} more"] if len(wrong) > 5 else [])


def listed_tensors(card: Mapping[str, Any]) -> dict[str, tuple[tuple[int, ...], str]] | None:
    """Shape and dtype of each tensor that a card lists; None if its schema listed none."""
    listed = card.get("tensors")
    if listed is None:
        return None
    return {name: (tuple(entry["shape"]), entry["dtype"]) for name, entry in listed.items()}


def _name_differences(task: str, found: list[str], expected: list[str]) -> list[str]:
    if found == expected:
        return []
    lines = []
    if len(found) != len(expected):
        lines.append(f"task {task}: {len(found)} outputs in the export, {len(expected)} here")
    unknown = [name for name in found if name not in expected]
    absent = [name for name in expected if name not in found]
    if unknown:
        lines.append(f"task {task}: the export's {', '.join(unknown)} is unknown here")
    if absent:
        lines.append(f"task {task}: the export has no {', '.join(absent)}")
    if not lines:
        place = next(
            i for i, pair in enumerate(zip(found, expected, strict=True)) if len({*pair}) > 1
        )
        lines.append(
            f"task {task}: the same outputs in another order: output {place} is {found[place]} in "
            f"the export, {expected[place]} here"
        )
    return lines


def _number(names: list[str]) -> str:
    return "1 tensor" if len(names) == 1 else f"{len(names)} tensors"


def _some(names: list[str], most: int = 3) -> str:
    return ", ".join(names[:most]) + (", ..." if len(names) > most else "")


def _shape(shape: Iterable[int]) -> str:
    return "[" + ", ".join(map(str, shape)) + "]"
