"""Where a plan gets a compiled step from: its cache, this process, or a TPU's or GPU's compiler.

The TPU's compiler is a library of its own, `libtpu`, and is used without a TPU. The GPU's is JAX's
plugin for CUDA, with NVIDIA's assembler and its library of device functions beside it, and is used
without a GPU, driver, cuDNN or cuBLAS. Each belongs in a folder of its own: where it lies beside
JAX, JAX takes the machine for one that has a TPU or a GPU. Light: no JAX before it is needed.
"""

import ast
import dataclasses
import functools
import gzip
import hashlib
import importlib.metadata
import importlib.util
import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from mtl_face import config as config_lib
from mtl_face import files
from mtl_face.errors import ConfigError, UserError, WorkdirError
from mtl_face.planner import LOCAL, Target, chips

FOLDER = "MTL_FACE_LIBTPU"
"""Environment variable: folder of libtpu, or a virtual environment that has it."""

GPU_FOLDER = "MTL_FACE_CUDA_PLUGIN"
"""Environment variable: folder of the plugin for CUDA, or a virtual environment that has it."""

_PLUGIN = "jax_plugins/xla_cuda13/xla_cuda_plugin.so"
_ASSEMBLER = "nvidia/cu13/bin/ptxas"
_NO_TRITON = "--xla_gpu_enable_triton_gemm=false"
_ROOT = Path(__file__).parents[2]
_COMPILE_STEP = "mtl_face.planner.compile_step"


class CompilerError(UserError):
    """The compiler is absent, or failed."""


@dataclasses.dataclass(frozen=True)
class Program:
    """A compiled step.

    Attributes:
        answer: the compiler's account, see `compile_step.compile_step`.
        hlo_file: text of the program, compressed; without content if it does not fit into memory.
        cached: whether it was compiled before.
    """

    answer: dict[str, Any]
    hlo_file: Path
    cached: bool

    def text(self) -> str:
        """The content of `hlo_file`."""
        return gzip.decompress(self.hlo_file.read_bytes()).decode()


def compiled(config: config_lib.Config, target: Target, *, say: Callable[[str], None]) -> Program:
    """A step, compiled now or before; it is kept in the user's cache folder.

    Raises:
        CompilerError: the chip's compiler is absent or failed, or nothing can be kept.
        ConfigError: batch or mesh do not fit the devices.
    """
    library = find_compiler(target.topology)
    name = cache_key(config, target, library)
    folder = files.cache_folder() / "plans"
    answer_file, hlo_file = folder / f"{name}.json", folder / f"{name}.hlo.gz"
    if answer_file.exists():
        answer = json.loads(answer_file.read_text())
        if hlo_file.exists() or not answer["fits"]:
            return Program(answer, hlo_file, cached=True)
    try:
        with files.replacing(hlo_file) as unfinished:
            batch = f"{target.batch_size} {example(config)}s"
            say(f"compiling a step of {batch} for {target.topology} ...")
            if library is None:
                from mtl_face.planner import compile_step

                answer = compile_step.compile_step(config, target, unfinished)
            else:
                answer = _compile_elsewhere(config, target, unfinished, library)
        files.write_json(answer_file, answer)
    except WorkdirError as error:
        raise CompilerError(
            f"{error.problem}; compiled steps cannot be kept there",
            path=error.path,
            remedy="free some space, correct the permissions, or let XDG_CACHE_HOME name another "
            "folder",
        ) from error
    return Program(answer, hlo_file, cached=False)


def example(config: config_lib.Config) -> str:
    """What batches are counted in: `image`, or `window` of a network over time."""
    return "window" if config.is_over_time else "image"


def cache_key(config: config_lib.Config, target: Target, library: Path | None) -> str:
    """A name for all that a compiled step depends on; `library` is the chip's compiler."""
    parts: dict[str, Any] = {
        "settings": config_lib.of_step(config),
        "target": dataclasses.asdict(target),
        "sources": {
            str(path.relative_to(_ROOT)): hashlib.sha256(path.read_bytes()).hexdigest()
            for path in step_sources()
        },
        "versions": {
            name: importlib.metadata.version(name) for name in ("jax", "jaxlib", "flax", "optax")
        },
        "flags": {
            name: value
            for name, value in os.environ.items()
            if name in ("XLA_FLAGS", "LIBTPU_INIT_ARGS")
            or (name.startswith("JAX_") and "CACHE" not in name)
        },
    }
    if library is None:
        import jax

        device = jax.devices()[0]
        parts["devices"] = [device.platform, device.device_kind, jax.device_count()]
    else:
        parts["compiler"] = [str(library), library.stat().st_size]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:24]


def step_sources() -> list[Path]:
    """The files that a step can depend on: `compile_step`, and what of this program it imports."""
    found: set[Path] = set()
    waiting = [_COMPILE_STEP]
    while waiting:
        name = waiting.pop()
        place = _ROOT.joinpath(*name.split("."))
        # The package's own `__init__` holds the Python API, which would lead to every module.
        for path in (place.with_suffix(".py"), place / "__init__.py"):
            if name == "mtl_face" or path in found or not path.is_file():
                continue
            found.add(path)
            waiting += [name.rpartition(".")[0], *_imported(path.read_bytes())]
    return sorted(found)


@functools.cache
def _imported(source: bytes) -> tuple[str, ...]:
    """Names of what a module imports; `from a import b` gives a and a.b."""
    names: list[str] = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module is not None:
            names += [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
    return tuple(names)


def find_compiler(topology: str) -> Path | None:
    """The compiler for a topology, None for `local`; CompilerError if it is absent."""
    if topology == LOCAL:
        return None
    return find_library() if chips.gpu_topology(topology) is None else find_plugin()


def find_library(environment: Mapping[str, str] = os.environ) -> Path:
    """The TPU's compiler: where a variable says, in the user's cache folder, or beside JAX.

    CompilerError if it is nowhere; the remedy is the command that gets it.
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


def find_plugin(environment: Mapping[str, str] = os.environ) -> Path:
    """The GPU's compiler: where a variable says, in the user's cache folder, or beside JAX.

    Raises:
        CompilerError: it is nowhere, is incomplete, or belongs to another jaxlib; the remedy is the
            command that gets it.
    """
    version = importlib.metadata.version("jaxlib")
    named = environment.get(GPU_FOLDER)
    folder = Path(named).expanduser() if named else files.cache_folder() / "cuda_plugin"
    places = [folder, *sorted(folder.glob("lib/python*/site-packages"))]
    if not named:
        places += [Path(place) for place in sys.path if place]
    problem = "JAX's plugin for CUDA, which compiles for GPUs, is not here"
    for place in places:
        if not (place / _PLUGIN).is_file():
            continue
        found = {path.stem.partition("-")[2] for path in place.glob("jax_cuda13_pjrt-*.dist-info")}
        if found and version not in found:
            problem = f"JAX's plugin for CUDA is of version {', '.join(found)}, jaxlib of {version}"
        elif not (place / _ASSEMBLER).is_file():
            problem = "NVIDIA's assembler, ptxas, is not beside JAX's plugin for CUDA"
        else:
            return (place / _PLUGIN).absolute()
    raise CompilerError(
        problem + (f" ({GPU_FOLDER} names the folder)" * bool(named)),
        path=folder,
        remedy=f"{sys.executable} -m pip install --no-deps --target={folder} "
        f"jax-cuda13-pjrt=={version} nvidia-cuda-nvcc nvidia-nvvm\n     (0.7 GB; needs no GPU), or "
        "plan for --topology=local",
    )


def _wanted_version() -> str:
    """The requirement that the installed JAX itself names."""
    for requirement in importlib.metadata.requires("jax") or ():
        if requirement.startswith("libtpu"):
            return requirement.partition(";")[0].strip()
    return "libtpu"


def _compile_elsewhere(
    config: config_lib.Config, target: Target, hlo_file: Path, library: Path
) -> dict[str, Any]:
    """Compiles in a process of its own: with this library loaded some of JAX needs its chip."""
    for_gpus = chips.gpu_topology(target.topology) is not None
    own = _for_gpus(library) if for_gpus else _for_tpus(library)
    python_path = [str(_ROOT), own.pop("PYTHONPATH", ""), os.environ.get("PYTHONPATH", "")]
    environment = os.environ | {
        "JAX_PLATFORMS": "cpu",
        "PYTHONPATH": os.pathsep.join(filter(None, python_path)),
        **own,
    }
    request = {
        "config": config_lib.to_dict(config),
        "target": dataclasses.asdict(target),
        "hlo_file": str(hlo_file),
    }
    result = subprocess.run(
        [sys.executable, "-m", _COMPILE_STEP],
        input=json.dumps(request),
        capture_output=True,
        text=True,
        env=environment,
        check=False,
    )
    if result.returncode:
        raise CompilerError(
            f"the {'GPU' if for_gpus else 'TPU'}'s compiler failed with status "
            f"{result.returncode}:\n" + "\n".join(result.stderr.strip().splitlines()[-5:]),
            path=library,
            remedy=f"check that {'all of it' if for_gpus else _wanted_version()} is installed "
            "there, and free memory (the paper's network takes 5 GB)",
        )
    answer = json.loads(result.stdout)
    if "error" in answer:
        raise ConfigError(answer["error"], remedy=answer["remedy"])
    return answer


def _for_tpus(library: Path) -> dict[str, str]:
    return {
        "TPU_LIBRARY_PATH": str(library),
        # There is no TPU to be asked what it is.
        "TPU_SKIP_MDS_QUERY": "1",
        "TPU_ACCELERATOR_TYPE": "v5litepod-4",
        "TPU_WORKER_HOSTNAMES": "localhost",
        "TPU_WORKER_ID": "0",
        "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
    }


def _for_gpus(library: Path) -> dict[str, str]:
    flags = os.environ.get("XLA_FLAGS", "")
    if _NO_TRITON.partition("=")[0] not in flags:
        # Without a GPU no tile sizes can be timed, and some products have none by default.
        flags = f"{flags} {_NO_TRITON}".strip()
    return {"PYTHONPATH": str(library.parents[2]), "XLA_FLAGS": flags}
