"""Memory in use, for the log: of this host's process and of its devices."""

import sys
from pathlib import Path

import jax

_MIB = 2**20


def memory() -> dict[str, float]:
    """Memory of this process, in MiB.

    Returns:
        `memory/host_mib`, what the process holds of the host's memory, where the system tells;
        `memory/device_mib` and `memory/device_peak_mib`, in use now and at most so far, of the
        local device that has used most, where the devices tell (a CPU does not).
    """
    numbers = {}
    resident = _resident_bytes()
    if resident is not None:
        numbers["memory/host_mib"] = resident / _MIB
    reports = [device.memory_stats() for device in jax.local_devices()]
    for name, key in (
        ("memory/device_mib", "bytes_in_use"),
        ("memory/device_peak_mib", "peak_bytes_in_use"),
    ):
        values = [report[key] for report in reports if report and key in report]
        if values:
            numbers[name] = max(values) / _MIB
    return numbers


def _resident_bytes(status: Path = Path("/proc/self/statm")) -> int | None:
    if sys.platform.startswith("linux"):
        import resource

        return int(status.read_text().split()[1]) * resource.getpagesize()
    return None
