"""NVIDIA GPUs as XLA's compiler wants them described when none is there.

The compiler reads the text of a `GpuTargetConfigProto` (XLA, in
`stream_executor/device_description.proto`). What no publication states is left out; the compiler
then takes its own defaults. Sources:

- limits of threads, registers and shared memory, by compute capability: CUDA C++ Programming Guide,
  "Technical Specifications per Compute Capability" (164 KB of shared memory a multiprocessor in
  8.0, 228 KB in 9.0, of which a block may have all but 1 KB);
- multiprocessors, their float32 units, level-2 cache and boost clock of the SXM cards: the papers
  "NVIDIA A100 Tensor Core GPU Architecture" (2020) and "NVIDIA H100 Tensor Core GPU Architecture"
  (2022); the H200 is the same processor with another memory (its data sheet);
- size and bandwidth of the memory: `chips`.
"""

import dataclasses

from mtl_face.planner.chips import CHIPS

_KIB = 1024

_CUDA = "13.0.0"
_CUDNN = (9, 10, 0)
"""Versions of the installation that is planned for: what the cuda13 wheels of jaxlib ask for at
least. By cuDNN's, XLA decides which fusions it may hand over."""


@dataclasses.dataclass(frozen=True)
class _Processor:
    """Published attributes: compute capability, multiprocessors, bytes of cache, boost clock."""

    name: str
    capability: int
    cores: int
    fpus_per_core: int
    shared_memory_per_core: int
    l2_cache: int
    clock_ghz: float


_GH100 = _Processor("", 9, 132, 128, 228 * _KIB, 50 * _KIB**2, 1.98)

_PROCESSORS = {
    "a100": _Processor("NVIDIA A100-SXM4-80GB", 8, 108, 64, 164 * _KIB, 40 * _KIB**2, 1.41),
    "h100": dataclasses.replace(_GH100, name="NVIDIA H100 80GB HBM3"),
    "h200": dataclasses.replace(_GH100, name="NVIDIA H200"),
}


def target_config(kind: str) -> str:
    """The text that describes a card of `chips.GPUS` to the compiler."""
    processor, chip = _PROCESSORS[kind], CHIPS[kind]
    major, minor, patch = _CUDNN
    return f"""\
gpu_device_info {{
  threads_per_block_limit: 1024
  threads_per_warp: 32
  shared_memory_per_block: {48 * _KIB}
  shared_memory_per_core: {processor.shared_memory_per_core}
  shared_memory_per_block_optin: {processor.shared_memory_per_core - _KIB}
  threads_per_core_limit: 2048
  core_count: {processor.cores}
  fpus_per_core: {processor.fpus_per_core}
  block_dim_limit_x: {2**31 - 1}
  block_dim_limit_y: {2**16 - 1}
  block_dim_limit_z: {2**16 - 1}
  thread_dim_limit_x: 1024
  thread_dim_limit_y: 1024
  thread_dim_limit_z: 64
  registers_per_core_limit: 65536
  registers_per_block_limit: 65536
  memory_bandwidth: {chip.memory_bandwidth:.0f}
  l2_cache_size: {processor.l2_cache}
  clock_rate_ghz: {processor.clock_ghz}
  device_memory_size: {chip.memory_bytes}
  device_address_bits: 64
  cuda_compute_capability {{ major: {processor.capability} minor: 0 }}
  name: "{processor.name}"
  dnn_version: "{major}.{minor}.{patch}"
  driver_version: "{_CUDA}"
  runtime_version: "{_CUDA}"
  compile_time_toolkit_version: "{_CUDA}"
}}
platform_name: "CUDA"
dnn_version_info {{ major: {major} minor: {minor} patch: {patch} }}
device_description_str: "{processor.name}"
"""
