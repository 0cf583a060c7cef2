"""How much memory there is."""

import os

_CGROUP = "/sys/fs/cgroup/memory"


def available_bytes() -> int:
    """Bytes of memory that can still be taken: of the machine, or of its container if less.

    File caches that the system would give up count as free. On systems that do not say what is
    free, all of the machine's memory counts.
    """
    if os.path.exists("/proc/meminfo"):
        free = _read_fields("/proc/meminfo")["MemAvailable:"] * 1024
    else:
        free = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    if os.path.exists(f"{_CGROUP}.max"):
        with open(f"{_CGROUP}.max", encoding="ascii") as file:
            limit = file.read().strip()
        if limit != "max":
            with open(f"{_CGROUP}.current", encoding="ascii") as file:
                used = int(file.read())
            reclaimable = _read_fields(f"{_CGROUP}.stat")["inactive_file"]
            free = min(free, max(int(limit) - used + reclaimable, 0))
    return free


def _read_fields(path: str) -> dict[str, int]:
    with open(path, encoding="ascii") as file:
        return {words[0]: int(words[1]) for words in map(str.split, file) if len(words) > 1}
