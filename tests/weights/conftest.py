"""Fixtures of small exports, and of a small network to be written as a file."""

import pytest
import reference_resnet
from export_cases import exported_folder, folder, form  # noqa: F401
from reference_resnet import SMALL


@pytest.fixture(scope="module")
def network():
    return reference_resnet.make("torchvision", SMALL, classes=1000)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "weights.h5"
