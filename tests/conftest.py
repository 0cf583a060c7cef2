"""Eight fake CPU devices and strict JAX settings for every test, set before JAX is first used."""

import contextlib
import gc
import importlib.util
import os
import re
import time
from pathlib import Path

import pytest

with contextlib.suppress(ModuleNotFoundError):
    import triton  # noqa: F401 (PyTorch for CUDA brings it; loaded after TensorFlow it crashes)

os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
os.environ.setdefault("MPLBACKEND", "Agg")
# XLA's older code generator compiles in half the processor time, and what is not split between
# threads in a tenth less; in processes that tests start too.
os.environ["XLA_FLAGS"] = " ".join(
    [
        "--xla_cpu_use_fusion_emitters=false",
        "--xla_cpu_parallel_codegen_split_count=1",
        *os.environ.get("XLA_FLAGS", "").split(),
    ]
)

import jax
from processor_time import ProcessorTime

from mtl_face import files
from mtl_face.faces import models
from mtl_face.run import environment

DEVICES = 8
jax.config.update("jax_num_cpu_devices", DEVICES)
jax.config.update("jax_numpy_rank_promotion", "raise")
jax.config.update("jax_legacy_prng_key", "error")
jax.config.update("jax_disable_most_optimizations", True)  # halves compile time on the CPU
jax.config.update("jax_traceback_in_locations_limit", 0)  # programs need not name their source

# Face networks are few, and run for each frame of many tests: five times as fast when optimized.
_options_of = models.compiler_options
models.compiler_options = lambda platform: {
    **_options_of(platform),
    "xla_backend_optimization_level": 3,
    "xla_llvm_disable_expensive_passes": False,
}

# Programs are kept for the other tests, workers and runs. Processes that tests start keep none
# there, but for those with `shared_programs`.
COMPILED = files.cache_folder() / "tests" / environment.machine()
KEPT_SECONDS = 30 * 24 * 3600
if not jax.config.jax_compilation_cache_dir:
    jax.config.update("jax_compilation_cache_dir", str(COMPILED))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.1)

SLOWEST = (
    "run/test_kill_and_resume.py",
    "run/test_run_of_processes.py",
    "benchmarks/test_gpu.py",
    "run/test_faults.py",
    "run/test_determinism.py",
    "test_api.py",
    "data_pipeline/test_input.py",
    "faces/test_extract.py",
    "run/inputs/test_inputs_features.py",
    "planner/test_flops.py",
    "run/faces/test_predict_faces.py",
    "run/test_predict.py",
    "benchmarks/test_predict_benchmark.py",
    "run/inputs/test_tokens.py",
    "training/test_adapters.py",
    "training/processes/test_distributed.py",
    "run/test_export.py",
    "training/test_remat.py",
    "run/test_initial_weights.py",
    "export/test_onnx_graph.py",
    "faces/test_face_networks.py",
    "report/test_annotated_files.py",
    "run/test_models.py",
    "model/test_torch_parity.py",
    "benchmarks/test_checkpoints.py",
    "training/test_step.py",
    "model/test_network.py",
    "model/test_convolution.py",
    "training/test_accumulation.py",
    "inference/test_predictor.py",
    "export/test_whole_way.py",
    "data_pipeline/test_rendered_faces_generate.py",
    "training/test_guard.py",
    "run/test_predicted_variance_run.py",
    "training/test_fine_tuning.py",
    "training/test_experiment.py",
    "data_pipeline/test_shards.py",
    "planner/test_plan.py",
    "data_pipeline/test_rendered_faces_render.py",
)


# PyTorch is a reference, and its wheel for Linux brings gigabytes of CUDA: tests that compare with
# it are left out where it is missing.
_IMPORTS_TORCH = re.compile(
    r"^(import|from) (torch|torch_reference|reference_resnet|weight_files)\b", re.MULTILINE
)
WITH_TORCH = [
    path.parent if path.name == "conftest.py" else path
    for path in Path(__file__).parent.rglob("*.py")
    if _IMPORTS_TORCH.search(path.read_text(encoding="utf-8"))
]
collect_ignore = [] if importlib.util.find_spec("torch") else [str(path) for path in WITH_TORCH]


def pytest_report_header():
    """Says what is left out."""
    if collect_ignore:
        return "PyTorch is not installed: tests that compare with it are left out (docs/install.md)"
    return None


def pytest_addoption(parser):
    parser.addoption("--processor-time", action="store_true", help="list what files and tests take")


def pytest_configure(config):
    """Lets `--dist loadfile` take the files in our order, and drops programs long unused."""
    if config.option.processor_time:
        config.pluginmanager.register(ProcessorTime())
    config.option.loadscopereorder = False
    if not hasattr(config, "workerinput"):
        for path in COMPILED.glob("*"):
            if path.stat().st_atime < time.time() - KEPT_SECONDS:
                path.unlink(missing_ok=True)


def pytest_itemcollected(item):
    """Marks what compares with PyTorch, before `-m` chooses."""
    if not {item.path, *item.path.parents}.isdisjoint(WITH_TORCH):
        item.add_marker("torch")


@pytest.fixture
def shared_programs(monkeypatch):
    """Lets processes that tests start share what they compile, with optimizations, among them."""
    folder = jax.config.jax_compilation_cache_dir
    if folder:
        monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", folder)
        monkeypatch.setenv("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.1")


def pytest_collection_finish():
    """Spares the collector what imports and collecting have made: tracing makes it run often."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(700, 10, 1000)  # full collections are a twentieth of tests that trace


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items):
    """The slowest files first, so that the workers of `-n 2 --dist loadfile` end together."""
    tests = Path(__file__).parent
    places = {tests / name: place for place, name in enumerate(SLOWEST)}
    items.sort(key=lambda item: places.get(item.path, len(places)))
