"""The flags and settings of smoothing, as what `mtl_face.evaluation.smoothing` takes."""

import argparse
from typing import Any

from mtl_face.errors import ConfigError
from mtl_face.evaluation.smoothing import Smoothing
from mtl_face.tasks import TASKS

_EXAMPLES = "--window=30 for all tasks, or --window=va:30,au:30,expr:60"


def from_flags(options: argparse.Namespace, *, on: str) -> Smoothing:
    """The smoothing that flags ask for.

    Args:
        options: `window`, `kernel`, `unit`.
        on: what is averaged, as in `Smoothing`.

    Returns:
        The smoothing.

    Raises:
        ConfigError: the window cannot be understood, or is out of range.
    """
    return _smoothing(
        f"--window={options.window}",
        _EXAMPLES,
        windows=parse_windows(options.window),
        kernel=options.kernel,
        unit=options.unit,
        on=on,
    )


def from_settings(settings: Any) -> Smoothing | None:
    """The smoothing that `evaluation.smoothing` of a config asks for.

    Args:
        settings: with `kernel`, `unit`, `on` and a window for each task.

    Returns:
        The smoothing, or None for none.

    Raises:
        ConfigError: a window is out of range.
    """
    smoothing = _smoothing(
        "evaluation.smoothing",
        "change evaluation.smoothing.va, .au and .expr; a box takes whole numbers",
        windows={task: getattr(settings, task) for task in TASKS},
        kernel=settings.kernel,
        unit=settings.unit,
        on=settings.on,
    )
    return None if smoothing.changes_nothing else smoothing


def parse_windows(text: str) -> dict[str, float]:
    """The windows in `30` or `va:30,au:30,expr:60`, by task.

    Raises:
        ConfigError: it is neither.
    """
    windows: dict[str, float] = {}
    for part in text.split(","):
        name, colon, number = part.strip().rpartition(":")
        if not colon and "," not in text:
            names: tuple[str, ...] = TASKS
        elif name in TASKS and name not in windows:
            names = (name,)
        else:
            names = ()
        try:
            value = float(number)
        except ValueError:
            names = ()
        if not names:
            raise ConfigError(f"--window={text} is no window", remedy=f"write {_EXAMPLES}")
        windows |= dict.fromkeys(names, value)
    return windows


def parse_window_list(text: str, options: argparse.Namespace) -> list[float]:
    """The windows to choose from, in `0,10,30`.

    Args:
        text: numbers, split by commas.
        options: `kernel`, `unit`, `on`, which the windows must fit.

    Raises:
        ConfigError: it is none, or a window is out of range.
    """
    remedy = "write --windows=0,10,30,60; --windows=0 fits no smoothing"
    try:
        windows = [float(part) for part in text.split(",")]
    except ValueError as error:
        raise ConfigError(f"--windows={text} is no list of windows", remedy=remedy) from error
    for window in windows:
        _smoothing(
            f"--windows={text}",
            remedy,
            windows=dict.fromkeys(TASKS, window),
            kernel=options.kernel,
            unit=options.unit,
            on=options.on,
        )
    return windows


def _smoothing(place: str, remedy: str, **values: Any) -> Smoothing:
    try:
        return Smoothing(**values)
    except ValueError as error:
        raise ConfigError(f"{place}: {error}", remedy=remedy) from error
