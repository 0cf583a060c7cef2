"""Reads the ONNX files that an export wrote: a graph from crops to answers, and a card.

Such a file is whole and of the standard: its arrays lie in it, and its operators are those of
ONNX. Others are refused before anything of them is run. The package onnx is imported when a file is
read.
"""

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mtl_face import files
from mtl_face.weights import card as cards
from mtl_face.weights.card import ExportError
from mtl_face.weights.file_content import first_bytes
from mtl_face.weights.programs import interface

SUFFIX = ".onnx"

LARGEST = 2**31 - 1
"""Bytes of a file of Protocol Buffers at most."""

OLDEST_OPSET = 13
"""Operators of older sets take other arguments than those that are written here."""

_STANDARD = ("", "ai.onnx")

_EXPORT_AGAIN = "export it again: run.py export --format=onnx"
_GIVE_ONE = "give a file that run.py export --format=onnx wrote"


@dataclasses.dataclass(frozen=True)
class OnnxFile:
    """A file that was checked.

    Attributes:
        path: where it lies.
        content: its bytes.
        card: the card.
    """

    path: Path
    content: bytes
    card: dict[str, Any]


def is_one(path: Path) -> bool:
    """Whether a file claims to be of this format, by its name or its first bytes.

    A model begins with the version of the format, 1..31, and a field of text or the graph.
    """
    if not path.is_file():
        return False
    if path.suffix.lower() == SUFFIX:
        return True
    start = first_bytes(path, ExportError)
    return start[:1] == b"\x08" and 1 <= start[1:2][0] < 32 and start[2:3] in (b"\x12", b"\x3a")


def read(path: Path) -> OnnxFile:
    """Reads and checks a file.

    Raises:
        ExportError: the package onnx is not installed; the file cannot be read, is damaged, has no
            card or one that does not fit, keeps arrays elsewhere, has operators that are not of
            the standard or of a set that is not known, or has other inputs or outputs.
    """
    onnx = package("onnx")
    from google.protobuf.message import DecodeError

    try:
        size = path.stat().st_size
        content = path.read_bytes() if 0 < size <= LARGEST else b""
    except OSError as error:
        problem, remedy = files.unreadable(error, "file")
        raise ExportError(problem, path=path, remedy=remedy) from error
    if not content:
        raise ExportError(
            f"has {size / 1e9:.1f} GB, and a file of ONNX at most 2.1" if size else "is empty",
            path=path,
            remedy=f"copy it again, or {_GIVE_ONE}",
        )
    try:
        model = onnx.load_model_from_string(content)
    except DecodeError as error:
        raise ExportError(
            "is no ONNX file, or was cut short", path=path, remedy=f"copy it again, or {_GIVE_ONE}"
        ) from error
    metadata = {entry.key: entry.value for entry in model.metadata_props}
    if cards.KEY not in metadata:
        raise ExportError(
            f"has no card (metadata `{cards.KEY}`): it was written by another program, or cut "
            "short",
            path=path,
            remedy=_GIVE_ONE,
        )
    card = cards.parse(metadata[cards.KEY], path)
    _check_operators(onnx, model, path)
    _check_arrays(onnx, model, path)
    interface.check_card(card, path)
    problems = _signature_faults(onnx, model.graph, card)
    if problems:
        raise ExportError(
            "does not fit its card: " + "; ".join(problems), path=path, remedy=_EXPORT_AGAIN
        )
    return OnnxFile(path, content, card)


def session(file: OnnxFile) -> Any:
    """An `onnxruntime.InferenceSession` of a file, on a GPU where the package has that.

    Raises:
        ExportError: the package onnxruntime is not installed, or cannot run the file.
    """
    runtime = package("onnxruntime")
    options = runtime.SessionOptions()
    options.log_severity_level = 4  # what it says of errors is raised too
    known = runtime.get_available_providers()
    providers = [p for p in ("CUDAExecutionProvider", "CPUExecutionProvider") if p in known]
    try:
        return runtime.InferenceSession(file.content, options, providers=providers)
    except Exception as error:  # its errors have no class in common but this one
        raise ExportError(
            f"cannot be run by ONNX Runtime {runtime.__version__}: {files.first_words(error)}",
            path=file.path,
            remedy=f"{_EXPORT_AGAIN}, or install a newer onnxruntime",
        ) from error


def package(name: str) -> Any:
    """A package of the extra `onnx`; ExportError if it cannot be imported."""
    try:
        return __import__(name)
    except ImportError as error:
        raise ExportError(
            f"ONNX files need the package {name}, which cannot be imported ({error})",
            remedy='install the extra: python -m pip install "mtl_face[onnx]" '
            "(in a clone: python -m pip install -e '.[onnx]')",
        ) from error


def _graphs(onnx: Any, graph: Any) -> Iterator[Any]:
    """A graph and those inside its operators."""
    yield graph
    for node in graph.node:
        for attribute in node.attribute:
            inner = [*attribute.graphs]
            if attribute.type == onnx.AttributeProto.GRAPH:
                inner.append(attribute.g)
            for each in inner:
                yield from _graphs(onnx, each)


def _check_operators(onnx: Any, model: Any, path: Path) -> None:
    nodes = [node for graph in _graphs(onnx, model.graph) for node in graph.node]
    foreign = {f"{node.domain}.{node.op_type}" for node in nodes if node.domain not in _STANDARD}
    foreign |= {f"{own.domain}.{own.name}" for own in model.functions}
    if foreign:
        names = ", ".join(sorted(foreign)[:5])
        raise ExportError(
            f"has operators that are not of ONNX: {names:.200}",
            path=path,
            remedy="give the file as it was exported, not one that was optimised for a runtime",
        )
    sets = [entry.version for entry in model.opset_import if entry.domain in _STANDARD]
    newest = onnx.defs.onnx_opset_version()
    if len(sets) != 1 or not OLDEST_OPSET <= sets[0] <= newest:
        found = ", ".join(map(str, sets)) or "none"
        raise ExportError(
            f"has operators of opset {found}; {OLDEST_OPSET} to {newest} are read",
            path=path,
            remedy=f"{_EXPORT_AGAIN}, or install a newer onnx and onnxruntime",
        )


def _check_arrays(onnx: Any, model: Any, path: Path) -> None:
    from onnx import external_data_helper

    for graph in _graphs(onnx, model.graph):
        tensors = [*graph.initializer]
        for node in graph.node:
            for attribute in node.attribute:
                tensors += [attribute.t, *attribute.tensors]
        for sparse in graph.sparse_initializer:
            tensors += [sparse.values, sparse.indices]
        outside = next((t for t in tensors if external_data_helper.uses_external_data(t)), None)
        if outside is not None:
            raise ExportError(
                f"keeps arrays in another file ({outside.name:.60}), which is not read",
                path=path,
                remedy="save it as one file: onnx.save(onnx.load(FILE), NEW) in Python",
            )


def _signature_faults(onnx: Any, graph: Any, card: dict[str, Any]) -> list[str]:
    """How inputs and outputs differ from those of the card, a sentence each."""
    dtype = onnx.helper.tensor_dtype_to_np_dtype

    def words(values: Any) -> dict[str, tuple[str, list[int]]]:
        return {
            value.name: (
                dtype(value.type.tensor_type.elem_type).name,
                [side.dim_value for side in value.type.tensor_type.shape.dim][1:],
            )
            for value in values
            if value.type.tensor_type.elem_type
        }

    held = {tensor.name for tensor in graph.initializer}
    inputs = words(value for value in graph.input if value.name not in held)
    wanted = {
        name: (kind.name, list(shape))
        for name, (kind, shape) in interface.expected_inputs(card).items()
    }
    faults = [
        f"input {name:.60} is {inputs.get(name, 'absent')}, expected {wanted.get(name, 'none')}"
        for name in sorted(inputs.keys() | wanted.keys())
        if inputs.get(name) != wanted.get(name)
    ]
    outputs = words(graph.output)
    return faults + [
        f"output {name} is {outputs.get(name, 'absent')}, expected float32 [{width}]"
        for name, width in interface.expected_outputs(card).items()
        if outputs.get(name) != ("float32", [width])
    ]
