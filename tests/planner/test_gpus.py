"""The description of a GPU that the compiler reads."""

import re

import pytest

from mtl_face.planner import chips, gpus


@pytest.mark.parametrize("kind", chips.GPUS)
def test_description_agrees_with_the_published_peaks(kind):
    """A wrong number of units or clock shows in the peak of float32, which data sheets state."""
    text = gpus.target_config(kind)
    values = dict(re.findall(r"(\w+): \"?([\w. -]+)", text))
    chip = chips.CHIPS[kind]
    assert chips.of_device(values["name"]) == chip
    assert int(values["memory_bandwidth"]) == chip.memory_bandwidth
    assert int(values["device_memory_size"]) == chip.memory_bytes
    peak = 2 * int(values["core_count"]) * int(values["fpus_per_core"])
    peak *= float(values["clock_rate_ghz"]) * 1e9
    published = {"a100": 19.5e12, "h100": 67e12, "h200": 67e12}[kind]
    assert peak == pytest.approx(published, rel=0.01)
    assert text.count("{") == text.count("}")
