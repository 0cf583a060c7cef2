"""What is set for JAX, its compiler and the C library before JAX starts. Light: no JAX.

Compiler flags are named sets, so that a run can say which it had; see docs/launch.md.
"""

import ctypes
import hashlib
import os
import platform
import sys
from collections.abc import MutableMapping
from pathlib import Path

from mtl_face import files

FLAG_PRESETS: dict[str, dict[str, tuple[str, ...]]] = {
    "none": {},
    # On a CPU, products of wide matrices by another library than XLA's own choice.
    "onednn": {
        "XLA_FLAGS": (
            "--xla_cpu_use_onednn=true",
            "--xla_cpu_experimental_onednn_fusion_type=individual_dot",
        )
    },
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
"""Flags of `training.xla_preset` by environment variable."""

_CACHE = "JAX_COMPILATION_CACHE_DIR"
_CACHES_OF_XLA = "JAX_PERSISTENT_CACHE_ENABLE_XLA_CACHES"
_LEAST_COMPILING = "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"

_TRIM_THRESHOLD, _TOP_PAD, _MMAP_MAX = -1, -2, -4  # of glibc's malloc.h
_TUNABLES = "GLIBC_TUNABLES"
_RESTARTED = "MTL_FACE_RESTARTED"
_GRANTED = Path("/sys/kernel/mm/transparent_hugepage/enabled")
_ACCELERATORS = ("nvidiactl", "kfd", "accel*", "vfio/[0-9]*")
"""Device files of NVIDIA and AMD GPUs and of TPUs, below /dev."""


def prepare(
    *,
    preset: str,
    compilation_cache: str,
    workdir: Path | None = None,
    environment: MutableMapping[str, str] = os.environ,
) -> None:
    """Sets the environment for JAX; what the user set already wins.

    Has no effect on a process that has imported JAX, which reads some of it then. `preset` is a key
    of `FLAG_PRESETS`. Compiled programs are kept in the workdir (`compilation_cache="workdir"`), in
    the user's cache folder (`user`, or without a workdir), both in a folder for each kind of
    machine, or nowhere (`off`).
    """
    if "jax" in sys.modules and environment is os.environ:
        return
    for variable, flags in FLAG_PRESETS[preset].items():
        own = environment.get(variable, "").split()
        named = {word.partition("=")[0] for word in own}
        kept = [flag for flag in flags if flag.partition("=")[0] not in named]
        environment[variable] = " ".join(kept + own)
    if compilation_cache == "off":
        # An empty value would not do: JAX reads it as a folder of that name.
        environment["JAX_ENABLE_COMPILATION_CACHE"] = "false"
        return
    # XLA's own caches lie in the folder too, and JAX hashes their path with each program: none
    # would be found again after the workdir has moved.
    environment.setdefault(_CACHES_OF_XLA, "none")
    # The networks that find faces compile in about a second each, JAX's own limit.
    environment.setdefault(_LEAST_COMPILING, "0.1")
    if not environment.get(_CACHE):
        if compilation_cache == "user" or workdir is None:
            workdir = files.cache_folder(environment)
        environment[_CACHE] = str(workdir.expanduser().absolute() / "compiled" / machine())


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


def has_accelerator(devices: Path = Path("/dev")) -> bool:
    """Whether this machine has a GPU or a TPU, without starting JAX."""
    return any(next(devices.glob(pattern), None) is not None for pattern in _ACCELERATORS)


def restart_with_huge_pages(granted: Path = _GRANTED) -> None:
    """Starts this program once more from its beginning, so that glibc asks for huge pages.

    For training on a CPU, whose step gets some 100 MB to GBs of memory anew each time: pages of
    2 MB in place of 4 KB are fewer to be faulted in and to be looked up. glibc reads this setting
    (`glibc.malloc.hugetlb` of GLIBC_TUNABLES) at the start of a process alone, and the user's own
    wins. Returns where nothing would be gained: without glibc, where Linux gives huge pages never
    or unasked (`granted`), to a debugger, and to a program that is no file or was not started with
    the words of `sys.argv`.
    """
    tunables = os.environ.get(_TUNABLES, "")
    if platform.libc_ver()[0] != "glibc" or "glibc.malloc.hugetlb" in tunables:
        return
    # of a Python with privileges, glibc takes the tunables away: it would start for ever
    if _RESTARTED in os.environ:
        return
    try:
        asked = "[madvise]" in granted.read_text()
    except OSError:
        return
    words = sys.argv[1:]
    # else it was called by a program that would be started in its place
    own = sys.orig_argv[len(sys.orig_argv) - len(words) :] == words
    file = getattr(sys.modules["__main__"], "__file__", None) or ""  # "<stdin>" of a pipe
    ready = own and Path(file).is_file() and sys.executable and sys.gettrace() is None
    if not (asked and ready):
        return
    os.environ[_TUNABLES] = ":".join([*filter(None, [tunables]), "glibc.malloc.hugetlb=1"])
    os.environ[_RESTARTED] = "1"
    os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])


def keep_freed_memory() -> bool:
    """Lets glibc serve all sizes from its heaps, and never shrink them.

    For a CPU: XLA allocates buffers anew each time, and glibc hands large ones back to the system
    at once, to be faulted in again page by page. Each thread keeps a heap of its own: the library
    that multiplies the matrices of convolutions allocates a workspace 2,100 times in a step of the
    embedded default, and with one heap for all its threads waited for one another for a third of
    the step. The process keeps memory up to its own peak.

    Has an effect only before JAX has started its threads. Returns false where the C library is not
    glibc.
    """
    if not sys.platform.startswith("linux"):
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return False
    settings = ((_MMAP_MAX, 0), (_TRIM_THRESHOLD, -1), (_TOP_PAD, 2**29))  # -1: never
    return all(mallopt(name, value) == 1 for name, value in settings)
