"""Labels as a user has them, read from a temporary folder."""

import pytest

from data_pipeline.formats import layouts
from mtl_face.config.schema import ManifestConfig


@pytest.fixture
def read(tmp_path):
    """Reads text as a file, or what is there under a name: the table, and what was said."""

    def read_it(
        text=None, name="labels.csv", *, split="train", images=None, skipped=None, **settings
    ):
        path = tmp_path / name
        if text is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8", newline="")
        said = []
        table = layouts.read(
            path,
            ManifestConfig(**settings),
            split=split,
            image_root=images or "/images",
            dataset="d",
            say=said.append,
            skipped=skipped,
        )
        return table, said

    return read_it
