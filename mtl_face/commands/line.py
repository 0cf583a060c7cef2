"""Parses the command line and picks a command. Imports neither JAX nor TensorFlow."""

import argparse
import importlib
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from mtl_face import config as config_lib
from mtl_face.commands import host_memory
from mtl_face.errors import UserError

_COMMANDS = {
    "train": "train, evaluate the best checkpoint and write a report; goes on where it stopped",
    "evaluate": "evaluate a trained run again: metrics.json, predictions, report.html",
    "export": "write the network's parameters alone, for use elsewhere",
    "prepare": "make the embedded data set, or check every row and image of a real one",
}

_EPILOG = """\
Settings of an experiment: --config=configs/NAME.py, and any of them changed by a dotted flag, as in
  --config.optimizer.batch_size=32 --config.data.root=/data/s-aff-wild2
All of them, with meaning and default: python run.py settings

The whole thing on the embedded default:
  python run.py train --config=configs/rendered_faces.py --workdir=runs/rendered_faces
"""


def main(arguments: Sequence[str]) -> int:
    """Runs a command.

    Args:
        arguments: the words after the program's name.

    Returns:
        Exit status: 0, 2 for a user's mistake, 128 + signal if stopped by one.
    """
    sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]
    overrides = [word.removeprefix("--config.") for word in arguments if _is_override(word)]
    try:
        for override in overrides:  # before the parser takes `--config.seed 3` for two arguments
            config_lib.split_override(override)
        options = _parser().parse_args([word for word in arguments if not _is_override(word)])
        if options.command == "settings":
            print(_settings_text())
            return 0
        settings = config_lib.load(options.config, overrides)
        _quiet_libraries()
        if not host_memory.has_accelerator():
            host_memory.keep_freed_memory()
        module = importlib.import_module(f"mtl_face.commands.{options.command}")
        return module.run(settings, options)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130


def _is_override(word: str) -> bool:
    return word.startswith("--config.")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="run.py",
        description="Valence/arousal, action units and expressions from faces, with uncertainty.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, meaning in _COMMANDS.items():
        command = commands.add_parser(
            name,
            help=meaning,
            description=meaning[0].upper() + meaning[1:] + ".",
            epilog=_EPILOG,
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
        )
        command.add_argument("--config", required=True, metavar="FILE", help="a file of configs/")
        if name != "prepare":
            command.add_argument(
                "--workdir", required=True, type=Path, metavar="DIR", help="folder of the run"
            )
        if name == "export":
            command.add_argument(
                "--output",
                type=Path,
                metavar="DIR",
                help="where the parameters go (default: WORKDIR/export)",
            )
        if name == "prepare":
            command.add_argument(
                "--num_videos",
                type=int,
                metavar="N",
                help="videos to render, as --config.data.rendered_faces.num_videos=N",
            )
    commands.add_parser("settings", help="list every setting with its default and meaning")
    return parser


def _settings_text() -> str:
    lines = []
    for name, field in config_lib.fields():
        limits = field.metadata["choices"]
        words = f" [{', '.join(limits)}]" if limits else ""
        lines.append(f"--config.{name}={field.default}{words}\n    {field.metadata['meaning']}")
    return "\n".join(lines)


def _quiet_libraries() -> None:
    """TensorFlow and XLA print pages at start; a user's own settings win."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    os.environ.setdefault("GRPC_VERBOSITY", "ERROR")
    os.environ.setdefault("MPLBACKEND", "Agg")
