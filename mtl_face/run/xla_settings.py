"""What JAX and its compiler are told before they start, through the environment. Light: no JAX.

Flags are named sets, so that a run can say which it had; see docs/launch.md.
"""

import hashlib
import os
import platform
import sys
from collections.abc import MutableMapping
from pathlib import Path

from mtl_face import files

_PRESETS: dict[str, dict[str, tuple[str, ...]]] = {
    "none": {},
    # Gradients are exchanged while the rest of the backward pass runs.
    "gpu": {
        "XLA_FLAGS": (
            "--xla_gpu_enable_latency_hiding_scheduler=true",
            "--xla_gpu_triton_gemm_any=true",
            "--xla_gpu_all_reduce_combine_threshold_bytes=33554432",
        )
    },
    # The same bits in every run: no atomic additions, no kernels chosen by their timing.
    "gpu_deterministic": {
        "XLA_FLAGS": ("--xla_gpu_deterministic_ops=true", "--xla_gpu_autotune_level=0")
    },
    "tpu": {
        "LIBTPU_INIT_ARGS": (
            "--xla_tpu_enable_data_parallel_all_reduce_opt=true",
            "--xla_tpu_data_parallel_opt_different_sized_ops=true",
            "--xla_tpu_enable_async_collective_fusion=true",
            "--xla_tpu_overlap_compute_collective_tc=true",
        )
    },
}

_CACHE = "JAX_COMPILATION_CACHE_DIR"


def apply(
    *,
    preset: str,
    compilation_cache: str,
    workdir: Path | None = None,
    environment: MutableMapping[str, str] = os.environ,
) -> None:
    """Sets the environment for JAX; what the user set already wins.

    Has no effect on a process that has imported JAX, which reads some of it then.

    Args:
        preset: of compiler flags, a key of the table above.
        compilation_cache: `workdir` keeps compiled programs in the workdir, `user` in the user's
            cache folder, both in a folder for each kind of machine; `off` keeps none.
        workdir: of the run; without one, `workdir` means `user`.
        environment: what is changed.
    """
    if "jax" in sys.modules and environment is os.environ:
        return
    for variable, flags in _PRESETS[preset].items():
        environment[variable] = _merged(flags, environment.get(variable, ""))
    if compilation_cache == "off":
        # An empty value would not do: JAX reads it as a folder of that name.
        environment["JAX_ENABLE_COMPILATION_CACHE"] = "false"
    elif not environment.get(_CACHE):
        if compilation_cache == "user" or workdir is None:
            workdir = files.cache_folder(environment)
        environment[_CACHE] = str(workdir.expanduser().absolute() / "compiled" / machine())


def _merged(flags: tuple[str, ...], own: str) -> str:
    """The preset's flags but for those that the user gives, then the user's."""
    named = {word.partition("=")[0] for word in own.split()}
    return " ".join([flag for flag in flags if flag.partition("=")[0] not in named] + own.split())


def machine(cpuinfo: Path = Path("/proc/cpuinfo")) -> str:
    """A name for this kind of processor.

    A program compiled for a CPU uses all that this CPU can do; loaded on one that can do less, as
    through a home folder that two machines share, it may die of an illegal instruction.
    """
    features = platform.processor()
    try:
        for line in cpuinfo.read_text().splitlines():
            if line.startswith(("flags", "Features")):
                features = " ".join(sorted(line.partition(":")[2].split()))
                break
    except OSError:
        pass  # no Linux: the name of the processor has to do
    return f"{platform.machine()}-{hashlib.sha256(features.encode()).hexdigest()[:12]}"
