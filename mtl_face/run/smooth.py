"""`run.py smooth`: smooths a file of predictions over time, without JAX or TensorFlow."""

import argparse

from mtl_face.evaluation import predictions as prediction_files
from mtl_face.evaluation.smoothing import smooth
from mtl_face.run import smoothing as smooth_options


def run(config: object, options: argparse.Namespace) -> int:
    """Smooths `options.predictions` into `options.output`.

    Args:
        config: None; the flags say it all.
        options: `predictions`, `output`, `window`, `kernel`, `unit`, `on`.

    Returns:
        Exit status 0.

    Raises:
        ConfigError: a flag is wrong.
        PredictionError: the file cannot be read, or was smoothed or calibrated before.
    """
    smoothing = smooth_options.from_flags(options, on=options.on)
    table = smooth(prediction_files.read(options.predictions), smoothing)
    prediction_files.write(table, options.output)
    windows = ", ".join(f"{task} {window:g}" for task, window in smoothing.windows.items())
    measure = "standard deviations" if smoothing.kernel == "gaussian" else "windows"
    print(
        f"smoothed {len(table)} rows: {smoothing.kernel}, {measure} in {smoothing.unit}: {windows}"
    )
    print(f"results: {options.output}")
    print(f"next: run.py evaluate --predictions={options.output} --truth=ANNOTATIONS scores them")
    return 0
