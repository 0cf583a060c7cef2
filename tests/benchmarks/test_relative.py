"""The comparison of answers by themselves and beside the person at rest, on drawn points."""

import numpy as np
import pytest
from smile_network import Smile, face

from benchmarks import relative


class Finder:
    """Sees a smile where a picture is light."""

    def __call__(self, picture):
        return [face(1, np.asarray(picture).mean() / 255)]

    def find(self, pictures):
        return [self(picture) for picture in pictures]


@pytest.fixture
def drawn(monkeypatch):
    def head(seed, *, units=None, **pose):
        return np.full((8, 8, 3), round(255 * (units or {}).get(12, 0)), np.uint8), None

    monkeypatch.setattr(relative, "head", head)
    monkeypatch.setattr(relative, "FaceFinder", Finder)


def test_what_each_way_makes_of_a_smile(drawn):
    """The person of these points looks as if smiling a little, by 0.3."""
    found = relative.measure(Smile(), persons=2, repeats=2)
    mean_smile = np.mean([shot.intensity for shot in relative.smiling(8)])
    by_itself = found["by itself"]["valence"]
    assert by_itself == pytest.approx(mean_smile + 0.3, abs=0.05)
    assert found["all frames"]["valence"] == pytest.approx(by_itself, abs=0.05)
    assert found["earlier frames"]["valence"] == pytest.approx(by_itself, abs=0.05)
    assert found["neutral picture"]["valence"] == pytest.approx(mean_smile, abs=0.05)
    # what the rule is for: the plain mean takes the smile out
    assert found["plain mean"]["valence"] < 0.3 * by_itself
    assert all(0 <= numbers["expression_f1"] <= 1 for numbers in found.values())


def test_acts_are_made_of_known_units():
    names = {shot.expression for shot in relative.acting(2)}
    assert names == set(relative.ACTS)
    assert relative.acting(3)[-1] == relative.Shot("Neutral", 0.0)
