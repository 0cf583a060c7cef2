"""What is compiled: the step of the platform that is planned for, over batches as they come."""

import jax
import numpy as np
import pytest
from jax.experimental.compilation_cache import compilation_cache

from data_pipeline import batch as batches
from data_pipeline import features
from mtl_face import config as config_lib
from mtl_face.model.network import for_platform
from mtl_face.objective.resample import resolve_method
from mtl_face.planner import compile_step
from mtl_face.tables import FrameTable
from mtl_face.training import sharding


def test_auto_is_settled_for_the_platform_that_is_compiled_for():
    settings = config_lib.Config()
    assert settings.model.backbone.convolution == settings.augmentation.method == "auto"
    for platform, convolution, method in [
        ("tpu", "xla", "separable"),
        ("cpu", "matmul", "gather"),
        ("gpu", "cudnn", "gather"),
    ]:
        assert for_platform(settings.model, platform).backbone.convolution == convolution
        assert resolve_method(settings.augmentation.method, platform) == method


@pytest.mark.parametrize("inputs", [("image",), ("points",), ("image", "points")])
def test_the_batch_is_what_the_input_hands_over(inputs):
    table = FrameTable.from_columns(
        dataset=["d"] * 8,
        video=["v"] * 8,
        frame=range(8),
        image=["x"] * 8,
        root=["/"] * 8,
        valence=np.zeros(8),
        arousal=np.zeros(8),
        expression=np.arange(8),
        au=np.zeros((8, 12)),
    )
    mesh = sharding.make_mesh(data=4, fsdp=2)
    data = {"root": "/data", "image_size": 32, "baseline": ("person", "neutral")}
    settings = config_lib.validate({"data": data, "model": {"inputs": inputs}})
    points = np.zeros((8, 468, 3), np.float32)
    baselines = features.baselines(table, points, np.ones(8, bool), settings.data.baseline)
    decoded = {"image": np.zeros((8, 32, 32, 3), np.uint8)} if "image" in inputs else {}
    rows = {"points": points, "baseline": baselines} if "points" in inputs else {}
    arrays = {name: value[np.arange(8)] for name, value in rows.items()}
    given = batches.with_labels(table, iter([(np.arange(8), decoded | arrays)]))
    (found,) = batches.to_devices(given, sharding.by_example(mesh))
    expected = compile_step.abstract_batch(8, settings, mesh=mesh)
    assert jax.tree.structure(found) == jax.tree.structure(expected)
    for one, other in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        assert (one.shape, one.dtype) == (other.shape, other.dtype)
        assert one.sharding.is_equivalent_to(other.sharding, one.ndim)


@pytest.fixture
def cached(tmp_path):
    """Compiled programs are kept in this folder."""
    wanted = {
        "jax_enable_compilation_cache": True,
        "jax_compilation_cache_dir": str(tmp_path),
        "jax_persistent_cache_min_compile_time_secs": 0.0,
    }
    before = {name: getattr(jax.config, name) for name in wanted}
    for name, value in wanted.items():
        jax.config.update(name, value)
    compilation_cache.reset_cache()
    yield tmp_path
    for name, value in before.items():
        jax.config.update(name, value)
    compilation_cache.reset_cache()


def test_a_cache_in_use_is_set_aside(cached):
    def compile_and_count(number):
        jax.jit(lambda x: x * number).lower(np.float32(1)).compile()
        return len(list(cached.iterdir()))

    before = compile_and_count(2)
    assert before > 0
    with compile_step._settings("low"):
        assert compile_and_count(3) == before
    assert compile_and_count(4) > before
