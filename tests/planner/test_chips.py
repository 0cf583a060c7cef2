"""Published peaks by the names that JAX gives to devices, and the names of slices."""

import dataclasses

import pytest

from mtl_face.errors import ConfigError
from mtl_face.planner import chips


def test_chips_by_the_name_that_jax_gives_them():
    names = {
        "TPU v4": "v4",
        "TPU v5 lite": "v5e",
        "TPU v5": "v5p",
        "TPU v5p": "v5p",
        "TPU v6 lite": "v6e",
        "NVIDIA H100 80GB HBM3": "h100",
    }
    for device_kind, name in names.items():
        assert chips.of_device(device_kind).name == name
    assert chips.of_device("cpu") is None


def test_peaks_are_plausible():
    """One wrong power of ten shows in the ratios, which differ little between these chips."""
    for chip in chips.CHIPS.values():
        assert 100 < chip.bfloat16_flops / chip.memory_bandwidth < 600
        assert 4 < chip.memory_bandwidth / chip.link_bandwidth < 8
        assert chip.flops("float32") <= chip.flops("bfloat16")
        assert dataclasses.astuple(chip)[-1]


@pytest.mark.parametrize("name", ["local", "v5e:4x4", "v5p:2x2x4", "v4:2x2x1", "v6e:16x16"])
def test_known_topologies(name):
    chips.check_topology(name)


@pytest.mark.parametrize("name", ["v5e:1x1", "v5e", "v5p:4x4", "h100", "v7:2x2", ""])
def test_unknown_topologies_get_the_list(name):
    with pytest.raises(ConfigError) as error:
        chips.check_topology(name)
    for known in ("v5e: 2x2, 2x4", "v5p: 2x2x1", "v6e:", "v4:"):
        assert known in error.value.remedy
    assert "local" in error.value.remedy
