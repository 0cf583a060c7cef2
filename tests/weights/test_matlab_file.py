"""MATLAB's files without a network."""

import numpy as np
import scipy.io
from weight_faults import problem_of


def test_other_matlab(path):
    with path.open("wb") as file:
        scipy.io.savemat(file, {"x": np.ones(3)})
    assert problem_of(path).startswith("is a MATLAB file without the `params`")
