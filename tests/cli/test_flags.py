"""What the texts of flags mean."""

import pytest

from mtl_face.cli import flags
from mtl_face.errors import ConfigError


def test_windows_in_words():
    assert flags.windows_by_task("30") == {"va": 30, "au": 30, "expr": 30}
    assert flags.windows_by_task("va:10, expr:2.5") == {"va": 10, "expr": 2.5}
    for text in ("", "va", "va:", "va:1,va:2", "1,2", "va:1,2", "faces:3"):
        with pytest.raises(ConfigError, match="no window"):
            flags.windows_by_task(text)
