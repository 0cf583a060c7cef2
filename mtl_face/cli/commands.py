"""The commands of `run.py` and their flags: a table that the command line is built from."""

import argparse
import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

from mtl_face.cli import data_flags, running_flags, scoring_flags
from mtl_face.planner import UNREAD


@dataclasses.dataclass(frozen=True)
class Command:
    """A command, as the command line shows it.

    Attributes:
        meaning: one line of help.
        add_arguments: adds the command's own flags to its parser.
        config: whether the command takes `--config` and its dotted changes.
        own_settings: reads the settings, and says from where, if the flags name a file that holds
            some and no `--config` is given; None if they don't.
        presets: changes made to the settings before the user's.
    """

    meaning: str
    add_arguments: Callable[[argparse.ArgumentParser], None]
    config: Literal["required", "optional", "none"] = "required"
    own_settings: Callable[[argparse.Namespace], tuple[dict[str, Any], Path] | None] | None = None
    presets: tuple[str, ...] = ()


COMMANDS: dict[str, Command] = {
    "train": Command(
        "train, evaluate the best checkpoint and write a report; goes on where it stopped",
        running_flags.train,
    ),
    "plan": Command(
        "compile the train step for TPUs or for this machine, without data or weights, and tell "
        "its memory, arithmetic, traffic and shortest time",
        running_flags.plan,
        presets=(f"data.shards={UNREAD}", "data.validate_each=false"),
    ),
    "replay": Command(
        "take a bad step of a run again, and tell where its first bad number appears",
        running_flags.replay,
    ),
    "evaluate": Command(
        "evaluate a trained run again (metrics.json, predictions, report.html), or score a file "
        "of predictions",
        scoring_flags.evaluate,
        config="optional",
        own_settings=scoring_flags.settings_of_export,
    ),
    "compare": Command(
        "whether two runs or files of predictions differ by more than luck",
        scoring_flags.compare,
        config="none",
    ),
    "weights": Command(
        "tell what a file of initial weights is, and the settings that it needs",
        data_flags.weights,
        config="none",
    ),
    "export": Command(
        "write the network's parameters alone, for use elsewhere", running_flags.export
    ),
    "prepare": Command(
        "make the embedded data set, check or audit a real one, or cut faces out of videos",
        data_flags.prepare,
        config="optional",
    ),
    "smooth": Command(
        "smooth a file of predictions over time, video by video",
        scoring_flags.smooth,
        config="none",
    ),
    "ensemble": Command(
        "average the predictions of several models, and keep how far they differ",
        scoring_flags.ensemble,
        config="optional",
    ),
    "calibrate": Command(
        "fit temperatures, thresholds, biases and smoothing on validation predictions, "
        "cross-fitted by video",
        scoring_flags.calibrate,
        config="optional",
    ),
    "predict": Command(
        "predict a list of images without labels, as a challenge's test set",
        data_flags.predict,
        config="optional",
        own_settings=data_flags.settings_of_weights,
    ),
    "submit": Command(
        "write a challenge submission from a file of predictions, and validate it",
        data_flags.submit,
        config="none",
    ),
    "validate": Command(
        "check a finished submission against the test list: every deviation, by line",
        data_flags.validate,
        config="none",
    ),
}
