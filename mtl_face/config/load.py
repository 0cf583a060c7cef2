"""Reads a config file of `configs/` and applies the command line's overrides."""

import difflib
import importlib.util
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from ml_collections import config_dict

from mtl_face.config.check import parse_value, validate
from mtl_face.config.schema import Config
from mtl_face.errors import ConfigError


def load(path: str | Path, overrides: Iterable[str] = ()) -> Config:
    """Reads a config file and applies overrides.

    Args:
        path: a Python file with `get_config()`, which returns a ConfigDict made by `default()`.
        overrides: `a.b=value` items; values are written as in Python, strings without quotes.

    Returns:
        The checked config.

    Raises:
        ConfigError: if the file cannot be read or run, or for a wrong field or value.
    """
    path = Path(path)
    settings = _run_config_file(path)
    for override in overrides:
        name, equals, text = override.partition("=")
        if not equals:
            raise ConfigError(f"'{override}' has no value", remedy=f"write --config.{name}=VALUE")
        _set(settings, name, parse_value(name, text))
    try:
        return validate(settings)
    except ConfigError as error:
        if error.path is not None or "." not in str(path):
            raise
        raise ConfigError(error.problem, remedy=error.remedy, path=path) from None


def _set(settings: config_dict.ConfigDict, name: str, value: Any) -> None:
    *sections, leaf = name.split(".")
    for section in sections:
        settings = settings[section]
    with settings.ignore_type():
        settings[leaf] = value


def _run_config_file(path: Path) -> config_dict.ConfigDict:
    if not path.is_file():
        folder = path.parent if path.parent.is_dir() else Path("configs")
        near = difflib.get_close_matches(
            path.name, [p.name for p in folder.glob("*.py") if p.name != "__init__.py"], n=1
        )
        hint = f"did you mean {folder / near[0]}?" if near else "give a file of configs/"
        raise ConfigError("no such config file", path=path, remedy=hint)
    spec = importlib.util.spec_from_file_location("mtl_face_config_file", path)
    if spec is None or spec.loader is None:
        raise ConfigError("is not a Python file", path=path, remedy="give a file of configs/")
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
        settings = module.get_config()
    except ConfigError:
        raise
    except Exception as error:
        line = _line_in(path, error)
        raise ConfigError(
            f"the config file failed: {type(error).__name__}: {error}",
            path=path,
            line=line,
            remedy="mend that line; fields and types are listed in mtl_face/config.py",
        ) from error
    if not isinstance(settings, config_dict.ConfigDict):
        raise ConfigError(
            f"get_config() returned {type(settings).__name__}, not a ConfigDict",
            path=path,
            remedy="start from mtl_face.config.default()",
        )
    return settings


def _line_in(path: Path, error: BaseException) -> int | None:
    """Last line of `path` on the way to `error`, or the line of a syntax error."""
    if isinstance(error, SyntaxError):
        return error.lineno
    line, trace = None, error.__traceback__
    while trace is not None:
        if Path(trace.tb_frame.f_code.co_filename) == path:
            line = trace.tb_lineno
        trace = trace.tb_next
    return line
