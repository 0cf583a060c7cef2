"""`run.py ensemble`: averages files of predictions, without JAX or TensorFlow."""

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from mtl_face import config as config_lib
from mtl_face.errors import ConfigError
from mtl_face.evaluation import predictions as prediction_files
from mtl_face.evaluation.ensemble import combine
from mtl_face.evaluation.smoothing import Smoothing, smooth
from mtl_face.run import prediction_paths
from mtl_face.run import smoothing as smooth_options
from mtl_face.tables import EPISTEMIC_COLUMNS, PredictionTable
from mtl_face.tasks import OUTPUT_SIZES, TASKS


def run(config: config_lib.Config | None, options: argparse.Namespace) -> int:
    """Averages the members into `options.output`.

    Args:
        config: settings whose `evaluation.smoothing` takes the place of the flags of smoothing;
            None without `--config`.
        options: `predictions` (files), `workdirs` (folders of runs), `output`, `on`, `missing`;
            `window`, `kernel`, `unit`, `smooth_on` of the smoothing of each member, if any.

    Returns:
        Exit status 0.

    Raises:
        ConfigError: fewer than two members, or a wrong flag.
        PredictionError: a file cannot be read, or the members cannot be averaged.
    """
    paths = [*options.predictions, *map(prediction_paths.of_workdir, options.workdirs)]
    _check_paths(paths, options.output)
    smoothing = _smoothing(config, options)
    members = []
    for path in paths:
        member = prediction_files.read(path)
        print(f"{path}: {len(member)} rows")
        members.append(member if smoothing is None else smooth(member, smoothing))
    mean = combine(members, names=[str(p) for p in paths], on=options.on, missing=options.missing)
    incomplete = mean.metadata["ensemble"]["num_incomplete_rows"]
    if incomplete:
        print(f"{incomplete} of {len(mean)} rows are the mean of the members that have them")
    if smoothing is not None:
        print(f"each member was smoothed first: {smoothing.kernel}, {dict(smoothing.windows)}")
    prediction_files.write(mean, options.output)
    print(f"mean of {len(members)} members on {options.on}; {_spread(mean)}")
    print(f"results: {options.output}")
    print(f"next: run.py evaluate --predictions={options.output} --truth=ANNOTATIONS scores it")
    return 0


def _smoothing(config: config_lib.Config | None, options: argparse.Namespace) -> Smoothing | None:
    """How each member is smoothed before the mean is taken, or None."""
    flags = smooth_options.from_flags(options, on=options.smooth_on)
    if config is None:
        return None if flags.changes_nothing else flags
    if not flags.changes_nothing:
        raise ConfigError(
            "both --window and --config say how to smooth",
            remedy="leave out --window, or change --config.evaluation.smoothing",
        )
    return smooth_options.from_settings(config.evaluation.smoothing)


def _check_paths(paths: Sequence[Path], output: Path) -> None:
    """Raises ConfigError unless there are two members or more, all of them different files."""
    if len(paths) < 2:
        raise ConfigError(
            f"an ensemble of {len(paths)} is none",
            remedy="name two files of predictions or more, or --workdirs with folders of runs",
        )
    resolved = [path.resolve() for path in paths]
    repeated = next((path for path in resolved if resolved.count(path) > 1), None)
    if repeated is not None:
        raise ConfigError(f"{repeated} is named twice", remedy="name each member once")
    if output.resolve() in resolved:
        raise ConfigError(
            f"--output={output} is one of the members", remedy="choose another name for the mean"
        )


def _spread(mean: PredictionTable) -> str:
    """How far the members differ, in words."""
    columns = mean.columns()
    sizes = [OUTPUT_SIZES[task] for task in TASKS]
    spreads = np.split([columns[name] for name in EPISTEMIC_COLUMNS], np.cumsum(sizes)[:-1])
    shown = [
        f"{task} {np.sqrt(np.nanmean(np.square(spread))):.3f}"
        for task, spread in zip(TASKS, spreads, strict=True)
        if not np.isnan(spread).all()
    ]
    return "the members' standard deviations: " + (", ".join(shown) or "unknown")
