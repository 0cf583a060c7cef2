"""Reads a config file of `configs/` and applies the command line's overrides."""

import difflib
import importlib.util
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from ml_collections import config_dict

from mtl_face.config.check import parse_value, section_expected, validate
from mtl_face.config.schema import Config
from mtl_face.errors import ConfigError


def load(path: str | Path, overrides: Iterable[str] = (), *, reads_data: bool = True) -> Config:
    """Reads a config file and applies overrides.

    Args:
        path: a Python file with `get_config()`, which returns a ConfigDict made by `default()`.
        overrides: `a.b=value` items; values are written as in Python, strings without quotes.
        reads_data: see `validate`.

    Returns:
        The checked config.

    Raises:
        ConfigError: if the file cannot be read or run, or for a wrong field or value.
    """
    path = Path(path)
    return load_values(_run_config_file(path), overrides, path, reads_data=reads_data)


def load_values(
    values: dict[str, Any], overrides: Iterable[str], path: str | Path, *, reads_data: bool = True
) -> Config:
    """Applies overrides to settings that were read from some file.

    Args:
        values: nested settings; those that are absent take their default. Changed in place.
        overrides: as `load`.
        path: where the values come from, for messages.
        reads_data: see `validate`.

    Returns:
        The checked config.

    Raises:
        ConfigError: for a wrong field or value.
    """
    changes = [split_override(override) for override in overrides]
    parsed = [(name, parse_value(name, text)) for name, text in changes]
    try:
        for name, value in parsed:
            _set(values, name, value)
        return validate(values, reads_data=reads_data)
    except ConfigError as error:
        # Each override is sound by itself: what is left to find fault with is the file.
        raise ConfigError(error.problem, remedy=error.remedy, path=path) from None


def split_override(override: str) -> tuple[str, str]:
    """Splits `a.b=value` into `a.b` and `value`.

    Raises:
        ConfigError: if there is no value.
    """
    name, equals, text = override.partition("=")
    if not equals:
        raise ConfigError(f"'{override}' has no value", remedy=f"write --config.{name}=VALUE")
    return name, text


def _set(values: dict[str, Any], name: str, value: Any) -> None:
    *sections, leaf = name.split(".")
    for depth, section in enumerate(sections, start=1):
        values = values.setdefault(section, {})
        if not isinstance(values, dict):
            raise section_expected(".".join(sections[:depth]))
    values[leaf] = value


def _run_config_file(path: Path) -> dict[str, Any]:
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
        if not callable(getattr(module, "get_config", None)):
            raise ConfigError(
                "has no function get_config()",
                path=path,
                remedy="copy a file of configs/ and change what your experiment changes",
            )
        settings = module.get_config()
        if isinstance(settings, config_dict.ConfigDict):
            return settings.to_dict()
    except ConfigError:
        raise
    except (Exception, SystemExit) as error:
        line = _line_in(path, error)
        raise ConfigError(
            f"the config file failed: {type(error).__name__}: {error}",
            path=path,
            line=line,
            remedy="mend it; `python run.py settings` lists fields and types",
        ) from error
    raise ConfigError(
        f"get_config() returned {type(settings).__name__}, not a ConfigDict",
        path=path,
        remedy="start from mtl_face.config.default()",
    )


def _line_in(path: Path, error: BaseException) -> int | None:
    """Last line of `path` on the way to `error`, or the line of a syntax error."""
    file = path.resolve()
    if isinstance(error, SyntaxError) and Path(error.filename or "").resolve() == file:
        return error.lineno
    line, trace = None, error.__traceback__
    while trace is not None:
        if Path(trace.tb_frame.f_code.co_filename).resolve() == file:
            line = trace.tb_lineno
        trace = trace.tb_next
    return line
