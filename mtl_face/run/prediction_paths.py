"""Where the predictions of an evaluated run lie."""

from pathlib import Path

from mtl_face.errors import WorkdirError

RAW = "predictions_raw.parquet"
"""As the network made them; written where smoothing or calibration changed what was scored."""

SCORED = "predictions.parquet"


def of_workdir(workdir: Path) -> Path:
    """The predictions of a run as its network made them.

    Args:
        workdir: folder of an evaluated run.

    Returns:
        `evaluation/predictions_raw.parquet` if it exists, else `evaluation/predictions.parquet`.

    Raises:
        WorkdirError: the run was not evaluated.
    """
    for name in (RAW, SCORED):
        path = workdir.expanduser() / "evaluation" / name
        if path.is_file():
            return path
    raise WorkdirError(
        "holds no evaluation/predictions.parquet",
        path=workdir,
        remedy="evaluate the run first: python run.py evaluate --config=... --workdir=...",
    )
