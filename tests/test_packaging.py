"""What an installation puts where: a wheel unpacked, and an editable installation."""

import ast
import importlib.metadata
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

PROGRAM = """
import importlib, sys
target, configs, finder, *libraries = sys.argv[1:]
sys.path[:0] = [target, *libraries]
if finder:  # what a file *.pth of site-packages would do
    importlib.import_module(finder).install()
from mtl_face import config
from mtl_face.cli.main import main
import mtl_face.configs.paper_mixup as mixup
assert importlib.util.find_spec("configs") is None
assert mixup.__file__.startswith(configs), mixup.__file__
assert mixup.get_config().augmentation.mixup_alpha == 0.4
assert config.load("paper_mixup", ["data.root=/x"]).augmentation.mixup_alpha == 0.4
print(*config.shipped())
sys.argv = ["/bin/mtl-face"]
print(main(["train", "--config=papper", "--workdir=x"]))
print(main(["train", "--config=paper", "--workdir=x", "--config.xyzzy=1"]))
"""


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """A copy of what is installed, since building leaves files behind."""
    folder = tmp_path_factory.mktemp("source")
    for name in ("mtl_face", "data_pipeline", "configs"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "setup.py", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, folder)
    return folder


def build(source, *words):
    command = [sys.executable, "-m", "pip", "-q", "--disable-pip-version-check", *words]
    command += ["--no-deps", "--no-build-isolation", "--no-index"]
    result = subprocess.run(command, cwd=source, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr


def check(target, configs, folder, *, finder=""):
    """Uses the installed package from an empty folder, without any other installation of it."""
    libraries = [path for path in sys.path if Path(path).name == "site-packages"]
    result = subprocess.run(
        [sys.executable, "-I", "-S", "-c", PROGRAM, target, configs, finder, *libraries],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    names = sorted(file.stem for file in (ROOT / "configs").glob("[!_]*.py"))
    assert result.stdout.split() == [*names, "2", "2"]
    assert "did you mean paper? Give a file" in result.stderr
    assert ", ".join(names) in result.stderr
    assert "`mtl-face settings` lists the fields" in result.stderr


@pytest.mark.slow
def test_a_wheel(source, tmp_path):
    build(source, "wheel", f"--wheel-dir={tmp_path}", ".")
    (wheel,) = tmp_path.glob("*.whl")
    target = tmp_path / "unpacked"
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(target)
        names = archive.namelist()
    assert {name.split("/")[0] for name in names if ".dist-info/" not in name} == {
        "mtl_face",
        "data_pipeline",
    }
    installed = {Path(name) for name in names}
    for package in ("mtl_face", "data_pipeline"):
        files = (ROOT / package).rglob("*")
        wanted = {file.relative_to(ROOT) for file in files if file.is_file()}
        assert {file for file in wanted if "__pycache__" not in file.parts} <= installed
    (entry_points,) = target.glob("*.dist-info/entry_points.txt")
    assert "mtl-face = mtl_face.cli.main:program" in entry_points.read_text()
    empty = tmp_path / "empty"
    empty.mkdir()
    check(target, target, empty)


@pytest.mark.slow
def test_an_editable_installation(source, tmp_path):
    target = tmp_path / "site"
    build(source, "install", f"--target={target}", "--editable", ".")
    (finder,) = target.glob("__editable___*_finder.py")
    check(target, source / "configs", target, finder=finder.stem)


def distribution(requirement):
    """The normalised name in `Name[extra]>=1; marker`."""
    return re.match(r"[\w.-]+", requirement)[0].lower().replace("_", "-").replace(".", "-")


def imported_libraries():
    """Names of top-level modules that are not Python's, with a file that imports each."""
    found = {}
    for package in ("mtl_face", "data_pipeline", "configs"):
        for file in (ROOT / package).rglob("*.py"):
            for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
                if isinstance(node, ast.Import):
                    names = [alias.name for alias in node.names]
                elif isinstance(node, ast.ImportFrom):
                    names = [node.module or ""]
                else:
                    continue
                found |= {name.partition(".")[0]: file for name in names}
    ours = {"mtl_face", "data_pipeline", "configs", ""}
    return {
        name: file for name, file in found.items() if name not in ours | sys.stdlib_module_names
    }


def test_what_is_imported_is_declared():
    """Not left to come through a requirement of a requirement, which may drop it."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    declared = {distribution(line) for line in project["dependencies"]}
    for lines in project["optional-dependencies"].values():
        declared |= {distribution(line) for line in lines}
    providers = importlib.metadata.packages_distributions()
    for name, file in imported_libraries().items():
        by = {distribution(provider) for provider in providers.get(name, [name])}
        # jax pins its own jaxlib
        assert by & declared or name == "jaxlib", f"{file} imports {name}, of {sorted(by)}"


def test_requirements_of_prediction_are_those_of_the_package():
    lines = (ROOT / "requirements-predict.txt").read_text().splitlines()
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    declared = set(project["dependencies"] + project["optional-dependencies"]["video"])
    assert {line for line in lines if line and not line.startswith("#")} <= declared
