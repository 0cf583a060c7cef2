"""Multi-task facial affect: valence/arousal, action units and expressions from a face.

    import mtl_face

    faces = mtl_face.load("geometry").predict("photo.jpg")
    print(faces.to_dataframe())

    config = mtl_face.load_config("rendered_faces", seed=1)
    mtl_face.train(config, "runs/one")
    model = mtl_face.load("runs/one")
    print(model.predict(["photo.jpg", "other.jpg"]).to_dataframe())

Importing this package costs nothing: each function is imported with what it needs when it is first
asked for.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mtl_face.config.load import load_config
    from mtl_face.run.evaluate import evaluate
    from mtl_face.run.export import export_model
    from mtl_face.run.models import load
    from mtl_face.run.predict import predict
    from mtl_face.run.train import train

__version__ = "0.1.0"

__all__ = ["evaluate", "export_model", "load", "load_config", "predict", "train"]

_PLACES = {
    "evaluate": "mtl_face.run.evaluate",
    "export_model": "mtl_face.run.export",
    "load": "mtl_face.run.models",
    "load_config": "mtl_face.config.load",
    "predict": "mtl_face.run.predict",
    "train": "mtl_face.run.train",
}


def __getattr__(name: str) -> Any:
    if name not in _PLACES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_PLACES[name]), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
