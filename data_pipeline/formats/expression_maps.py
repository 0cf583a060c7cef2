"""From the expression classes of other data sets to the eight of this project.

A map is a dict from a label, as text in lower case, to one of `tasks.EXPRESSION_NAMES`, or to None
for a class that has no counterpart here. A label that is absent from the map has none either.

Contempt is no class of Aff-Wild2, and is not what its class Other stands for (all expressions but
the seven, mixed ones among them). The maps drop it; `affectnet_contempt_as_other` is there for
those who decide otherwise.
"""

import json
import os

from data_pipeline.formats.user_files import read_bytes, to_text
from mtl_face.errors import AnnotationError, ConfigError, quoted
from mtl_face.tasks import EXPRESSION_NAMES

ExpressionMap = dict[str, str | None]

_WORDS: ExpressionMap = {
    **{name.lower(): name for name in EXPRESSION_NAMES},
    "angry": "Anger",
    "disgusted": "Disgust",
    "fearful": "Fear",
    "afraid": "Fear",
    "happy": "Happiness",
    "joy": "Happiness",
    "sad": "Sadness",
    "surprised": "Surprise",
    "contempt": None,
}
"""Words in circulation. All maps know them, besides their numbers."""


def _numbered(names: tuple[str | None, ...], first: int = 0) -> ExpressionMap:
    return {**_WORDS, **{str(number): name for number, name in enumerate(names, first)}}


_AFFECTNET = ("Neutral", "Happiness", "Sadness", "Surprise", "Fear", "Disgust", "Anger")

MAPS: dict[str, ExpressionMap] = {
    "aff_wild2": _numbered(EXPRESSION_NAMES),
    # 7 contempt, 8 none, 9 uncertain, 10 no face
    "affectnet": _numbered((*_AFFECTNET, None, None, None, None)),
    "affectnet_contempt_as_other": {
        **_numbered((*_AFFECTNET, "Other", None, None, None)),
        "contempt": "Other",
    },
    "affectnet_alphabetical": _numbered(
        ("Anger", None, "Disgust", "Fear", "Happiness", "Neutral", "Sadness", "Surprise")
    ),
    "fer2013": _numbered(
        ("Anger", "Disgust", "Fear", "Happiness", "Sadness", "Surprise", "Neutral")
    ),
    "raf_db": _numbered(
        ("Surprise", "Fear", "Disgust", "Happiness", "Sadness", "Anger", "Neutral"), first=1
    ),
}
"""The maps by name: the class numbers of Aff-Wild2, AffectNet, FER2013 and RAF-DB.

`affectnet_alphabetical`: AffectNet's eight classes in the order of their English names.
"""


def find_map(name: str) -> ExpressionMap:
    """The map of a name in `MAPS`, or of a JSON file: an object from labels to expressions or null.

    A file's labels are all that its map knows.

    Raises:
        ConfigError: neither a name nor a JSON file.
        AnnotationError: the file cannot be read or is no such object.
    """
    if name in MAPS:
        return MAPS[name]
    if not name.lower().endswith(".json"):
        raise ConfigError(
            f"unknown expression map {quoted(name)}",
            remedy=f"choose one of {', '.join(MAPS)}, or name a .json file",
        )
    return _read_map(name)


def _read_map(path: str | os.PathLike[str]) -> ExpressionMap:
    text = to_text(read_bytes(path), path)
    try:
        content = json.loads(text)
    except (ValueError, RecursionError) as error:
        line = error.lineno if isinstance(error, json.JSONDecodeError) else 1
        raise AnnotationError(
            f"no JSON ({error})", path=path, line=line, remedy=f"write it as {_EXAMPLE}"
        ) from error
    known = {name.lower(): name for name in EXPRESSION_NAMES}
    if not isinstance(content, dict):
        raise AnnotationError("no JSON object", path=path, line=1, remedy=f"write {_EXAMPLE}")
    found: ExpressionMap = {}
    for label, name in content.items():
        expression = known.get(name.lower()) if isinstance(name, str) else None
        if expression is None and name is not None:
            raise AnnotationError(
                f"label {quoted(label)} stands for {quoted(str(name))}, which is no expression",
                path=path,
                remedy=f"expressions are {', '.join(EXPRESSION_NAMES)}; null is none of them",
            )
        found[label.strip().lower()] = expression
    return found


_EXAMPLE = '{"0": "Neutral", "1": "Happiness", "2": null}'
