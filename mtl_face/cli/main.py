"""Parses the command line and picks a command. Imports neither JAX nor TensorFlow."""

import argparse
import contextlib
import difflib
import functools
import importlib
import importlib.util
import os
import re
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from mtl_face import config as config_lib
from mtl_face.cli import flags
from mtl_face.errors import ConfigError, UserError, escaped
from mtl_face.run import environment
from mtl_face.run import workdir as workdirs

COMMANDS = {
    "train": "required",
    "evaluate": "optional",
    "predict": "optional",
    "summarise": "none",
    "serve": "optional",
    "export": "optional",
    "compare": "none",
    "smooth": "none",
    "ensemble": "optional",
    "calibrate": "optional",
    "submit": "none",
    "validate": "none",
    "prepare": "optional",
    "features": "optional",
    "weights": "none",
    "plan": "required",
    "replay": "optional",
    "settings": "optional",
}
"""Commands in the order of the help, modules of this package; whether each takes `--config`."""

_READ_NO_DATA = ("ensemble", "plan", "serve", "settings")
"""Commands whose settings need not say where the data set lies."""

_EPILOG = """\
Settings of an experiment: --config=NAME or FILE, and any of them changed by a dotted flag, as in
  --config.optimizer.batch_size=32 --config.data.root=/data/s-aff-wild2
All of them, with meaning and default: python run.py settings

The whole thing on the embedded default:
  python run.py train --config=rendered_faces --workdir=runs/rendered_faces
"""


def program() -> int:
    """`main` as a process of its own, which is started anew where its memory gains by that."""
    if sys.argv[1:2] == ["train"] and not environment.has_accelerator():
        environment.restart_with_huge_pages()
    return main()


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs a command; without arguments, that of this process.

    The exit status is 0, 2 for a user's mistake, or 128 + signal if stopped by one, or if whoever
    read the output (`head`, say) went away.
    """
    _open_closed_streams()
    # A file may have a name that the terminal's encoding lacks.
    sys.stdout.reconfigure(line_buffering=True, errors="backslashreplace")  # type: ignore[union-attr]
    with contextlib.ExitStack() as stack:
        stack.enter_context(contextlib.redirect_stdout(_Output(sys.stdout)))
        stack.enter_context(contextlib.redirect_stderr(_ToTheUser(sys.stderr)))
        return _run(sys.argv[1:] if arguments is None else arguments)


def _open_closed_streams() -> None:
    """Sends what a process that was started without its streams (`>&-`) prints to nowhere.

    Otherwise the next file that it opens takes their place, and what is printed is written there.
    """
    for name, number, mode in (("stdin", 0, "r"), ("stdout", 1, "w"), ("stderr", 2, "w")):
        try:
            os.fstat(number)
        except OSError:
            nowhere = os.open(os.devnull, os.O_RDWR)
            if nowhere != number:
                os.dup2(nowhere, number)
                os.close(nowhere)
        if getattr(sys, name) is None:
            setattr(sys, name, open(number, mode, encoding="utf-8", closefd=False))  # noqa: SIM115


def _run(arguments: Sequence[str]) -> int:
    overrides = [word.removeprefix("--config.") for word in arguments if _is_override(word)]
    try:
        for override in overrides:  # before the parser takes `--config.seed 3` for two arguments
            config_lib.split_override(override)
        words = [word for word in arguments if not _is_override(word)]
        parser = _parser()
        _check_flags(parser, words)
        options = parser.parse_args(words)
        _check_output(options)
        settings = _load_config(options, overrides)
        if settings is not None and getattr(options, "skip_bad_rows", False):
            settings = flags.with_bad_rows_skipped(settings)
        _quiet_libraries()
        if settings is not None:
            environment.prepare(
                preset=settings.training.xla_preset,
                compilation_cache=settings.training.compilation_cache,
                workdir=_workdir(options),
            )
        if not environment.has_accelerator():
            environment.keep_freed_memory()
        with _needing_all_packages(options.command):
            return _command(options.command).run(settings, options)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    except SystemExit:  # of the parser, which ignores that its help text cannot be written
        sys.stdout.flush()
        raise


@contextlib.contextmanager
def _needing_all_packages(command: str) -> Iterator[None]:
    """Names the package that is missing where only those of prediction were installed."""
    try:
        yield
    except ModuleNotFoundError as error:
        name = (error.name or "").partition(".")[0]
        if name in ("", "mtl_face", "data_pipeline") or importlib.util.find_spec(name):
            raise
        raise UserError(
            f"{command} needs {name}, which is not installed",
            remedy="python -m pip install mtl_face (in a clone: python -m pip install -e .) "
            "installs all that training and evaluation need",
        ) from error


def _is_installed() -> bool:
    """Whether the program was started by the script that its installation made."""
    return Path(sys.argv[0]).stem == "mtl-face"


class _ToTheUser:
    """A stream to the user, in whose texts names cannot act on the terminal.

    Settings that a text gives a value are written as flags. The program has the name of its
    installation's script, where that started it.
    """

    def __init__(self, stream: Any) -> None:
        self._stream = stream
        self._installed = _is_installed()

    def write(self, text: str) -> int:
        """Writes a text; a path that ends in run.py stays, and so does a bar's carriage return."""
        begin = "\r" if text.startswith("\r") else ""
        own = begin + escaped(text[len(begin) :])
        if "=" in own:
            own = _setting_with_value().sub(r"--config.\1", own)
        if self._installed:
            own = re.sub(r"(python\s+)?(?<![\w/])run\.py(?=\s+[a-z])", "mtl-face", own)
        return self._stream.write(own)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


class _Output:
    """Standard output that ends the command in one sentence where it cannot be written."""

    def __init__(self, stream: Any) -> None:
        self._stream = _ToTheUser(stream)

    def write(self, text: str) -> int:
        """Writes a text.

        Raises:
            UserError: the disk is full, say.
            SystemExit: nobody reads the pipe any more.
        """
        return self._or_end(lambda: self._stream.write(text))

    def flush(self) -> None:
        """Writes what waits; errors as for `write`."""
        self._or_end(self._stream.flush)

    def _or_end(self, action: Callable[[], Any]) -> Any:
        try:
            return action()
        except OSError as error:
            # what still waits to be written would fail once more at the end
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, self._stream.fileno())
            os.close(nowhere)
            if isinstance(error, BrokenPipeError):
                raise SystemExit(128 + signal.SIGPIPE) from None
            raise UserError(
                f"standard output cannot be written: {error.strerror}",
                remedy="send it elsewhere, or make room, and give the same command again: "
                "a training goes on from its newest checkpoint",
            ) from error

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


@functools.cache
def _setting_with_value() -> re.Pattern[str]:
    names = "|".join(re.escape(name) for name, _ in config_lib.fields() if "." in name)
    names = names.replace(rf"\.{config_lib.ANY_NAME}\.", r"\.[\w-]+\.")
    return re.compile(rf"(?<![\w./-])({names})(?==)")


def _is_override(word: str) -> bool:
    return word.startswith("--config.")


def _command(name: str) -> Any:
    """The module of a command; its docstring is the help text.

    `add_arguments(parser)` adds the flags; `run(config, options)` returns the exit status. A
    command with `--model` gets the settings of that model where no file was given.
    """
    return importlib.import_module(f"mtl_face.cli.commands.{name}")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="mtl-face" if _is_installed() else "run.py",
        description="Valence/arousal, action units and expressions from faces, with uncertainty.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    subparsers = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, config in COMMANDS.items():
        command = _command(name)
        text = (command.__doc__ or "").removeprefix(f"`{name}`: ").strip()
        subparser = subparsers.add_parser(
            name,
            help=text.partition("\n")[0].removesuffix("."),
            description=text[:1].upper() + text[1:],
            epilog=_EPILOG if config != "none" else None,
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
        )
        if config != "none":
            subparser.add_argument(
                "--config",
                required=config == "required",
                metavar="FILE|NAME",
                help="a config file, or the name of a shipped one: "
                + ", ".join(config_lib.shipped()),
            )
        command.add_arguments(subparser)
    return parser


def _check_flags(parser: argparse.ArgumentParser, words: list[str]) -> None:
    """Ends the program at an unknown command or flag, naming the nearest one."""
    commands: Any
    (commands,) = (part for part in parser._actions if isinstance(part.choices, dict))
    named = next((word for word in words if not word.startswith("-")), None)
    if named is None:
        return
    if named not in COMMANDS:
        if near := difflib.get_close_matches(named, COMMANDS, n=1):
            parser.error(f"there is no command {named}: did you mean {near[0]}?")
        return  # the parser lists them all
    command = commands.choices[named]
    known = command._option_string_actions
    for word in words:
        flag = word.partition("=")[0]
        if flag.startswith("--") and flag != "--" and flag not in known:
            near = difflib.get_close_matches(flag, known, n=1)
            hint = f": did you mean {near[0]}?" if near else ""
            command.error(f"there is no flag {flag}{hint}")


def _check_output(options: argparse.Namespace) -> None:
    """Refuses to write over what the command reads; ConfigError."""
    outputs = getattr(options, "output", None)
    for output in outputs if isinstance(outputs, list) else [outputs]:
        if output is None or not Path(output).expanduser().is_file():
            continue
        for name, value in vars(options).items():
            for path in value if isinstance(value, list) else [value]:
                if name == "output" or not isinstance(path, Path) or not path.expanduser().exists():
                    continue
                if path.expanduser().samefile(Path(output).expanduser()):
                    raise ConfigError(
                        f"--output={output} is the file that --{name} reads",
                        remedy="give another file as --output",
                    )


def _load_config(options: argparse.Namespace, overrides: list[str]) -> config_lib.Config | None:
    """The settings, or None if the command was given none."""
    file = getattr(options, "config", None)
    if file is not None:
        reads_data = options.command not in _READ_NO_DATA
        return config_lib.load(file, overrides, reads_data=reads_data)
    if getattr(options, "model", None) is not None:
        return workdirs.own_config(options.model, overrides)
    if overrides:
        raise ConfigError(
            f"--config.{overrides[0]} changes a setting, but no --config was given",
            remedy="add --config=FILE, or the name of a shipped one"
            if COMMANDS[options.command] == "optional"
            else f"leave it out: {options.command} takes no settings",
        )
    return None


def _workdir(options: argparse.Namespace) -> Path | None:
    """The run's folder that the flags name, if they name one."""
    model = getattr(options, "model", None)
    if model is not None and workdirs.is_run(model):
        return model
    return getattr(options, "workdir", None)


def _quiet_libraries() -> None:
    """TensorFlow and XLA print pages at start; a user's own settings win."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    # Told on some processors whatever the level; nothing that TensorFlow does here goes through it.
    os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "0")
    os.environ.setdefault("GRPC_VERBOSITY", "ERROR")
    os.environ.setdefault("MPLBACKEND", "Agg")
