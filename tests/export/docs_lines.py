"""The lines of docs/export.md that read an export with NumPy alone."""

from pathlib import Path

DOCS = Path(__file__).parents[2] / "docs" / "export.md"


def lines_of_the_docs():
    """The Python block that opens `model.safetensors` in the current folder."""
    blocks = [part.split("```")[0] for part in DOCS.read_text().split("```python\n")[1:]]
    (block,) = [block for block in blocks if "data_offsets" in block]
    return block


def run_the_lines_of_the_docs():
    """What they define: `card`, and `arrays` by name."""
    names = {}
    exec(compile(lines_of_the_docs(), str(DOCS), "exec"), names)
    return names
