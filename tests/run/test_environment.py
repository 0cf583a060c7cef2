"""What is set before JAX starts: flags that the compiler knows, the user's own, kept memory."""

import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest

from mtl_face import config as config_lib
from mtl_face.run import environment


def applied(preset="none", cache="user", workdir=None, **variables):
    environment.prepare(
        preset=preset, compilation_cache=cache, workdir=workdir, environment=variables
    )
    return variables


def test_presets_are_those_of_the_setting():
    fields = dict(config_lib.fields())
    assert fields["training.xla_preset"].metadata["choices"] == tuple(environment.FLAG_PRESETS)


@pytest.mark.parametrize("preset", environment.FLAG_PRESETS)
def test_the_users_own_flags_win(preset):
    for variable, flags in environment.FLAG_PRESETS[preset].items():
        assert applied(preset)[variable].split() == list(flags)
        name = flags[0].partition("=")[0]
        own = f"--xla_dump_to=/tmp/x {name}=other"
        assert applied(preset, **{variable: own})[variable].split() == [
            *flags[1:], "--xla_dump_to=/tmp/x", f"{name}=other"
        ]  # fmt: skip


def test_none_changes_no_flags():
    assert not {"XLA_FLAGS", "LIBTPU_INIT_ARGS"} & applied().keys()
    assert applied(XLA_FLAGS="--mine")["XLA_FLAGS"] == "--mine"


def test_the_compiler_knows_the_flags():
    """An unknown one ends the process. libtpu's are not known here."""
    flags = [f for preset in environment.FLAG_PRESETS.values() for f in preset.get("XLA_FLAGS", ())]
    variables = {**os.environ, "XLA_FLAGS": " ".join(flags), "JAX_PLATFORMS": "cpu"}
    result = subprocess.run(
        [sys.executable, "-c", "import jax; print(jax.device_count())"],
        env=variables,
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert result.returncode == 0, result.stderr


@pytest.mark.skipif(platform.machine() != "x86_64", reason="JAX's wheels have oneDNN for x86")
@pytest.mark.parametrize("preset", ["none", "onednn"])
def test_products_go_through_the_library_of_the_preset(preset):
    """Where a product's neighbours were fused with it, oneDNN ended the process."""
    code = (
        "import jax, jax.numpy as jnp; x = jnp.ones((16, 8, 12, 16));"
        "f = lambda x: jax.nn.softmax(x @ x.mT) @ x * 2 + 1;"
        "program = jax.jit(f).lower(x).compile(); jax.block_until_ready(program(x));"
        "print('__onednn_fusion' in program.as_text())"
    )
    result = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, **applied(preset, XLA_FLAGS=""), "JAX_PLATFORMS": "cpu"},
        capture_output=True,
        text=True,
        timeout=600,
        check=True,
    )
    assert result.stdout.strip() == str(preset == "onednn")


class TestCache:
    def test_in_the_workdir_for_this_kind_of_machine(self, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        folder = applied(cache="workdir", workdir=Path("run"))["JAX_COMPILATION_CACHE_DIR"]
        assert folder == str(tmp_path / "run/compiled" / environment.machine())
        folder = applied(cache="workdir", workdir=Path("~/run"))["JAX_COMPILATION_CACHE_DIR"]
        assert folder == str(Path.home() / "run/compiled" / environment.machine())

    def test_without_a_workdir_in_the_users_folder(self):
        folder = applied(cache="workdir", XDG_CACHE_HOME="/somewhere")["JAX_COMPILATION_CACHE_DIR"]
        assert folder == f"/somewhere/mtl_face/compiled/{environment.machine()}"

    def test_in_the_users_folder_for_this_kind_of_machine(self):
        folder = applied(XDG_CACHE_HOME="/somewhere")["JAX_COMPILATION_CACHE_DIR"]
        assert folder == f"/somewhere/mtl_face/compiled/{environment.machine()}"
        assert "/.cache/mtl_face/" in applied()["JAX_COMPILATION_CACHE_DIR"]

    def test_the_users_own_folder_wins(self):
        assert applied(JAX_COMPILATION_CACHE_DIR="/mine") == {
            "JAX_COMPILATION_CACHE_DIR": "/mine",
            "JAX_PERSISTENT_CACHE_ENABLE_XLA_CACHES": "none",
            "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0.1",
        }
        own = applied(JAX_PERSISTENT_CACHE_ENABLE_XLA_CACHES="all")
        assert own["JAX_PERSISTENT_CACHE_ENABLE_XLA_CACHES"] == "all"
        own = applied(JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS="3")
        assert own["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] == "3"

    def test_a_program_is_found_again_after_the_workdir_has_moved(self, tmp_path):
        code = (
            "import sys, pathlib; from mtl_face.run import environment\n"
            "environment.prepare(preset='none', compilation_cache='workdir', "
            "workdir=pathlib.Path(sys.argv[1]))\n"
            "import jax; jax.jit(lambda x: x * x + 3)(5.0)\n"
        )
        variables = {
            name: value for name, value in os.environ.items() if "COMPILATION_CACHE" not in name
        } | {
            "JAX_PLATFORMS": "cpu",
            "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
            "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
        }

        def programs(workdir):
            command = [sys.executable, "-c", code, str(workdir)]
            subprocess.run(command, env=variables, check=True, timeout=600)
            return {path.name for path in (workdir / "compiled").rglob("*-cache")}

        before = programs(tmp_path / "run")
        assert len(before) >= 1
        (tmp_path / "run").rename(tmp_path / "moved")
        assert programs(tmp_path / "moved") == before

    def test_off(self):
        assert applied(cache="off") == {"JAX_ENABLE_COMPILATION_CACHE": "false"}

    def test_machines_differ_by_what_their_processors_can_do(self, tmp_path):
        names = set()
        for flags in ("fpu avx2", "fpu avx2 avx512f", "avx2 fpu"):
            path = tmp_path / "cpuinfo"
            path.write_text(f"processor\t: 0\nflags\t\t: {flags}\nprocessor\t: 1\n")
            names.add(environment.machine(path))
        assert len(names) == 2
        assert environment.machine(tmp_path / "absent")

    def test_too_late_for_a_process_that_has_jax(self, monkeypatch):
        import jax  # noqa: F401

        monkeypatch.delenv("JAX_COMPILATION_CACHE_DIR", raising=False)
        environment.prepare(preset="gpu", compilation_cache="user")
        assert "JAX_COMPILATION_CACHE_DIR" not in os.environ


_PROGRAM = """
import resource, sys
from mtl_face.run import environment
if sys.argv[1] == "keep" and not environment.keep_freed_memory():
    sys.exit("not glibc")
def touch():
    return bytearray(48 * 2**20)  # calloc or malloc, and every page of it written or fresh
touch()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(10):
    touch()[::4096] = b"1" * (48 * 2**20 // 4096)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def faults(how: str) -> int:
    result = subprocess.run(
        [sys.executable, "-c", _PROGRAM, how], capture_output=True, text=True, check=False
    )
    if "not glibc" in result.stderr:
        pytest.skip("the C library has no such settings")
    return int(result.stdout)


def test_kept_memory_is_not_faulted_in_again():
    assert faults("keep") * 10 < faults("leave")


_THREAD = """
import ctypes, threading
from mtl_face.run import environment
environment.keep_freed_memory()
libc = ctypes.CDLL(None)
libc.malloc.restype = ctypes.c_void_p
thread = threading.Thread(target=libc.malloc, args=(ctypes.c_size_t(100_000),))
thread.start()
thread.join()
libc.fdopen.restype = ctypes.c_void_p
stream = ctypes.c_void_p(libc.fdopen(1, b"w"))
libc.malloc_info(0, stream)
libc.fflush(stream)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="of glibc")
def test_threads_keep_heaps_of_their_own():
    result = subprocess.run(
        [sys.executable, "-c", _THREAD], capture_output=True, text=True, check=True
    )
    assert result.stdout.count("<heap nr=") >= 2, result.stdout


class TestHugePages:
    PROGRAM = """
import os, pathlib, sys
from mtl_face.run import environment
print("started", flush=True)
environment.restart_with_huge_pages(pathlib.Path(sys.argv[1]))
print(sys.argv[2], os.environ.get("GLIBC_TUNABLES"))
"""

    @pytest.fixture(autouse=True)
    def _glibc(self):
        if platform.libc_ver()[0] != "glibc":
            pytest.skip("of glibc")

    def run(self, folder: Path, *, granted: str, program: str = "program.py", **variables: str):
        (folder / "enabled").write_text(granted)
        (folder / "program.py").write_text(self.PROGRAM)
        set_by_it = ("GLIBC_TUNABLES", "MTL_FACE_RESTARTED")
        own = {key: value for key, value in os.environ.items() if key not in set_by_it}
        result = subprocess.run(
            [sys.executable, "-W", "error", program, "enabled", "a word"],
            cwd=folder,
            env=own | variables,
            input=self.PROGRAM,
            capture_output=True,
            text=True,
            check=True,
        )
        return result.stdout.splitlines()

    def test_started_once_more_with_the_same_words(self, tmp_path):
        lines = self.run(tmp_path, granted="always [madvise] never\n")
        assert lines == ["started", "started", "a word glibc.malloc.hugetlb=1"]

    def test_other_tunables_are_kept(self, tmp_path):
        lines = self.run(
            tmp_path, granted="[madvise]", GLIBC_TUNABLES="glibc.malloc.tcache_count=7"
        )
        assert lines[-1] == "a word glibc.malloc.tcache_count=7:glibc.malloc.hugetlb=1"

    @pytest.mark.parametrize("granted", ["[always] madvise never", "always madvise [never]"])
    def test_not_where_nothing_is_gained(self, tmp_path, granted):
        assert self.run(tmp_path, granted=granted) == ["started", "a word None"]

    def test_the_users_own_setting_wins(self, tmp_path):
        lines = self.run(tmp_path, granted="[madvise]", GLIBC_TUNABLES="glibc.malloc.hugetlb=0")
        assert lines == ["started", "a word glibc.malloc.hugetlb=0"]

    def test_never_twice(self, tmp_path):
        lines = self.run(tmp_path, granted="[madvise]", MTL_FACE_RESTARTED="1")
        assert lines == ["started", "a word None"]

    def test_not_for_a_program_read_from_a_pipe(self, tmp_path):
        lines = self.run(tmp_path, granted="[madvise]", program="-")
        assert lines == ["started", "a word None"]

    def test_not_in_a_program_that_calls_another(self, tmp_path, monkeypatch):
        calling = "sys.argv = ['run.py', sys.argv[1], 'other']\nenvironment.restart"
        monkeypatch.setattr(self, "PROGRAM", self.PROGRAM.replace("environment.restart", calling))
        assert self.run(tmp_path, granted="[madvise]") == ["started", "other None"]

    def test_a_system_that_does_not_say(self, tmp_path, monkeypatch):
        monkeypatch.delenv("GLIBC_TUNABLES", raising=False)
        monkeypatch.delenv("MTL_FACE_RESTARTED", raising=False)
        environment.restart_with_huge_pages(tmp_path / "absent")

    def test_not_under_a_debugger(self, tmp_path, monkeypatch):
        monkeypatch.delenv("GLIBC_TUNABLES", raising=False)
        monkeypatch.delenv("MTL_FACE_RESTARTED", raising=False)
        (tmp_path / "enabled").write_text("[madvise]")
        traced = sys.gettrace()
        sys.settrace(lambda *arguments: None)
        try:
            environment.restart_with_huge_pages(tmp_path / "enabled")
        finally:
            sys.settrace(traced)
        assert "GLIBC_TUNABLES" not in os.environ


def test_accelerators_are_told_by_their_device_files(tmp_path):
    assert not environment.has_accelerator(tmp_path)
    (tmp_path / "nvidiactl").touch()
    assert environment.has_accelerator(tmp_path)


def test_a_tpu_is_told_by_its_vfio_group(tmp_path):
    (tmp_path / "vfio").mkdir()
    (tmp_path / "vfio" / "vfio").touch()  # the control file is there without any device
    assert not environment.has_accelerator(tmp_path)
    (tmp_path / "vfio" / "0").touch()
    assert environment.has_accelerator(tmp_path)
