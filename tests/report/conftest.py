"""Drawings of the pages, or none."""

import pytest
from markupsafe import Markup

from mtl_face.report import curves, figures, reliability
from mtl_face.report.page import printable


@pytest.fixture
def real_drawings():
    """Asked for by a test that looks at the drawings."""


@pytest.fixture
def quick(request, monkeypatch):
    """Leaves the drawings empty: they take most of the time, and have tests of their own."""

    def empty(axes, *, identifier, description):
        return Markup('<svg role="img" aria-label="{}"></svg>').format(printable(description))

    if "real_drawings" not in request.fixturenames:
        for module in (curves, figures, reliability):
            monkeypatch.setattr(module, "to_svg", empty)
