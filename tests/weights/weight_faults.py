"""How a small network is written in each format, and what is wrong with a file."""

import pytest
import weight_files
from weight_maps import SMALL_ARCHITECTURE

from mtl_face.errors import UserError, WeightsError
from mtl_face.weights import load_backbone

WRITERS = {
    "keras": weight_files.write_keras,
    "pickle": weight_files.write_numpy_pickle,
    "matlab": weight_files.write_matlab,
    "matlab 7.3": weight_files.write_matlab_7_3,
    "zip": lambda path, network: weight_files.write_torch(path, network.state_dict()),
    "legacy": lambda path, network: weight_files.write_torch(
        path, network.state_dict(), legacy=True
    ),
    "safetensors": lambda path, network: weight_files.write_safetensors(path, network.state_dict()),
}


def problem_of(path, **options):
    with pytest.raises(WeightsError) as raised:
        load_backbone(path, architecture=SMALL_ARCHITECTURE, **options)
    error = raised.value
    assert isinstance(error, UserError)
    assert error.remedy
    assert str(path) in str(error)
    assert "\n" not in error.problem
    assert len(error.problem) < 500
    return error.problem
