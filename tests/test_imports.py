"""The import rules of the packages, read from the import statements."""

import ast
import functools
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = ("mtl_face", "data_pipeline", "configs")

GROUND = {
    "mtl_face",
    "mtl_face.tasks",
    "mtl_face.errors",
    "mtl_face.files",
    "mtl_face.libraries",
    "mtl_face.locks",
    "mtl_face.pictures",
    "mtl_face.tables",
    "mtl_face.face_table",
    "mtl_face.inputs",
    "mtl_face.probabilities",
    "mtl_face.config",
}
"""What every room may import: the ground floor."""

NETWORK = {
    "mtl_face.model",
    "mtl_face.objective",
    "mtl_face.evaluation",
    "mtl_face.weights",
    "mtl_face.faces",
}
TRAINED = {"mtl_face.training", "mtl_face.inference"}
PRODUCTS = {"mtl_face.planner", "mtl_face.export", "mtl_face.report"}

MAY_IMPORT = {
    "mtl_face": {"mtl_face.config", "mtl_face.run"},  # the door: for types, and when asked for
    "mtl_face.tasks": set(),
    "mtl_face.errors": set(),
    "mtl_face.files": {"mtl_face.errors"},
    "mtl_face.libraries": set(),
    "mtl_face.locks": {"mtl_face.errors", "mtl_face.files"},
    "mtl_face.pictures": {"mtl_face.errors", "mtl_face.files"},
    "mtl_face.tables": {"mtl_face.errors", "mtl_face.tasks"},
    "mtl_face.face_table": {  # the page when a picture is asked for
        "mtl_face.errors",
        "mtl_face.pictures",
        "mtl_face.report",
        "mtl_face.tasks",
    },
    "mtl_face.inputs": {"mtl_face.face_table", "mtl_face.tasks"},
    "mtl_face.probabilities": {"mtl_face.tasks"},
    "mtl_face.config": {"mtl_face.errors", "mtl_face.tasks"},
    "mtl_face.model": GROUND,
    "mtl_face.objective": GROUND,
    "mtl_face.evaluation": GROUND,
    "mtl_face.weights": GROUND | {"mtl_face.model"},  # the geometries, in a module without JAX
    "mtl_face.faces": GROUND | {"mtl_face.model"},  # the forms of a convolution
    "mtl_face.training": GROUND | NETWORK,
    "mtl_face.inference": GROUND | NETWORK,
    "mtl_face.planner": GROUND | NETWORK | TRAINED,
    "mtl_face.export": GROUND | NETWORK | TRAINED,
    "mtl_face.report": GROUND | NETWORK | TRAINED,
    "mtl_face.run": GROUND | NETWORK | TRAINED | PRODUCTS | {"data_pipeline"},
    "mtl_face.serve": GROUND | NETWORK | TRAINED | {"mtl_face.run"},
    "mtl_face.cli": GROUND
    | NETWORK
    | TRAINED
    | PRODUCTS
    | {"mtl_face.run", "mtl_face.serve", "data_pipeline"},
    "data_pipeline": GROUND,
    "configs": {"mtl_face.config"},
}
"""Parts of our packages by what each may import, besides itself."""

ONLY_IN = {
    "tensorflow": {"data_pipeline.decoding", "data_pipeline.shards"},
    "tensorflow_datasets": {"data_pipeline.shards"},
    "orbax": {
        "mtl_face.training.checkpoint",
        "mtl_face.weights.exported",
        "mtl_face.export.arrays",
    },
    "clu": {"mtl_face.training.trainer"},
    "pickle": set(),
}
"""Modules of other projects by the only ones of ours that may import them."""


def source_files() -> list[Path]:
    files = [path for package in PACKAGES for path in sorted((ROOT / package).rglob("*.py"))]
    return [*files, ROOT / "run.py"]


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


@functools.cache
def imported(path: Path) -> dict[str, int]:
    """Modules that a file's import statements name, wherever they stand, with a line of each."""
    found: dict[str, int] = {}
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            if node.level and path.parent == ROOT / "configs":
                continue  # they import each other wherever they are installed
            assert node.level == 0, f"{path}, line {node.lineno}: a relative import"
            # `from a import b` may mean a module a.b: take it for one where such a file exists.
            assert node.module is not None
            names = [
                f"{node.module}.{alias.name}" if is_module(node.module, alias.name) else node.module
                for alias in node.names
            ]
        else:
            continue
        for name in names:
            found.setdefault(name, node.lineno)
    return found


def is_module(package: str, name: str) -> bool:
    place = ROOT.joinpath(*package.split("."), name)
    return place.is_dir() or place.with_suffix(".py").is_file()


def is_within(name: str, package: str) -> bool:
    return name == package or name.startswith(package + ".")


def part_of(name: str) -> str:
    """The longest part in `MAY_IMPORT` that holds a module of ours."""
    if name.startswith("mtl_face."):
        return ".".join(name.split(".")[:2])
    return name.split(".")[0]


def is_ours(name: str) -> bool:
    return any(is_within(name, package) for package in PACKAGES)


def forbidden(path: Path) -> list[str]:
    """Breaches of `MAY_IMPORT` by one file."""
    part = part_of(module_name(path))
    allowed = MAY_IMPORT[part] | {part}
    return [
        f"{path.relative_to(ROOT)}:{line} imports {name}"
        for name, line in imported(path).items()
        if is_ours(name) and part_of(name) not in allowed
    ]


def test_every_part_has_a_rule():
    assert {part_of(module_name(path)) for path in source_files()} - {"run"} <= set(MAY_IMPORT)


def test_imports_run_one_way():
    files = [path for path in source_files() if path.name != "run.py"]
    assert len(files) > 50
    assert [breach for path in files for breach in forbidden(path)] == []


def test_run_py_imports_the_command_line_alone():
    ours = [name for name in imported(ROOT / "run.py") if is_ours(name)]
    assert ours == ["mtl_face.cli.main"]


@pytest.mark.parametrize("library", ONLY_IN)
def test_library_is_imported_in_its_place_alone(library):
    users = {
        module_name(path)
        for path in source_files()
        if any(is_within(name, library) for name in imported(path))
    }
    assert users <= ONLY_IN[library]


def test_orbax_manager_lies_in_one_file():
    users = {
        module_name(path)
        for path in source_files()
        if any(
            isinstance(node, ast.Attribute) and node.attr.startswith("CheckpointManager")
            for node in ast.walk(ast.parse(path.read_text()))
        )
    }
    assert users == {"mtl_face.training.checkpoint"}


def test_light_modules_stay_light():
    """What `--help` needs at its start imports none of the heavy libraries."""
    heavy = ("jax", "flax", "optax", "clu", "numpy", "pandas", "matplotlib", "scipy", "orbax")
    light = [ROOT / "run.py", ROOT / "mtl_face/cli/main.py", ROOT / "mtl_face/tasks.py"]
    light += [ROOT / "mtl_face/errors.py", *(ROOT / "mtl_face/config").glob("*.py")]
    light += [ROOT / "mtl_face/__init__.py", ROOT / "mtl_face/cli/__init__.py"]
    for path in light:
        for name in imported(path):
            assert not any(is_within(name, library) for library in heavy), (path, name)


def test_the_reader_of_import_statements(tmp_path, monkeypatch):
    """A breach of each form is seen: the rules above must not hold for want of eyes."""
    (tmp_path / "mtl_face/objective").mkdir(parents=True)
    (tmp_path / "mtl_face/training").mkdir()
    (tmp_path / "mtl_face/training/step.py").write_text("")
    monkeypatch.setattr(__import__("sys").modules[__name__], "ROOT", tmp_path)
    path = tmp_path / "mtl_face/objective/wrong.py"
    path.write_text(
        "import mtl_face.training.step\n"
        "from mtl_face import evaluation, tasks\n"
        "from mtl_face.errors import UserError\n"
        "def late():\n"
        "    from mtl_face.training import step\n"
        "    from data_pipeline.order import Order\n"
        "    import jax.numpy as jnp\n"
    )
    (tmp_path / "mtl_face/evaluation").mkdir()
    (tmp_path / "mtl_face/tasks.py").write_text("")
    assert forbidden(path) == [
        "mtl_face/objective/wrong.py:1 imports mtl_face.training.step",
        "mtl_face/objective/wrong.py:2 imports mtl_face.evaluation",
        "mtl_face/objective/wrong.py:6 imports data_pipeline.order",
    ]
