"""The columns of a table that come of a network's outputs."""

import numpy as np
import pytest

from mtl_face.inference.columns import EPISTEMIC, output_sizes, table_columns
from mtl_face.tasks import OUTPUT_SIZES, VA_LOG_VARIANCE

BATCH = 8
TEMPERATURES = {"va": 0.2, "au": 1.5, "expr": 3.0}
DIVISORS = {"au": 2.0, "expr": 5.0}


def outputs_of(rng, *names):
    sizes = output_sizes(va_variance=True, sampled=True)
    return {name: rng.uniform(0.1, 1, (BATCH, sizes[name])).astype(np.float32) for name in names}


@pytest.mark.parametrize("kind", ["fixed", "learned", "likelihood"])
def test_columns_of_one_network(kind):
    outputs = outputs_of(np.random.default_rng(0), *OUTPUT_SIZES)
    columns = table_columns(outputs, kind=kind, temperatures=TEMPERATURES, divisors=DIVISORS)
    np.testing.assert_allclose(columns["au_logits"] * 2.0, outputs["au"])
    np.testing.assert_allclose(columns["expression_logits"] * 5.0, outputs["expr"])
    np.testing.assert_array_equal(columns["arousal"], outputs["va"][:, 1])
    if kind == "fixed":
        assert "valence_std" not in columns
    else:
        np.testing.assert_allclose(columns["valence_std"], np.sqrt(0.2))
    assert not any("epistemic" in name for name in columns)


def test_total_is_aleatoric_and_epistemic():
    names = (*OUTPUT_SIZES, VA_LOG_VARIANCE, *EPISTEMIC.values())
    outputs = outputs_of(np.random.default_rng(1), *names)
    columns = table_columns(outputs, kind="fixed", temperatures=TEMPERATURES, divisors=DIVISORS)
    aleatoric = np.sqrt(TEMPERATURES["va"] * np.exp(outputs[VA_LOG_VARIANCE])[:, 1])
    epistemic = outputs[EPISTEMIC["va"]][:, 1]
    np.testing.assert_allclose(columns["arousal_std"], np.hypot(aleatoric, epistemic), rtol=1e-6)
    np.testing.assert_array_equal(columns["arousal_epistemic_std"], epistemic)
    np.testing.assert_array_equal(columns["au_epistemic_std"], outputs[EPISTEMIC["au"]])
