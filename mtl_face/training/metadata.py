"""What lies beside the state of a checkpoint, with a check sum of its own. Light: no JAX, no orbax.

Orbax keeps it in a file of the step's folder, and marks each folder that it has finished.
"""

import contextlib
import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

SETTINGS = "config"
"""Key of the run's settings, as `config.json` has them: kept twice, in case one is damaged."""

_FILE = "_CHECKPOINT_METADATA"
_COMMITTED = "commit_success.txt"
_CHECK_SUM = "check_sum"


def seal(values: Mapping[str, Any]) -> dict[str, Any]:
    """JSON values with a check sum, at which `read` looks."""
    return {**values, _CHECK_SUM: _check_sum(values)}


def read(step: Path) -> dict[str, Any]:
    """What was kept in a step's folder; older versions kept no check sum.

    Raises:
        OSError: a file cannot be read.
        ValueError: it is missing or damaged, or orbax has not finished the folder.
    """
    # Orbax before 0.12.3 marks neither of the two.
    if (step / _COMMITTED).exists() != (step / "state" / _COMMITTED).exists():
        raise ValueError(f"{_COMMITTED} is missing: it was not saved or copied whole")
    return _values(step)


def put_out_of_the_way(step: Path) -> None:
    """Renames metadata that are damaged: one such file may keep orbax from opening all steps."""
    path = step / _FILE
    try:
        _values(step)
    except ValueError:
        if path.exists():
            path.rename(path.with_name(f"{_FILE}.damaged"))


def _values(step: Path) -> dict[str, Any]:
    try:
        content = json.loads((step / _FILE).read_bytes())
        values = dict(content.get("custom_metadata") or {})
    except FileNotFoundError as error:
        raise ValueError(f"{_FILE} is missing") from error
    except (ValueError, TypeError, AttributeError, RecursionError) as error:
        raise ValueError(f"{_FILE} is damaged") from error
    expected = values.pop(_CHECK_SUM, None)
    if expected is not None and expected != _check_sum(values):
        raise ValueError(f"{_FILE} is not what was saved")
    return values


def steps(checkpoints: Path) -> list[int]:
    """Numbers of the steps in a folder of checkpoints, the newest first; none if it is absent."""
    if not checkpoints.is_dir():
        return []
    names = [entry.name for entry in checkpoints.iterdir()]
    return sorted((int(name) for name in names if name.isdecimal()), reverse=True)


def newest(checkpoints: Path, key: str) -> Any:
    """A value as the newest step has it whose metadata are sound and hold it; None if none does."""
    for step in steps(checkpoints):
        with contextlib.suppress(OSError, ValueError):  # said where its state is read
            found = read(checkpoints / str(step))
            if key in found:
                return found[key]
    return None


def _check_sum(values: Mapping[str, Any]) -> str:
    text = json.dumps(values, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:32]
