"""Rules of style that Ruff does not know, read from the source."""

import ast
import re
from pathlib import Path

ROOT = Path(__file__).parents[1]
PACKAGES = ("mtl_face", "data_pipeline")

MOST_PARAMETERS = 7

MAY_HAVE_MORE = {
    # constructors of a table's or a setting's columns
    "mtl_face/tables.py:from_columns",
    "mtl_face/config/schema.py:setting",
    # compiled by Numba, which takes arrays
    "data_pipeline/rendered_faces/raster.py:rasterise",
    "data_pipeline/rendered_faces/shade.py:shade",
}


def num_parameters(function):
    """Parameters of its own: `self` and `cls` do not count."""
    arguments = function.args
    names = [each.arg for each in arguments.posonlyargs + arguments.args + arguments.kwonlyargs]
    return len(names) - (names[:1] in (["self"], ["cls"]))


def crowded():
    found = {}
    for package in PACKAGES:
        for file in sorted((ROOT / package).rglob("*.py")):
            for node in ast.walk(ast.parse(file.read_text())):
                if isinstance(node, ast.FunctionDef) and num_parameters(node) > MOST_PARAMETERS:
                    name = f"{file.relative_to(ROOT).as_posix()}:{node.name}"
                    found[name] = num_parameters(node)
    return found


def test_links_of_the_pages_lead_somewhere():
    pages = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").glob("*.md")]
    dead = [
        f"{page.name}: {link}"
        for page in pages
        for link in re.findall(r"\]\(([^)#\s]+)[^)]*\)", page.read_text(encoding="utf-8"))
        if "://" not in link and not (page.parent / link).exists()
    ]
    assert dead == []


def test_functions_have_seven_parameters_at_most():
    """More belong into a dataclass."""
    found = crowded()
    assert not found.keys() - MAY_HAVE_MORE, found
    assert found.keys() >= MAY_HAVE_MORE, "an exception is no longer needed"


def test_parameters_are_counted():
    (method,) = ast.parse("def f(self, a, /, b, *c, d=1, **e): pass").body
    assert num_parameters(method) == 3


def test_test_files_have_names_of_their_own():
    """Pytest imports them by these names: of two alike it would refuse one."""
    names = [file.name for file in (ROOT / "tests").rglob("*.py") if file.name != "conftest.py"]
    assert len(names) == len(set(names)), sorted(names)
