"""What JAX is told before it starts: presets that the compiler knows, and the user's own words."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from mtl_face.config import schema
from mtl_face.run import xla_settings


def applied(preset="none", cache="user", workdir=None, **environment):
    xla_settings.apply(
        preset=preset, compilation_cache=cache, workdir=workdir, environment=environment
    )
    return environment


def test_presets_are_those_of_the_setting():
    fields = dict(schema.fields())
    assert fields["training.xla_preset"].metadata["choices"] == tuple(xla_settings._PRESETS)


@pytest.mark.parametrize("preset", xla_settings._PRESETS)
def test_the_users_own_flags_win(preset):
    for variable, flags in xla_settings._PRESETS[preset].items():
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
    flags = [f for preset in xla_settings._PRESETS.values() for f in preset.get("XLA_FLAGS", ())]
    environment = {**os.environ, "XLA_FLAGS": " ".join(flags), "JAX_PLATFORMS": "cpu"}
    result = subprocess.run(
        [sys.executable, "-c", "import jax; print(jax.device_count())"],
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert result.returncode == 0, result.stderr


class TestCache:
    def test_in_the_workdir_for_this_kind_of_machine(self, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        folder = applied(cache="workdir", workdir=Path("run"))["JAX_COMPILATION_CACHE_DIR"]
        assert folder == str(tmp_path / "run/compiled" / xla_settings.machine())
        folder = applied(cache="workdir", workdir=Path("~/run"))["JAX_COMPILATION_CACHE_DIR"]
        assert folder == str(Path.home() / "run/compiled" / xla_settings.machine())

    def test_without_a_workdir_in_the_users_folder(self):
        folder = applied(cache="workdir", XDG_CACHE_HOME="/somewhere")["JAX_COMPILATION_CACHE_DIR"]
        assert folder == f"/somewhere/mtl_face/compiled/{xla_settings.machine()}"

    def test_in_the_users_folder_for_this_kind_of_machine(self):
        folder = applied(XDG_CACHE_HOME="/somewhere")["JAX_COMPILATION_CACHE_DIR"]
        assert folder == f"/somewhere/mtl_face/compiled/{xla_settings.machine()}"
        assert "/.cache/mtl_face/" in applied()["JAX_COMPILATION_CACHE_DIR"]

    def test_the_users_own_folder_wins(self):
        assert applied(JAX_COMPILATION_CACHE_DIR="/mine") == {"JAX_COMPILATION_CACHE_DIR": "/mine"}

    def test_off(self):
        assert applied(cache="off") == {"JAX_ENABLE_COMPILATION_CACHE": "false"}

    def test_machines_differ_by_what_their_processors_can_do(self, tmp_path):
        names = set()
        for flags in ("fpu avx2", "fpu avx2 avx512f", "avx2 fpu"):
            path = tmp_path / "cpuinfo"
            path.write_text(f"processor\t: 0\nflags\t\t: {flags}\nprocessor\t: 1\n")
            names.add(xla_settings.machine(path))
        assert len(names) == 2
        assert xla_settings.machine(tmp_path / "absent")

    def test_too_late_for_a_process_that_has_jax(self, monkeypatch):
        import jax  # noqa: F401

        monkeypatch.delenv("JAX_COMPILATION_CACHE_DIR", raising=False)
        xla_settings.apply(preset="gpu", compilation_cache="user")
        assert "JAX_COMPILATION_CACHE_DIR" not in os.environ
