"""Freed memory stays in the process."""

import subprocess
import sys

import pytest

from mtl_face.run import host_memory

_PROGRAM = """
import resource, sys
from mtl_face.run import host_memory
if sys.argv[1] == "keep" and not host_memory.keep_freed_memory():
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


def test_accelerators_are_told_by_their_device_files(tmp_path):
    assert not host_memory.has_accelerator(tmp_path)
    (tmp_path / "nvidiactl").touch()
    assert host_memory.has_accelerator(tmp_path)


def test_a_tpu_is_told_by_its_vfio_group(tmp_path):
    (tmp_path / "vfio").mkdir()
    (tmp_path / "vfio" / "vfio").touch()  # the control file is there without any device
    assert not host_memory.has_accelerator(tmp_path)
    (tmp_path / "vfio" / "0").touch()
    assert host_memory.has_accelerator(tmp_path)
