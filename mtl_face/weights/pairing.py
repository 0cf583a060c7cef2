"""Checks that a network is built and fed as its initial weights were trained."""

from collections.abc import Sequence

from mtl_face.errors import WeightsError
from mtl_face.weights.backbone import LoadedBackbone
from mtl_face.weights.resnet_names import Architecture

_TOLERANCE = 1e-3
"""Of means and deviations, in units of 0..255."""


def check_pairing(
    backbone: LoadedBackbone,
    *,
    path: str,
    variant: str,
    input_mean: Sequence[float],
    input_std: Sequence[float],
    architecture: Architecture,
) -> None:
    """Checks the settings against the weights.

    Args:
        backbone: the weights.
        path: their file, for the message.
        variant: geometry that the network will have.
        input_mean: what it will subtract from R, G, B in 0..255.
        input_std: what it will divide by.
        architecture: its size.

    Raises:
        WeightsError: for every difference at once, with the settings to use.
    """
    known, size = backbone.variant, backbone.architecture
    differences, settings = [], []

    def expect(name: str, found: object, wanted: object, same: bool) -> None:
        if not same:
            differences.append(f"model.{name} is {_text(found)}, the weights need {_text(wanted)}")
            settings.append(f"--config.model.{name}={_text(wanted)}")

    expect("backbone.variant", variant, known.name, variant == known.name)
    expect("input_mean", input_mean, known.input_mean, _close(input_mean, known.input_mean))
    expect("input_std", input_std, known.input_std, _close(input_std, known.input_std))
    for name in ("stage_sizes", "width", "expansion"):
        found, wanted = getattr(architecture, name), getattr(size, name)
        expect(f"backbone.{name}", found, wanted, found == wanted)
    if differences:
        raise WeightsError(
            "does not fit the settings: " + "; ".join(differences),
            path=path,
            remedy="use " + " ".join(settings),
        )


def settings(backbone: LoadedBackbone) -> list[str]:
    """The flags that make a network for the weights."""
    known, size = backbone.variant, backbone.architecture
    return [
        f"--config.model.backbone.variant={known.name}",
        f"--config.model.input_mean={_text(known.input_mean)}",
        f"--config.model.input_std={_text(known.input_std)}",
        f"--config.model.backbone.stage_sizes={_text(size.stage_sizes)}",
        f"--config.model.backbone.width={size.width}",
        f"--config.model.backbone.expansion={size.expansion}",
    ]


def _close(found: Sequence[float], wanted: Sequence[float]) -> bool:
    return all(abs(a - b) <= _TOLERANCE for a, b in zip(found, wanted, strict=True))


def _text(value: object) -> str:
    if isinstance(value, Sequence) and not isinstance(value, str):
        # A trailing comma keeps a single value a list.
        return ",".join(map(str, value)) + ("," if len(value) == 1 else "")
    return str(value)
