"""The notebook of docs/ runs from top to bottom, and holds what it printed."""

import json
import os
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
NOTEBOOK = json.loads((ROOT / "docs" / "first_steps.ipynb").read_text())
CODE = [cell for cell in NOTEBOOK["cells"] if cell["cell_type"] == "code"]


def test_each_cell_shows_what_it_gave():
    assert len(CODE) > 5
    for cell in CODE:
        assert cell["outputs"]
        assert all(output["output_type"] != "error" for output in cell["outputs"])


@pytest.mark.slow
def test_the_cells_run(monkeypatch):
    pytest.importorskip("av")
    monkeypatch.chdir(os.getcwd())  # the notebook moves to a folder of its own
    names: dict[str, object] = {}
    for cell in CODE:
        lines = "".join(cell["source"]).splitlines()
        exec("\n".join(line for line in lines if not line.startswith("%")), names)
    table, summary = names["table"], names["summary"]
    assert table.person.max() == 2
    smiles = [event for event in summary.events if event.what == "Happiness"]
    assert any(2300 < event.onset_ms < 3300 and event.person == 1 for event in smiles)
