"""Published peaks by the names that JAX gives to devices, and the names of slices."""

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
        "NVIDIA A100-SXM4-80GB": "a100",
        "NVIDIA H200": "h200",
    }
    for device_kind, name in names.items():
        assert chips.of_device(device_kind).name == name
    assert chips.of_device("cpu") is None


def test_peaks_are_plausible():
    """One wrong power of ten shows in the ratios, which differ little between these chips."""
    for chip in chips.CHIPS.values():
        assert 100 < chip.bfloat16_flops / chip.memory_bandwidth < 600
        assert 4 < chip.memory_bandwidth / chip.link_bandwidth < 11
        assert chip.flops("float32") <= chip.flops("bfloat16")
        assert chip.source
        if chip.name in chips.GPUS:
            assert 8 < chip.link_bandwidth / chip.network_bandwidth < 13


@pytest.mark.parametrize(
    "name",
    ["local", "v5e:4x4", "v5p:2x2x4", "v4:2x2x1", "v6e:16x16", "h100:8", "a100:1", "h200:16x8"],
)
def test_known_topologies(name):
    chips.check_topology(name)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("h100:8", ("h100", 1, 8)),
        ("a100:2x4", ("a100", 2, 4)),
        ("v5e:4x4", None),
        ("local", None),
    ],
)
def test_hosts_and_gpus(name, expected):
    assert chips.gpu_topology(name) == expected


@pytest.mark.parametrize(
    "name", ["v5e:1x1", "v5e", "v5p:4x4", "h100", "v7:2x2", "", "h100:0", "h100:2x", "b100:8"]
)
def test_unknown_topologies_get_the_list(name):
    with pytest.raises(ConfigError) as error:
        chips.check_topology(name)
    for known in ("v5e: 2x2, 2x4", "v5p: 2x2x1", "v6e:", "v4:"):
        assert known in error.value.remedy
    assert "local" in error.value.remedy
    assert "h100:2x8" in error.value.remedy
