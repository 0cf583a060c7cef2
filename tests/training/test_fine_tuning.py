"""What frozen stages and the modes of batch norm do to parameters, statistics and traffic."""

import functools

import compiled_traffic
import jax
import numpy as np
import pytest
import tiny_network
from fine_tuning_run import MOMENTUM, by_name, first_variables, run, size

BATCH = pytest.param("batch", marks=pytest.mark.slow)
LOGGED = 3
"""Numbers that a step reduces beside the denominator of its loss: loss, `va` and its weight."""

frozen_at_one = functools.partial(run, "local", stage_sizes=(1, 1), frozen_stages=1)
FROZEN = ("backbone/conv1/", "backbone/bn1/", "backbone/stage1_block1/")


def is_frozen(name):
    return name.startswith(FROZEN)


@pytest.mark.parametrize("mode", [BATCH, "local", "frozen"])
def test_everything_trains_but_frozen_statistics(mode):
    first, ((params, statistics, _), _), _ = run(mode)
    before = by_name(first.params["network"])
    for name, leaf in by_name(params).items():
        assert np.abs(leaf - before[name]).max() > 1e-6, name
    before = by_name(first.batch_stats)
    for name, leaf in by_name(statistics).items():
        if mode == "frozen":
            np.testing.assert_array_equal(leaf, before[name], err_msg=name)
        else:
            assert np.abs(leaf - before[name]).max() > 1e-6, name


def test_frozen_stages_do_not_change_at_all():
    """Parameters and statistics are the same bits, and AdamW holds no moments for them."""
    first, ((params, statistics, opt_state), _), _ = frozen_at_one()
    before, after = by_name(first.params["network"]), by_name(params)
    assert any(map(is_frozen, before))
    for name, leaf in after.items():
        if is_frozen(name):
            np.testing.assert_array_equal(leaf, before[name], err_msg=name)
        else:
            assert np.abs(leaf - before[name]).max() > 1e-6, name
    before_statistics = by_name(first.batch_stats)
    for name, leaf in by_name(statistics).items():
        if is_frozen(name):
            np.testing.assert_array_equal(leaf, before_statistics[name], err_msg=name)
        else:
            assert np.abs(leaf - before_statistics[name]).max() > 1e-6, name

    training = sum(leaf.size for name, leaf in before.items() if not is_frozen(name))
    counters = sum(leaf.size == 1 for leaf in jax.tree.leaves(opt_state))
    assert size(opt_state) == 2 * training + counters
    assert counters < 10


def test_frozen_stages_have_no_backward_pass():
    sources = {
        part
        for operation in compiled_traffic.operations(frozen_at_one()[2]).values()
        for part in ("conv1", "stage1_block1", "stage2_block1")
        if "transpose(jvp" in operation.source and f"/backbone/{part}/" in operation.source
    }
    assert sources == {"stage2_block1"}


def stem_groups(groups):
    """What the stem's batch norm meets in the first step, [groups, pixels of a group, C]."""
    image_BHWC = (tiny_network.batch(0)["image"].astype(np.float32) - 128) / 64
    stem_BHWC = jax.lax.conv_general_dilated(
        image_BHWC,
        first_variables()["params"]["backbone"]["conv1"]["kernel"],
        (2, 2),
        ((3, 3), (3, 3)),
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )
    return np.asarray(stem_BHWC, np.float64).reshape(groups, -1, stem_BHWC.shape[-1])


@pytest.mark.parametrize(
    ("mode", "groups"), [pytest.param("batch", 1, marks=pytest.mark.slow), ("local", 8)]
)
def test_running_statistics_are_means_over_the_devices(mode, groups):
    """`local`: of the eight devices' own; `batch`: of the one global batch. After one step."""
    first, (_, _), _ = run(mode)
    _, ((_, statistics, _), _), _ = run(mode, steps=1)
    stem_GNC = stem_groups(groups)
    for name, value_GC in (("mean", stem_GNC.mean(1)), ("var", stem_GNC.var(1))):
        before = first.batch_stats["backbone"]["bn1"][name]
        expected = MOMENTUM * before + (1 - MOMENTUM) * value_GC.mean(0)
        np.testing.assert_allclose(statistics["backbone"]["bn1"][name], expected, rtol=1e-4)


@pytest.mark.slow
def test_batch_exchanges_in_every_layer():
    """So the count below has eyes: all convolutions but the first wait for other devices."""
    waits = compiled_traffic.forward_convolutions(run("batch")[2])
    assert len(waits) == 5
    assert sorted(waits.values()) == [False, True, True, True, True]
    assert len(compiled_traffic.collectives(run("batch")[2])) > 5


@pytest.mark.parametrize(
    ("mode", "statistics"), [("local", True), ("frozen", False)], ids=["local", "frozen"]
)
def test_no_layer_waits_for_another_device(mode, statistics):
    """What is left: one scalar, then gradients, logged numbers and running statistics."""
    first, _, text = run(mode)
    waits = compiled_traffic.forward_convolutions(text)
    assert len(waits) == 5
    assert not any(waits.values())
    exchanges = compiled_traffic.collectives(text)
    assert {operation.kind for operation in exchanges} == {"all-reduce"}
    assert exchanges[0].sizes == (1,)
    expected = size(first.params) + LOGGED + statistics * size(first.batch_stats)
    assert sum(sum(operation.sizes) for operation in exchanges[1:]) == expected


def test_frozen_gradients_are_not_exchanged():
    first, _, text = frozen_at_one()
    assert not any(compiled_traffic.forward_convolutions(text).values())
    exchanges = compiled_traffic.collectives(text)
    assert exchanges[0].sizes == (1,)
    training = sum(
        leaf.size
        for tree in (first.params["network"], first.batch_stats)
        for name, leaf in by_name(tree).items()
        if not is_frozen(name)
    )
    assert sum(sum(operation.sizes) for operation in exchanges[1:]) == training + LOGGED


@pytest.mark.slow
@pytest.mark.parametrize("devices", [1, 2, 4])
def test_local_means_the_same_on_any_number_of_devices(devices):
    """The groups decide, not the devices: eight groups on eight devices, and on fewer."""
    _, ((params, statistics, _), numbers), _ = run("local")
    _, ((other_params, other_statistics, _), other_numbers), _ = run("local", devices=devices)
    for row, other in zip(numbers, other_numbers, strict=True):
        assert row.keys() == other.keys()
        for name in row:
            np.testing.assert_allclose(row[name], other[name], rtol=1e-4, err_msg=name)
    for tree, other_tree in ((params, other_params), (statistics, other_statistics)):
        other = by_name(other_tree)
        for name, leaf in by_name(tree).items():
            np.testing.assert_allclose(leaf, other[name], rtol=1e-3, atol=1e-4, err_msg=name)


@pytest.mark.slow
def test_local_statistics_add_no_traffic_to_split_parameters():
    """With a kernel split over `fsdp`: what waits, waits for the kernel, as with `frozen`."""
    local, frozen = (run(mode, fsdp=2, width=64)[2] for mode in ("local", "frozen"))

    def gathered(text):
        return [o.sizes for o in compiled_traffic.collectives(text) if o.kind != "all-reduce"]

    assert gathered(local) == gathered(frozen)
    assert len(gathered(local)) > 0
    waits = compiled_traffic.forward_convolutions(local)
    assert waits == compiled_traffic.forward_convolutions(frozen)
    assert not waits["jit(step)/jvp(SmallResNet)/backbone/stage1_block1/conv1/conv_general_dilated"]
