"""Where `run.py plan` gets a compiled step from: its cache, this process, or a TPU's compiler.

The TPU's compiler is a library of its own, `libtpu`, and is used without a TPU. It belongs in a
folder of its own: where it lies beside JAX, JAX takes the machine for one that has a TPU. Light: no
JAX before it is needed.
"""

import dataclasses
import gzip
import hashlib
import importlib.metadata
import importlib.util
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from mtl_face import config as config_lib
from mtl_face import files
from mtl_face.errors import ConfigError, UserError
from mtl_face.planner.chips import LOCAL

FOLDER = "MTL_FACE_LIBTPU"
"""Environment variable: folder of libtpu, or a virtual environment that has it."""

_ROOT = Path(__file__).parents[2]

_NOT_OF_THE_STEP = {
    "data": ("image_size",),  # the only one that is
    "training": (
        "log_every_steps",
        "evaluate_every_epochs",
        "checkpoint_every_steps",
        "keep_checkpoints",
        "on_save_failure",
        "on_bad_step",
        "input_timeout_s",
        "compilation_cache",
        "xla_preset",  # what it stands for is in the environment
    ),
    "backbone": ("init_from", "init_channels"),
}

_PURE = ("plan.py", "hlo.py", "chips.py", "flops.py")
"""Modules of `mtl_face.training` that read what was compiled and change nothing in it."""


class CompilerError(UserError):
    """The compiler is absent, or failed."""


@dataclasses.dataclass(frozen=True)
class Compiled:
    """A compiled step.

    Attributes:
        answer: the compiler's account, see `compile.compile_step`.
        hlo_file: text of the program, compressed; absent if it does not fit into memory.
        cached: whether it was compiled before.
    """

    answer: dict[str, Any]
    hlo_file: Path
    cached: bool

    def text(self) -> str:
        """Text of the program."""
        return gzip.decompress(self.hlo_file.read_bytes()).decode()


def compiled(
    config: config_lib.Config,
    *,
    topology: str,
    batch_size: int,
    effort: str,
    say: Callable[[str], None],
    folder: Path | None = None,
) -> Compiled:
    """A step, compiled now or before.

    Args:
        config: the settings.
        topology: `local`, or a checked name of a TPU topology.
        batch_size: examples over all devices.
        effort: `full` or `low`.
        say: prints a line.
        folder: of the cache; None: in the user's cache folder.

    Raises:
        CompilerError: the TPU's compiler is absent or failed.
        ConfigError: batch or mesh do not fit the devices.
    """
    folder = folder or files.cache_folder() / "plans"
    library = None if topology == LOCAL else find_library()
    key = cache_key(
        config, topology=topology, batch_size=batch_size, effort=effort, library=library
    )
    answer_file, hlo_file = folder / f"{key}.json", folder / f"{key}.hlo.gz"
    if answer_file.exists() and (hlo_file.exists() or not _fits(answer_file)):
        return Compiled(json.loads(answer_file.read_text()), hlo_file, cached=True)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise CompilerError(
            f"compiled steps cannot be kept: {error.strerror}",
            path=folder,
            remedy="free some space or mend the permissions, or let XDG_CACHE_HOME name another "
            "folder",
        ) from error
    say(f"compiling a step of {batch_size} images for {topology} ...")
    with tempfile.TemporaryDirectory(dir=folder) as work:
        unfinished = Path(work) / "program.hlo.gz"
        if topology == LOCAL:
            from mtl_face.planner import compile

            answer = compile.compile_step(
                config,
                topology=topology,
                batch_size=batch_size,
                effort=effort,
                hlo_file=unfinished,
            )
        else:
            answer = _ask(
                {
                    "config": config_lib.to_dict(config),
                    "topology": topology,
                    "batch_size": batch_size,
                    "effort": effort,
                    "hlo_file": str(unfinished),
                },
                library,
            )
        if unfinished.exists():
            unfinished.replace(hlo_file)
        finished = Path(work) / "answer.json"
        finished.write_text(json.dumps(answer))
        finished.replace(answer_file)  # at last: what it stands for is complete
    return Compiled(answer, hlo_file, cached=False)


def _fits(answer_file: Path) -> bool:
    return bool(json.loads(answer_file.read_text())["fits"])


def cache_key(
    config: config_lib.Config,
    *,
    topology: str,
    batch_size: int,
    effort: str,
    library: Path | None,
) -> str:
    """A name for all that a compiled step depends on."""
    parts: dict[str, Any] = {
        "settings": _settings_of_step(config_lib.to_dict(config)),
        "topology": topology,
        "batch_size": batch_size,
        "effort": effort,
        "sources": _sources(),
        "versions": {
            name: importlib.metadata.version(name) for name in ("jax", "jaxlib", "flax", "optax")
        },
        "flags": {name: os.environ.get(name) for name in ("XLA_FLAGS", "LIBTPU_INIT_ARGS")},
    }
    if library is not None:
        parts["libtpu"] = [str(library), library.stat().st_size]
    if topology == LOCAL:
        import jax

        device = jax.devices()[0]
        parts["devices"] = [device.platform, device.device_kind, jax.device_count()]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:24]


def find_library(environment: Mapping[str, str] = os.environ) -> Path:
    """The TPU's compiler: where a variable says, in the user's cache folder, or beside JAX.

    Raises:
        CompilerError: it is nowhere; the remedy is the command that gets it.
    """
    named = environment.get(FOLDER)
    folder = Path(named).expanduser() if named else files.cache_folder() / "libtpu"
    inside = ("libtpu/libtpu.so", "lib/python*/site-packages/libtpu/libtpu.so")
    found = [path for pattern in inside for path in sorted(folder.glob(pattern))]
    if found:
        return found[-1].absolute()
    if not named:
        spec = importlib.util.find_spec("libtpu")
        if spec is not None and spec.origin:
            return Path(spec.origin).with_name("libtpu.so")
    raise CompilerError(
        "the TPU's compiler, libtpu, is not here" + (f" ({FOLDER} names the folder)" * bool(named)),
        path=folder,
        remedy=f"{sys.executable} -m pip install --no-deps --target={folder} "
        f'"{_wanted_version()}"\n     (0.7 GB; needs no TPU), or plan for --topology=local',
    )


def _wanted_version() -> str:
    """The version that the installed JAX goes with, by its own word."""
    for requirement in importlib.metadata.requires("jax") or ():
        if requirement.startswith("libtpu"):
            return requirement.partition(";")[0].strip()
    return "libtpu"


def _ask(request: dict[str, Any], library: Path | None) -> dict[str, Any]:
    environment = os.environ | {
        "JAX_PLATFORMS": "cpu",
        "TPU_LIBRARY_PATH": str(library),
        # There is no TPU to be asked what it is.
        "TPU_SKIP_MDS_QUERY": "1",
        "TPU_ACCELERATOR_TYPE": "v5litepod-4",
        "TPU_WORKER_HOSTNAMES": "localhost",
        "TPU_WORKER_ID": "0",
        "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
        "PYTHONPATH": os.pathsep.join(
            [str(_ROOT), *filter(None, [os.environ.get("PYTHONPATH", "")])]
        ),
    }
    result = subprocess.run(
        [sys.executable, "-m", "mtl_face.planner.compile"],
        input=json.dumps(request),
        capture_output=True,
        text=True,
        env=environment,
        check=False,
    )
    if result.returncode:
        raise CompilerError(
            f"the TPU's compiler failed with status {result.returncode}:\n"
            + "\n".join(result.stderr.strip().splitlines()[-5:]),
            path=library,
            remedy=f"check that {_wanted_version()} is installed there, and free memory (the "
            "paper's network takes 5 GB)",
        )
    answer = json.loads(result.stdout)
    if "error" in answer:
        raise ConfigError(answer["error"], remedy=answer["remedy"])
    return answer


def _settings_of_step(values: dict[str, Any]) -> dict[str, Any]:
    """The settings without those that no compiled step depends on."""
    left = {
        name: value
        for name, value in values.items()
        if name not in ("name", "seed", "data", "evaluation", "provenance")
    }
    left["data"] = {name: values["data"][name] for name in _NOT_OF_THE_STEP["data"]}
    left["training"] = {
        name: value
        for name, value in values["training"].items()
        if name not in _NOT_OF_THE_STEP["training"]
    }
    backbone = {
        name: value
        for name, value in values["model"]["backbone"].items()
        if name not in _NOT_OF_THE_STEP["backbone"]
    }
    left["model"] = {**values["model"], "backbone": backbone}
    left["optimizer"] = {
        name: value for name, value in values["optimizer"].items() if name != "batch_size"
    }
    return left


def _sources() -> str:
    """Digest of the code that a step is made of."""
    digest = hashlib.sha256()
    package = _ROOT / "mtl_face"
    files = [
        *sorted((package / "model").glob("*.py")),
        *sorted((package / "objective").glob("*.py")),
        *(path for path in sorted((package / "training").glob("*.py")) if path.name not in _PURE),
        package / "planner" / "compile.py",
    ]
    for path in files:
        digest.update(path.name.encode() + path.read_bytes())
    return digest.hexdigest()
