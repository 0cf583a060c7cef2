"""The key of the plan's cache, and the place of the TPU's compiler."""

import dataclasses
import importlib.metadata
import os
import shutil
import subprocess
import sys

import pytest
import small_experiment

from mtl_face import config as config_lib
from mtl_face.planner import Target, programs


@pytest.fixture(scope="module")
def key(tmp_path_factory):
    """The key of some settings and target."""
    folder = tmp_path_factory.mktemp("programs")
    file = small_experiment.write_config(folder)
    (folder / "libtpu.so").write_bytes(b"")

    def key(*overrides, **changes):
        settings = config_lib.load(file, overrides, reads_data=False)
        target = dataclasses.replace(Target("v5e:4x4", batch_size=8, effort="low"), **changes)
        return programs.cache_key(settings, target, folder / "libtpu.so")

    return key


@pytest.mark.parametrize(
    ("override", "same"),
    [
        ("seed=7", True),
        ("data.root=/somewhere", True),
        ("evaluation.batch_size=16", True),
        ("training.log_every_steps=7", True),
        ("model.backbone.batch_norm=frozen", False),
        ("optimizer.weight_decay=0.5", False),
        ("data.image_size=48", False),
        ("mesh.fsdp=2", False),
        ("augmentation.mixup_alpha=0.5", False),
        ("training.loss_limit=7.0", False),
    ],
)
def test_settings_in_the_key(key, override, same):
    assert (key(override) == key()) == same


def test_targets_in_the_key(key):
    assert len({key(), key(batch_size=16), key(effort="full"), key(topology="v5e:2x2")}) == 4


@pytest.mark.parametrize(
    ("variable", "same"),
    [
        ("JAX_DEFAULT_MATMUL_PRECISION", False),
        ("LIBTPU_INIT_ARGS", False),
        ("JAX_COMPILATION_CACHE_DIR", True),
        ("HOME", True),
    ],
)
def test_variables_in_the_key(key, monkeypatch, variable, same):
    before = key()
    monkeypatch.setenv(variable, "/elsewhere")
    assert (key() == before) == same


@pytest.fixture(scope="module")
def copied(tmp_path_factory):
    """The sources of this program, to be changed."""
    root = tmp_path_factory.mktemp("sources")
    for path in (programs._ROOT / "mtl_face").rglob("*.py"):
        copy = root / path.relative_to(programs._ROOT)
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, copy)
    return root


@pytest.mark.parametrize(
    ("module", "same"),
    [
        ("tasks.py", False),  # the number of outputs
        ("model/network.py", False),
        ("objective/losses.py", False),
        ("training/step.py", False),
        ("training/wide_gradients.py", False),
        ("config/schema.py", False),
        ("planner/compile_step.py", False),
        ("planner/estimate.py", True),
        ("planner/gpus.py", False),
        ("planner/chips.py", False),  # what describes a GPU to its compiler
        ("training/checkpoint.py", True),
        ("cli/plan.py", True),
        ("__init__.py", True),
    ],
)
def test_sources_in_the_key(key, copied, monkeypatch, module, same):
    monkeypatch.setattr(programs, "_ROOT", copied)
    before = key()
    with (copied / "mtl_face" / module).open("a") as file:
        file.write("# changed\n")
    assert (key() == before) == same


def test_sources_are_those_that_a_compile_loads():
    program = (
        "import mtl_face.planner.compile_step, sys\n"
        "print(*[m.__file__ for n, m in sys.modules.items() if n.startswith('mtl_face.')])"
    )
    result = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "PYTHONPATH": str(programs._ROOT)},
    )
    assert set(result.stdout.split()) <= {str(path) for path in programs.step_sources()}


@pytest.mark.parametrize("inside", ["libtpu", "lib/python3.11/site-packages/libtpu"])
def test_compiler_in_a_folder_or_an_environment(tmp_path, inside):
    library = tmp_path / inside / "libtpu.so"
    library.parent.mkdir(parents=True)
    library.write_bytes(b"")
    assert programs.find_library({programs.FOLDER: str(tmp_path)}) == library


def plugin(folder, version, *, assembler=True):
    files = [programs._PLUGIN, f"jax_cuda13_pjrt-{version}.dist-info/METADATA"]
    for name in [*files, *[programs._ASSEMBLER] * assembler]:
        (folder / name).parent.mkdir(parents=True)
        (folder / name).write_bytes(b"")
    return {programs.GPU_FOLDER: str(folder)}


JAXLIB = importlib.metadata.version("jaxlib")


def test_compiler_for_gpus_in_a_folder(tmp_path):
    assert programs.find_plugin(plugin(tmp_path, JAXLIB)) == tmp_path / programs._PLUGIN


def test_compiler_for_gpus_in_an_environment(tmp_path):
    packages = tmp_path / "lib" / "python3.11" / "site-packages"
    plugin(packages, JAXLIB)
    found = programs.find_plugin({programs.GPU_FOLDER: str(tmp_path)})
    assert found == packages / programs._PLUGIN


@pytest.mark.parametrize(
    ("version", "assembler", "problem"),
    [
        ("0.1.2", True, f"is of version 0.1.2, jaxlib of {JAXLIB}"),
        (JAXLIB, False, "ptxas, is not beside"),
        (None, True, "is not here"),
    ],
)
def test_no_compiler_for_gpus(tmp_path, version, assembler, problem):
    environment = {programs.GPU_FOLDER: str(tmp_path)}
    if version is not None:
        plugin(tmp_path, version, assembler=assembler)
    with pytest.raises(programs.CompilerError, match=problem) as error:
        programs.find_plugin(environment)
    command = f"-m pip install --no-deps --target={tmp_path} jax-cuda13-pjrt=={JAXLIB}"
    assert command in error.value.remedy


def test_flags_of_the_user_win(monkeypatch, tmp_path):
    monkeypatch.setenv("XLA_FLAGS", "--xla_dump_to=x")
    library = tmp_path / programs._PLUGIN
    added = programs._for_gpus(library)
    assert added["PYTHONPATH"] == str(tmp_path)
    assert added["XLA_FLAGS"] == f"--xla_dump_to=x {programs._NO_TRITON}"
    own = "--xla_gpu_enable_triton_gemm=true"
    monkeypatch.setenv("XLA_FLAGS", own)
    assert programs._for_gpus(library)["XLA_FLAGS"] == own
