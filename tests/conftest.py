"""Eight fake CPU devices and strict JAX settings for every test, set before JAX is first used."""

import contextlib
import os

with contextlib.suppress(ModuleNotFoundError):
    import triton  # noqa: F401 (PyTorch for CUDA brings it; loaded after TensorFlow it crashes)

os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
os.environ.setdefault("MPLBACKEND", "Agg")

import jax

jax.config.update("jax_num_cpu_devices", 8)
jax.config.update("jax_numpy_rank_promotion", "raise")
jax.config.update("jax_legacy_prng_key", "error")
jax.config.update("jax_disable_most_optimizations", True)  # halves compile time on the CPU
