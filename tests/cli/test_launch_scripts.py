"""The launch recipes: sound shell, and flags that the command line knows."""

import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from small_experiment import ROOT

from mtl_face import config as config_lib
from mtl_face.cli import main

SCRIPTS = sorted((ROOT / "docs" / "launch").glob("*.sh"))


def shellcheck():
    beside = Path(sys.executable).with_name("shellcheck")
    return str(beside) if beside.exists() else shutil.which("shellcheck")


def test_there_are_scripts():
    assert {path.name for path in SCRIPTS} >= {"tpu_pod.sh", "slurm_gpus.sh", "eight_gpus.sh"}


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_shellcheck(script):
    program = shellcheck()
    if program is None:
        pytest.skip("shellcheck is not installed")
    result = subprocess.run([program, script], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout


def fake(folder, name, body):
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/usr/bin/env bash\n{body}\n")
    path.chmod(0o755)


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_the_lines_that_they_run(script, tmp_path):
    """With stand-ins for the launchers: every flag is one of `run.py train`, and none is lost."""
    log = tmp_path / "log"
    fake(tmp_path / "bin", "srun", 'exec "$@"')
    fake(tmp_path / "bin", "ssh", 'cd "$(dirname "$0")/.." && eval "$2"')
    fake(
        tmp_path / "bin",
        "gcloud",
        'for word; do case $word in --command=*) eval "${word#--command=}";; esac; done',
    )
    for folder in (tmp_path, tmp_path / "mtl_face"):
        # The two of by_hand.sh run side by side: a line must be written at once.
        fake(folder, ".venv/bin/python", f"""printf '%s\\n' "$(printf '%q ' "$@")" >>{log}""")
    own = ["--config=configs/a b.py", "--workdir=/shared/it's"]
    environment = {
        "PATH": f"{tmp_path / 'bin'}:/usr/bin:/bin",
        "NAME": "slice",
        "ZONE": "zone",
        "HOSTS": "node0 node1",
    }
    subprocess.run(["bash", script, *own], cwd=tmp_path, env=environment, check=True, timeout=600)
    lines = [shlex.split(text) for text in log.read_text().splitlines()]
    assert len(lines) == (2 if script.name == "by_hand.sh" else 1)
    known = {name for name, _ in config_lib.fields()}
    for words in lines:
        assert words[:2] == ["run.py", "train"]
        options = main._parser().parse_args(
            [word for word in words[1:] if not word.startswith("--config.")]
        )
        assert (options.config, str(options.workdir)) == ("configs/a b.py", "/shared/it's")
        for word in words:
            if word.startswith("--config."):
                assert word.removeprefix("--config.").partition("=")[0] in known
    if script.name == "by_hand.sh":
        assert sorted(words[-1] for words in lines) == ["--process_id=0", "--process_id=1"]
        assert {words[-3] for words in lines} == {"--coordinator=node0:8476"}
