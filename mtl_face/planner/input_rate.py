"""Images a second that one host's input delivers, as the user states it or has measured it."""

import json
import math
from pathlib import Path
from typing import Any

from mtl_face.errors import ConfigError

_REMEDY = "give a number of images/s, or a file of `python -m benchmarks.input --output=FILE.json`"


def read(text: str, *, image_size: int, source: str) -> float:
    """The rate that `--input_rate` names.

    Args:
        text: a number of images/s, or the path of what `benchmarks/input.py` wrote.
        image_size: side of the stored images, pixels, whose row of the file is wanted.
        source: `files`, `memory` or `shards`: how they will be read.

    Returns:
        Images/s of one host, above 0.

    Raises:
        ConfigError: neither a rate nor such a file, or the file lacks this size or way of reading.
    """
    try:
        rate = float(text)
    except ValueError:
        return _from_file(Path(text), image_size, source)
    if not (math.isfinite(rate) and rate > 0):
        raise ConfigError(f"--input_rate={text} is no rate", remedy=_REMEDY)
    return rate


def _from_file(path: Path, image_size: int, source: str) -> float:
    try:
        measured: Any = json.loads(path.read_text())
    except OSError as error:
        raise ConfigError(
            f"--input_rate={path} is no number and cannot be read ({error.strerror})",
            remedy=_REMEDY,
        ) from error
    except (UnicodeDecodeError, ValueError, RecursionError) as error:
        raise ConfigError(f"{path}: is no JSON ({error})", remedy=_REMEDY) from error
    sizes = measured.get("images_per_second") if isinstance(measured, dict) else None
    if not isinstance(sizes, dict) or not all(isinstance(ways, dict) for ways in sizes.values()):
        raise ConfigError(f"{path}: holds no measured rates", remedy=_REMEDY)
    if str(image_size) not in sizes:
        raise ConfigError(
            f"{path}: was measured with images of {', '.join(sizes)} pixels, "
            f"data.image_size is {image_size}",
            remedy=f"measure with --sizes={image_size}",
        )
    rates = [
        rate
        for way, rate in sizes[str(image_size)].items()
        if way.startswith(f"ours, from {source}") and isinstance(rate, int | float) and rate > 0
    ]
    if not rates:
        raise ConfigError(
            f"{path}: has no rate of our input from {source}",
            remedy="measure again with the present benchmarks/input.py",
        )
    return float(max(rates))
