"""A command of run.py in a process of its own, and the heavy libraries that it imports."""

import subprocess
import sys
from pathlib import Path

_ROOT = Path(__file__).parents[1]

_RUN = """
import runpy, sys
heavy, *sys.argv[1:] = sys.argv[1:]
try:
    runpy.run_path("run.py", run_name="__main__")
except SystemExit as exit:
    print("STATUS", exit.code)
print("HEAVY", *sorted(set(sys.modules) & set(heavy.split(","))))
"""


def run(words: list[str], heavy: set[str]) -> list[str]:
    """The lines of a command that succeeds, says nothing of errors and imports none of `heavy`."""
    result = subprocess.run(
        [sys.executable, "-c", _RUN, ",".join(heavy), *words],
        cwd=_ROOT,
        capture_output=True,
        text=True,
        check=True,
        timeout=600,
    )
    *text, status, imported = result.stdout.splitlines()
    assert (status, imported, result.stderr) == ("STATUS 0", "HEAVY", "")
    return text
