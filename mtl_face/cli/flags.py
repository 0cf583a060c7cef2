"""Flags that several commands share, and what their values mean."""

import argparse
import dataclasses
import functools
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mtl_face.config import Config
from mtl_face.errors import ConfigError
from mtl_face.files import require_writable_file
from mtl_face.tasks import TASKS

if TYPE_CHECKING:
    from mtl_face.evaluation.smoothing import Smoothing
    from mtl_face.run.score import Scoring


def natural_number(text: str, least: int = 0) -> int:
    """A whole number from `least` on; ArgumentTypeError for anything else."""
    try:
        value = int(text)
    except ValueError:
        value = least - 1
    if value < least:
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number from {least} on")
    return value


LEAST_FACE_PX = 12
"""Least height of faces that can be asked for; smaller ones are not recognised as such."""

positive_number = functools.partial(natural_number, least=1)


def face_height(text: str) -> float:
    """A height of faces in pixels; ArgumentTypeError for none that can be looked for."""
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not LEAST_FACE_PX <= value <= 1e5:
        raise argparse.ArgumentTypeError(
            f"{text!r} is no height of a face in pixels: from {LEAST_FACE_PX} on, as 20"
        )
    return value


def min_face(parser: argparse.ArgumentParser) -> None:
    """The flag of the smallest faces to look for."""
    parser.add_argument(
        "--min_face",
        type=face_height,
        metavar="PIXELS",
        help="height, from forehead to chin, of the smallest faces to look for (default: 40 in "
        "photos, 8 %% of the longer side in videos); smaller ones take longer: 20 in 1920 x 1080 "
        "about half a second a search",
    )


def named_path(text: str) -> Path:
    """A path; ArgumentTypeError for an empty text, which `Path` takes for the current folder."""
    if not text.strip():
        raise argparse.ArgumentTypeError("the path is empty; write . for the current folder")
    return Path(os.path.expanduser(text))  # in --output=~/x.csv the shell leaves it


def new_file(text: str) -> Path:
    """The path of a file to write; WorkdirError where that is impossible, before any work."""
    return require_writable_file(named_path(text))


def path(
    parser: argparse._ActionsContainer, name: str, metavar: str, meaning: str, **how: Any
) -> None:
    """A flag or an argument that names a file or a folder; `how` is as of `add_argument`."""
    parser.add_argument(name, metavar=metavar, help=meaning, **{"type": named_path, **how})


def scoring(parser: argparse.ArgumentParser, *, required: bool) -> None:
    """Labels, leniency, resamples and output of a command that scores."""
    path(
        parser,
        "--truth",
        "FILE",
        "labels: a multi-task annotation file, a manifest (CSV or Parquet), or a folder of "
        "one-task files <video>.txt",
        required=required,
    )
    parser.add_argument(
        "--lenient",
        action="store_true",
        help="score a file that lacks labelled rows, has others, or departs from its form, and "
        "say so",
    )
    skip_bad_rows(parser)
    parser.add_argument(
        "--dataset", metavar="NAME", help="the data set to score, if the predictions are of several"
    )
    parser.add_argument(
        "--resamples",
        type=natural_number,
        default=1000,
        metavar="N",
        help="resamples of the videos for the intervals (default: 1000; 0: no intervals)",
    )
    parser.add_argument(
        "--seed", type=natural_number, default=0, metavar="N", help="of the resamples (default: 0)"
    )
    path(parser, "--output", "FILE.json", "also write the numbers")


def scoring_of(options: argparse.Namespace) -> "Scoring":
    """What the flags of `scoring` say; WorkdirError if the output cannot be written."""
    from mtl_face.run.score import Scoring

    if options.output is not None:
        require_writable_file(options.output)
    return Scoring(
        truth=options.truth,
        dataset=options.dataset,
        lenient=options.lenient,
        skip_bad_rows=options.skip_bad_rows,
        num_resamples=options.resamples,
        seed=options.seed,
    )


def skip_bad_rows(parser: argparse.ArgumentParser) -> None:
    """`--skip_bad_rows`, which changes the settings as `with_bad_rows_skipped` does."""
    parser.add_argument(
        "--skip_bad_rows",
        action="store_true",
        help="leave out, count and list rows of labels that cannot be read (default: an error), as "
        "--config.data.skip_bad_rows=true of each data set",
    )


def with_bad_rows_skipped(config: Config) -> Config:
    """The settings with `skip_bad_rows` for each data set."""
    data = config.data
    mixture = {
        name: dataclasses.replace(entry, skip_bad_rows=True) for name, entry in data.mixture.items()
    }
    data = dataclasses.replace(data, mixture=mixture, skip_bad_rows=not mixture)
    return dataclasses.replace(config, data=data)


def calibration(parser: argparse.ArgumentParser) -> None:
    """`--calibration`, which changes the settings as `with_calibration` does."""
    path(
        parser,
        "--calibration",
        "FILE.json",
        "of run.py calibrate: applied to the predictions, as --config.evaluation.calibration",
    )


def event_rules(parser: argparse._ActionsContainer) -> None:
    """`--event_rule`, texts for `EventRules.from_texts`."""
    parser.add_argument(
        "--event_rule",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="what counts as an event, as shortest_ms=200 or keep=0.3; can be given several times "
        "(default: keep=0.4 margin=0.1 shortest_ms=100 longest_gap_ms=100 trusted_only=no)",
    )


def new_table(text: str) -> Path:
    """The path of a table of predictions to write; ConfigError unless it is .parquet or .csv."""
    if named_path(text).suffix.lower() not in (".parquet", ".csv"):
        raise ConfigError(
            f"--output={text} is neither .parquet nor .csv",
            remedy="name the file as one of them",
        )
    return new_file(text)


def table_output(parser: argparse.ArgumentParser) -> None:
    """`--output` of a command that writes a table of predictions."""
    meaning = "a .parquet or .csv to write"
    path(parser, "--output", "FILE", meaning, type=new_table, required=True)


def smoothing(
    parser: argparse.ArgumentParser, on: str, *, default: str, default_meaning: str
) -> None:
    """Window, kernel, unit and scale of a smoothing."""
    parser.add_argument(
        "--window",
        default=default,
        metavar="S",
        help="length of the box or standard deviation of the Gaussian, in the unit below: one "
        f"number, or va:30,au:30,expr:60; 0: no smoothing (default: {default_meaning})",
    )
    kernel(parser, on)


def kernel(parser: argparse.ArgumentParser, on: str) -> None:
    """Kernel and unit of a smoothing, and with the flag `on` its scale."""
    parser.add_argument(
        "--kernel", choices=("box", "gaussian"), default="box", help="weights (default: box)"
    )
    parser.add_argument(
        "--unit",
        choices=("frames", "samples"),
        default="frames",
        help="frames: numbers of video frames, predicted or not (default); samples: predictions, "
        "however far apart",
    )
    parser.add_argument(
        on,
        dest="smoothed",
        choices=("logits", "probabilities", "values"),
        default="logits",
        help="smooth logits (default, as the paper; values is the same), or probabilities; valence "
        "and arousal are smoothed as they are",
    )


def smoothing_asked(options: argparse.Namespace) -> "Smoothing":
    """What the flags of `smoothing` say; ConfigError for a bad window."""
    from mtl_face.evaluation.smoothing import Smoothing

    how = {"kernel": options.kernel, "unit": options.unit, "on": options.smoothed}
    try:
        return Smoothing(**how, windows=windows_by_task(options.window))
    except ValueError as error:
        raise ConfigError(
            f"--window={options.window} is no window: {error}",
            remedy="write --window=30 for all tasks, or --window=va:30,au:30,expr:60",
        ) from error


def windows_by_task(text: str) -> dict[str, float]:
    """The windows in `30` or `va:30,au:30,expr:60`, by task; ValueError for another text."""
    windows: dict[str, float] = {}
    for part in text.split(","):
        name, colon, number = part.strip().rpartition(":")
        names = TASKS if not colon and "," not in text else (name,)
        if windows.keys() & names or not set(names) <= set(TASKS):
            raise ValueError(f"{part!r} names no task or repeats one")
        windows |= dict.fromkeys(names, float(number))
    return windows


def challenge(parser: argparse.ArgumentParser) -> None:
    """The test list and the edition of a challenge."""
    path(
        parser,
        "--test_list",
        "FILE",
        "the challenge's list of test images, or lines of video,frames",
        required=True,
    )
    parser.add_argument(
        "--edition",
        required=True,
        metavar="NAME",
        help="abaw3_mtl, abaw4_mtl, abaw7_mtl, abaw11_mtl, or abaw3, 5, 6, 8, 10 with _va, _expr "
        "or _au",
    )


def model(
    parser: argparse.ArgumentParser,
    *,
    exports: bool = True,
    required: bool = False,
    default: Path | None = None,
) -> None:
    """`--model`, and its older spellings `--workdir` and `--params`.

    Without `exports` it names a run, and the spelling `--params` is left out. A second one is an
    error, whatever its spelling.
    """
    named: list[Path] = []

    def only_one(text: str) -> Path:
        named.append(named_path(text))
        if len(named) > 1:
            raise ConfigError(
                f"{named[1]} is a second model, besides {named[0]}",
                remedy="give one --model=RUN or --model=EXPORT",
            )
        return named[0]

    parser.add_argument(
        *("--model", "--workdir", "--params")[: 3 if exports else 2],
        dest="model",
        type=only_one,
        required=required,
        default=default,
        metavar="RUN" + "|EXPORT" * exports + "|NAME" * (default is not None),
        help="folder of a trained run"
        + (", or what `export` wrote" if exports else "")
        + (f", or the name of a bundled model (default: {default})" if default else "")
        + "; with its own settings, changed by --config.NAME=VALUE, or with those of --config",
    )


def with_calibration(config: Config, calibration: Path | None) -> Config:
    """The settings with `evaluation.calibration` as the flag `--calibration` says."""
    if calibration is None:
        return config
    evaluation = dataclasses.replace(config.evaluation, calibration=str(calibration))
    return dataclasses.replace(config, evaluation=evaluation)
