"""Rules that say which arrays of a train state are split along `fsdp`, and how.

A rule is `PATTERN=WHERE`. The pattern is a regular expression, looked for in an array's name; the
first rule that fits decides, and an array that none fits is whole on every device. WHERE is one of

| where    | the array is                                                                       |
|----------|------------------------------------------------------------------------------------|
| `large`  | split along its longest axis that divides, if it has `SMALLEST_SPLIT` elements     |
| `whole`  | whole on every device                                                              |
| 0, -1... | split along this axis, whatever its size                                           |

A parameter's name is `params/` and its path, as in `params/network/encoder/layer1/mlp_out/kernel`.
What an optimizer keeps for a parameter is `moments/` and the parameter's path: so both can lie
alike (a pattern without these words), or differently. Scalars have no name and are whole.
"""

import dataclasses
import difflib
import re
from collections.abc import Sequence
from typing import Any

import jax

from mtl_face.errors import ConfigError

DEFAULT = (".=large",)

LARGE = "large"
WHOLE = "whole"

SMALLEST_SPLIT = 2**14
"""Arrays with fewer elements stay whole: gathering them costs more than holding them."""

_FIELD = "mesh.rules"
_REMEDY = "a rule is PATTERN=large, PATTERN=whole or PATTERN=AXIS, as params/.*kernel=large"


@dataclasses.dataclass(frozen=True)
class Rule:
    """A rule, taken apart.

    Attributes:
        text: as it was given.
        pattern: looked for in names.
        where: `large`, `whole`, or an axis.
    """

    text: str
    pattern: re.Pattern[str]
    where: str | int


def parse(texts: Sequence[str]) -> list[Rule]:
    """Takes rules apart.

    Raises:
        ConfigError: one is no rule.
    """
    rules = []
    for text in texts:
        pattern, equals, where = text.strip().rpartition("=")
        number = re.fullmatch(r"-?\d+", where)
        if not equals or not (number or where in (LARGE, WHOLE)):
            raise ConfigError(f"{_FIELD} holds {text!r}, which is no rule", remedy=_REMEDY)
        try:
            compiled = re.compile(pattern)
        except re.error as error:
            raise ConfigError(
                f"{_FIELD} holds {text!r}, whose pattern is no regular expression: {error}",
                remedy=_REMEDY,
            ) from error
        rules.append(Rule(text, compiled, int(where) if number else where))
    return rules


def names(abstract: Any) -> list[str | None]:
    """Names of a state's leaves in their order; None for scalars.

    Args:
        abstract: a train state, or any pytree of arrays or ShapeDtypeStructs.
    """
    flat = jax.tree_util.tree_flatten_with_path(abstract)[0]
    paths = [(tuple(map(_key, path)), leaf) for path, leaf in flat]
    parameters = {path[1:] for path, _ in paths if path[0] == "params"}
    found: list[str | None] = []
    for path, leaf in paths:
        if leaf.ndim == 0:
            found.append(None)
            continue
        if path[0] == "opt_state":
            of = next((path[i:] for i in range(1, len(path)) if path[i:] in parameters), None)
            path = path if of is None else ("moments", *of)
        found.append("/".join(path))
    return found


def split_axes(abstract: Any, texts: Sequence[str], *, parts: int) -> list[int | None]:
    """The axis along which each leaf is split; None for one that is whole.

    Args:
        abstract: as for `names`.
        texts: the rules.
        parts: devices along `fsdp`. With 1 the rules are checked, and all is whole.

    Returns:
        In the order of the leaves.

    Raises:
        ConfigError: a rule fits no array, or names an axis that is absent or does not divide.
    """
    rules = parse(texts)
    leaves = jax.tree.leaves(abstract)
    found = names(abstract)
    named = [name for name in found if name is not None]
    for rule in rules:
        if named and not any(rule.pattern.search(name) for name in named):
            raise _fits_nothing(rule, named)
    axes = []
    for name, leaf in zip(found, leaves, strict=True):
        fitting = (r for r in rules if name is not None and r.pattern.search(name))
        first = next(fitting, None)
        axes.append(None if first is None else _axis(first, name or "", leaf.shape, parts))
    return axes if parts > 1 else [None] * len(axes)


def _axis(rule: Rule, name: str, shape: tuple[int, ...], parts: int) -> int | None:
    if rule.where == WHOLE:
        return None
    if isinstance(rule.where, str):
        dividing = [axis for axis, length in enumerate(shape) if length % parts == 0]
        size = 1
        for length in shape:
            size *= length
        if size < SMALLEST_SPLIT or not dividing:
            return None
        return max(dividing, key=lambda axis: shape[axis])
    if not -len(shape) <= rule.where < len(shape):
        raise ConfigError(
            f"{_FIELD} holds {rule.text!r}, but {name} has the shape {shape}, without that axis",
            remedy="put a rule for such arrays before it, as bias=whole",
        )
    axis = rule.where % len(shape)
    if shape[axis] % parts:
        raise ConfigError(
            f"{_FIELD} holds {rule.text!r}, but {parts} devices along fsdp do not divide the axis "
            f"{axis} of {name}, of shape {shape}",
            remedy="choose another axis, or PATTERN=large, which takes one that divides",
        )
    return axis


def _fits_nothing(rule: Rule, found: list[str]) -> ConfigError:
    """The error, with the names that come nearest: those with a part like each of the pattern's."""
    wanted = [word for word in re.split(r"\W+", rule.pattern.pattern) if word]

    def likeness(name: str) -> float:
        parts = name.split("/")
        return sum(
            max(difflib.SequenceMatcher(None, word, part).ratio() for part in parts)
            for word in wanted
        )

    nearest = sorted(dict.fromkeys(found), key=lambda name: (-likeness(name), name))[:3]
    return ConfigError(
        f"{_FIELD} holds {rule.text!r}, which fits no array of this network",
        remedy="the nearest names are " + ", ".join(nearest),
    )


def _key(part: Any) -> str:
    for attribute in ("key", "name", "idx"):
        if hasattr(part, attribute):
            return str(getattr(part, attribute))
    return str(part)
