"""A small export of each form."""

import pytest
from export_cases import make_card, make_variables

from mtl_face.weights import export


@pytest.fixture(params=export.FORMATS)
def form(request):
    return request.param


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "export"


@pytest.fixture
def exported(folder, form):
    export.save(folder, make_variables(), make_card(), form=form)
    return folder
