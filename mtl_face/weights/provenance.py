"""Where weights come from: what they were trained on, and what they were started from.

A provenance is a dict of JSON values that travels with a run, each of its checkpoints, its exports
and its predictions:

    training_data         names of the data sets that these weights were trained on
    pretrained_on         names of those that its initial weights had seen, over all ancestors
    aff_wild2_pretrained  whether Aff-Wild2 is among the latter, which ABAW's rules forbid
    reasons               why that is so, one sentence each; empty if it is not
    initial_weights       the file that it started from, or null for random weights: `file`,
                          `sha256`, `format`, ..., that file's own `provenance` if it has one, and
                          as `withdrawn` those of its data sets that their makers have withdrawn
    teachers              only where models gave labels: the `file`, `sha256` and `provenance` of
                          each; what they had seen counts as what the initial weights have

Nothing here imports a heavy library: files of predictions are judged by it too.
"""

import contextlib
import functools
import importlib.metadata
import platform
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import PurePath
from typing import Any

import mtl_face
from mtl_face.config.schema import ProvenanceConfig
from mtl_face.errors import WeightsError
from mtl_face.tables import TRAINING, label_counts, untrained
from mtl_face.tasks import AU

AFF_WILD2 = "Aff-Wild2"

DATA_SETS = {
    "s_aff_wild2": "s-Aff-Wild2",
    "abaw3_mtl": f"{AFF_WILD2} (ABAW 3)",
    "per_video": AFF_WILD2,
    "rendered_faces": "rendered faces",
}
"""Names of the data sets that a kind of data stands for; other kinds name themselves."""

_PACKAGES = (
    *("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy"),
    *("tensorflow-cpu", "tensorflow"),
)

_STATIC_SUBSET = re.compile(r"(?<![a-z0-9])s[-_ ]?aff[-_ ]?wild[-_ ]?2", re.IGNORECASE)
_AFF_WILD2 = re.compile(r"aff[-_ ]?wild[-_ ]?(2|ii)", re.IGNORECASE)


def name_of(kind: str, own: str, place: str) -> str:
    """What a data set of a kind is called, which has a name of its own and lies at a path."""
    known = DATA_SETS.get(kind)
    if known is None:
        return own
    says_so = _STATIC_SUBSET if kind == "s_aff_wild2" else _AFF_WILD2
    if kind == "rendered_faces" or any(map(says_so.search, (own, *PurePath(place).parts[-2:]))):
        return known
    return f"{own}, in the layout of {known}"


TASK_TOKENS = "task tokens of a network of mtl_face"
"""Format of the initial weights of a network over time: it reads a network of frames."""


def record(
    *,
    training_data: Iterable[str],
    pretrained_on: Iterable[str] = (),
    aff_wild2_pretrained: bool = False,
    initial_weights: Mapping[str, Any] | None = None,
    teachers: Sequence[Mapping[str, Any]] = (),
) -> dict[str, Any]:
    """The provenance of a run that starts.

    It is flagged `aff_wild2_pretrained` if the user says so, if the ancestor is flagged, or if any
    ancestor was trained on Aff-Wild2. `pretrained_on` is what the user says of the initial weights.
    These are JSON values, None for random weights: `file`, `sha256` and `format`; where known,
    `trained_on` (names) and `provenance` (of an export or checkpoint), whose content is inherited.
    So is that of `teachers`, the models that gave labels: `file`, `sha256`, and `provenance` or
    None.

    Raises:
        WeightsError: the provenance of the initial weights or of a teacher is not sound.
    """
    reasons = ["the settings say so"] if aff_wild2_pretrained else []
    names = list(pretrained_on)
    if initial_weights is not None:
        file = initial_weights.get("file", "the initial weights")
        names += initial_weights.get("trained_on") or ()
        parent = initial_weights.get("provenance")
        if parent is not None:
            check(parent, file)
            names += [*parent.get("pretrained_on", ()), *parent.get("training_data", ())]
            if parent.get("aff_wild2_pretrained"):
                reasons.append(f"{file} carries that flag itself")
    for teacher in teachers:
        parent = teacher.get("provenance")
        if parent is None:
            continue
        file = f"{teacher['file']}, which gave labels,"
        check(parent, file)
        names += [*parent["pretrained_on"], *parent["training_data"]]
        if parent["aff_wild2_pretrained"]:
            reasons.append(f"{file} carries that flag itself")
    seen = _distinct(names)
    whose = "the initial weights or the labels' model" if teachers else "the initial weights"
    reasons += [f"{name} is among what {whose} have seen" for name in seen if _is_aff_wild2(name)]
    taught = [{key: one.get(key) for key in ("file", "sha256", "provenance")} for one in teachers]
    return {
        "training_data": _distinct(training_data),
        "pretrained_on": seen,
        "aff_wild2_pretrained": bool(reasons),
        "reasons": reasons,
        "initial_weights": None if initial_weights is None else dict(initial_weights),
        **({"teachers": taught} if taught else {}),
    }


def amend(provenance: Mapping[str, Any], settings: ProvenanceConfig) -> dict[str, Any]:
    """Adds what a user says after the fact: names, and the flag. Nothing recorded is taken back."""
    changed = record(
        training_data=[*provenance["training_data"], *(settings.training_data or ())],
        pretrained_on=[*provenance["pretrained_on"], *(settings.pretrained_on or ())],
        aff_wild2_pretrained=settings.aff_wild2_pretrained,
        initial_weights=provenance["initial_weights"],
    )
    reasons = _distinct([*provenance["reasons"], *changed["reasons"]])
    flagged = bool(provenance["aff_wild2_pretrained"]) or bool(reasons)
    return {**provenance, **changed, "aff_wild2_pretrained": flagged, "reasons": reasons}


def from_config(config: Mapping[str, Any]) -> dict[str, Any] | None:
    """The provenance of weights that record none, from the nested settings of their training.

    Versions that recorded no provenance could start from random weights alone. None if the
    settings name no data.
    """
    data = config.get("data")
    kind = data.get("kind") if isinstance(data, Mapping) else None
    if not isinstance(kind, str):
        return None
    return record(training_data=[DATA_SETS.get(kind, kind)])


def warnings(provenance: Mapping[str, Any] | None) -> list[str]:
    """What a user must know before predictions go to a challenge: sentences, the most severe first.

    None, of weights that record no provenance, gives one sentence.
    """
    if provenance is None:
        return [
            "the weights record no provenance: whether they were pre-trained on Aff-Wild2, which "
            "ABAW's rules forbid, is unknown"
        ]
    fault = _fault(provenance)
    if fault is not None:
        return [
            f"the weights' provenance is not sound ({fault}): whether they were pre-trained on "
            "Aff-Wild2, which ABAW's rules forbid, is unknown"
        ]
    lines = []
    if provenance["aff_wild2_pretrained"]:
        reasons = "; ".join(provenance["reasons"])
        lines.append(
            "weights pre-trained on Aff-Wild2 were used"
            + (f" ({reasons})" if reasons else "")
            + ": ABAW's rules forbid that, so don't submit these predictions to a challenge"
        )
    own = [name for name in provenance["training_data"] if _is_aff_wild2(name)]
    if own:
        lines.append(
            f"trained on {', '.join(own)}: ABAW's multi-task challenge allows s-Aff-Wild2 alone, "
            "not Aff-Wild2 itself; submit to its single-task challenges only"
        )
    source = provenance["initial_weights"]
    subset = [name for name in provenance["pretrained_on"] if _STATIC_SUBSET.search(name)]
    if source is not None and source.get("format") == TASK_TOKENS:  # its own network of frames
        subset = [name for name in subset if name not in provenance["training_data"]]
    if subset and not provenance["aff_wild2_pretrained"]:
        lines.append(
            f"the initial weights were trained on {', '.join(subset)}, a part of Aff-Wild2: name "
            "them as a stage of your training if you submit to a challenge"
        )
    lines += [
        f"labels come from a model that records no provenance ({teacher.get('file', 'unnamed')}): "
        "whether it was trained on Aff-Wild2, which ABAW's rules forbid, is unknown"
        for teacher in provenance.get("teachers", ())
        if teacher.get("provenance") is None
    ]
    if (file := _unspoken(provenance)) is not None and not lines:
        lines.append(
            f"nothing says what the initial weights ({file}) were trained on: state it in "
            "provenance.pretrained_on (--config.provenance.pretrained_on=NAME,...)"
        )
    return lines


def _unspoken(provenance: Mapping[str, Any]) -> str | None:
    """The file of weights, at any remove, of which nobody says what they were trained on, or None.

    Whoever names data of their own for the initial weights has spoken for all before them.
    """
    source = provenance["initial_weights"]
    if source is None:
        return None
    parent = source.get("provenance")
    inherited = [] if parent is None else [*parent["pretrained_on"], *parent["training_data"]]
    if set(provenance["pretrained_on"]) - set(_distinct(inherited)):
        return None
    return str(source.get("file", "unnamed")) if parent is None else _unspoken(parent)


def warnings_of_training(training: Any) -> list[str]:
    """Sentences on outputs that were never trained, from what stands under `tables.TRAINING`."""
    silent = untrained(training)
    lines = [
        f"the network was trained without a label of {task}: its outputs for that are left out"
        for task in silent
    ]
    per_au = label_counts(training).get("per_au")
    units = per_au.items() if isinstance(per_au, Mapping) and AU not in silent else ()
    if absent := [str(name) for name, count in units if not count]:
        lines.append(
            f"the network was trained without a label of {', '.join(absent)}: its outputs for "
            "these action units mean nothing"
        )
    return lines


def warnings_of_predictions(metadata: Mapping[str, Any]) -> list[str]:
    """`warnings` and `warnings_of_training` for a table of predictions, from its metadata.

    For an ensemble they are those of all members, each sentence once, with the members' names.
    """
    ensemble = metadata.get("ensemble")
    members = ensemble.get("members") if isinstance(ensemble, Mapping) else None
    if metadata.get("provenance") is not None or not isinstance(members, Sequence):
        own = warnings_of_training(metadata.get(TRAINING))
        return warnings(metadata.get("provenance")) + own
    names: dict[str, list[str]] = {}
    for member in members:
        values = member if isinstance(member, Mapping) else {}
        for line in warnings_of_predictions(values):
            names.setdefault(line, []).append(str(values.get("name", "unnamed")))
    return [f"{line} (of the ensemble's {', '.join(who)})" for line, who in names.items()]


def check(value: Any, path: Any) -> dict[str, Any]:
    """Returns a provenance read from the file `path`; raises WeightsError if it is not sound."""
    problem = _fault(value)
    if problem is None:
        return value
    raise WeightsError(
        f"holds no sound provenance: {problem}",
        path=path,
        remedy="restore the file: what weights were trained on cannot be guessed",
    )


def _fault(value: Any) -> str | None:
    if not isinstance(value, Mapping):
        return f"it is {type(value).__name__}, not an object"
    for name in ("training_data", "pretrained_on", "reasons"):
        if not _is_names(value.get(name)):
            return f"{name} is {value.get(name)!r:.60}, not a list of names"
    if "initial_weights" not in value:
        return "it has no initial_weights, neither a file nor null"
    flag, source = value.get("aff_wild2_pretrained"), value["initial_weights"]
    if not isinstance(flag, bool):
        return f"aff_wild2_pretrained is {flag!r:.60}, neither true nor false"
    if source is None:
        return None
    if not isinstance(source, Mapping):
        return f"initial_weights is {source!r:.60}, neither null nor an object"
    if source.get("trained_on") is not None and not _is_names(source["trained_on"]):
        return f"initial_weights.trained_on is {source['trained_on']!r:.60}, not a list of names"
    parent = source.get("provenance")
    inside = None if parent is None else _fault(parent)
    return None if inside is None else f"in initial_weights.provenance, {inside}"


def _is_names(value: Any) -> bool:
    return (
        isinstance(value, Sequence)
        and not isinstance(value, str)
        and all(isinstance(name, str) for name in value)
    )


def _is_aff_wild2(name: str) -> bool:
    """Whether a name means Aff-Wild2 itself, in any usual spelling, not its static subset."""
    return _AFF_WILD2.search(_STATIC_SUBSET.sub("", name)) is not None


def _distinct(names: Iterable[str]) -> list[str]:
    """The names without blanks around them, each once, in the order of their first appearance."""
    return list(dict.fromkeys(name.strip() for name in names if name.strip()))


def versions() -> dict[str, str]:
    """Versions of this program and of what it computes with, by name of the package."""
    return dict(_versions())


@functools.cache  # metadata of packages are parsed from files, and each batch states them
def _versions() -> dict[str, str]:
    found = {"mtl_face": mtl_face.__version__, "python": platform.python_version()}
    for name in _PACKAGES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found[name] = importlib.metadata.version(name)
    return found
