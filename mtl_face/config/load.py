"""Reads a config file of `configs/` and applies the command line's overrides."""

import difflib
import importlib.util
import sys
import traceback
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from ml_collections import config_dict

from mtl_face.config.check import build, parse_value, section_expected, validate
from mtl_face.config.schema import Config
from mtl_face.errors import ConfigError

_PACKAGE = "mtl_face_config_file"
"""Name of a config file while it runs: a package of its folder, so that it imports neighbours."""


def load(path: str | Path, overrides: Iterable[str] = (), *, reads_data: bool = True) -> Config:
    """Reads a config file and applies overrides.

    Args:
        path: a Python file with `get_config()`, which returns a ConfigDict made by `default()`;
            or the name of a shipped one.
        overrides: `a.b=value` items; values are written as in Python, strings without quotes.
        reads_data: see `validate`.

    ConfigError if the file cannot be read or run, or for a wrong field or value.
    """
    path = _file_of(path)
    return load_values(_run_config_file(path), overrides, path, reads_data=reads_data)


def load_config(path_or_name: str | Path, **changes: Any) -> Config:
    """The settings of an experiment, from Python.

    Args:
        path_or_name: a config file, or the name of a shipped one (`paper`, `rendered_faces`).
        **changes: settings to change: `seed=1`, a section as a dict,
            `optimizer={"batch_size": 32}`, or by its dotted name,
            `**{"optimizer.batch_size": 32}`.

    Raises:
        ConfigError: there is no such file or setting, or a value is wrong.
    """
    path = _file_of(path_or_name)
    values = _run_config_file(path)
    asked: dict[str, Any] = {}
    for name, value in changes.items():
        _set(asked, name, value)
    build(asked)  # alone: a mistake in the call is not one in the file
    return _changed(values, changes.items(), path)


def load_values(
    values: dict[str, Any], overrides: Iterable[str], path: str | Path, *, reads_data: bool = True
) -> Config:
    """Applies overrides, as of `load`, to nested settings, which it changes in place.

    `path` is where the values come from, for messages; ConfigError for a wrong field or value.
    """
    changes = [split_override(override) for override in overrides]
    parsed = [(name, parse_value(name, text)) for name, text in changes]
    return _changed(values, parsed, path, reads_data)


def split_override(override: str) -> tuple[str, str]:
    """Splits `a.b=value` into `a.b` and `value`; ConfigError without a value."""
    name, equals, text = override.partition("=")
    if not equals:
        raise ConfigError(f"'{override}' has no value", remedy=f"write --config.{name}=VALUE")
    return name, text


def _changed(
    values: dict[str, Any],
    changes: Iterable[tuple[str, Any]],
    path: str | Path,
    reads_data: bool = True,
) -> Config:
    try:
        for name, value in changes:
            _set(values, name, value)
        return validate(values, reads_data=reads_data)
    except ConfigError as error:
        # Each change was checked by itself: the file, or what it says beside them, is at fault.
        raise ConfigError(error.problem, remedy=error.remedy, path=path) from None


def _set(values: dict[str, Any], name: str, value: Any) -> None:
    """Puts a value at its dotted name; a dict is merged into the section of that name."""
    parts = name.split(".")
    inside = values
    for depth in range(1, len(parts) + isinstance(value, dict)):
        inside = inside.setdefault(parts[depth - 1], {})
        if not isinstance(inside, dict):
            raise section_expected(".".join(parts[:depth]))
    if isinstance(value, dict):
        for part, change in value.items():
            _set(values, f"{name}.{part}", change)
    else:
        inside[parts[-1]] = value


def shipped() -> dict[str, Path]:
    """The experiments that come with the package, by name."""
    package = Path(__file__).parents[1]
    # An installed package holds them; in a clone they lie beside it.
    folder = next(
        (folder for folder in (package / "configs", package.parent / "configs") if folder.is_dir()),
        None,
    )
    files = [] if folder is None else sorted(folder.glob("*.py"))
    return {file.stem: file for file in files if file.stem != "__init__"}


def _file_of(name: str | Path) -> Path:
    """The config file that is meant: a shipped one by its bare name, or any by its path."""
    path, known = Path(name), shipped()
    if not str(name):
        raise ConfigError(
            "no config is named", remedy=f"give a file, or a shipped one: {', '.join(known)}"
        )
    if path.name == str(name) and not path.suffix and str(name) in known:
        return known[str(name)]
    if path.is_file():
        return path
    beside = [file.name for file in path.parent.glob("*.py")] if path.parent.is_dir() else []
    near = difflib.get_close_matches(path.name, beside, n=1)
    named = difflib.get_close_matches(path.stem, known, n=1)
    meant = str(path.parent / near[0]) if near else named[0] if named else None
    raise ConfigError(
        "no such config file",
        path=path,
        remedy=(f"did you mean {meant}? " if meant else "")
        + f"Give a file, or the name of a shipped one: {', '.join(known)}",
    )


def _run_config_file(path: Path) -> dict[str, Any]:
    folder = [str(path.parent)]
    spec = importlib.util.spec_from_file_location(_PACKAGE, path, submodule_search_locations=folder)
    if spec is None or spec.loader is None:
        raise ConfigError("is not a Python file", path=path, remedy="give a file of configs/")
    module = importlib.util.module_from_spec(spec)
    sys.modules[_PACKAGE] = module
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
            remedy="correct it; `python run.py settings` lists fields and types",
        ) from error
    finally:
        for name in [name for name in sys.modules if name.partition(".")[0] == _PACKAGE]:
            del sys.modules[name]
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
    trace = traceback.extract_tb(error.__traceback__)
    lines = [frame.lineno for frame in trace if Path(frame.filename).resolve() == file]
    return lines[-1] if lines else None
