"""The plan's arithmetic on figures that are worked out by hand, and the search for a batch."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mtl_face.planner import chips, estimate, hlo
from mtl_face.planner.flops import Flops

CHIP = chips.Chip(
    name="toy",
    device_kind="Toy",
    bfloat16_flops=100e12,
    float32_flops=50e12,
    memory_bytes=1000,
    memory_bandwidth=1e12,
    link_bandwidth=10e9,
    source="this test",
)

COMPILED = {
    "platform": "tpu",
    "devices": 8,
    "chips": 4,
    "hosts": 2,
    "arguments": {"parameters": 40, "optimizer": 80, "statistics": 4, "batch": 16, "other": 12},
    "memory": {"arguments": 160, "output": 130, "alias": 124, "temporaries": 200, "code": 14},
    "flops": 1000.0,
    "bytes_accessed": 400.0,
    "parameter_sizes": [6, 4],
    "shards": 1,
}

TEXT = """HloModule jit_step

ENTRY %main (x: f32[8]) -> f32[8] {
  %x = f32[8] parameter(0)
  %s = f32[3] all-reduce(%x), metadata={op_name="jit(step)/jvp(Net)/bn1/reduce_sum"}
  %c = f32[8] fusion(%s), metadata={op_name="jit(step)/jvp(Net)/conv2/conv_general_dilated"}
  %g = (f32[6], f32[4]) all-reduce(%c, %c), metadata={op_name="jit(step)/transpose(jvp(Net))/dot"}
}
"""


def analysed(compiled=COMPILED, text=TEXT, **more):
    arguments = {
        "batch_size": 80,
        "chip": CHIP,
        "compute_dtype": "bfloat16",
        "analytical": Flops(30, 90),
        **more,
    }
    return estimate.analyse(compiled, hlo.parse(text), **arguments)


def test_memory_of_a_chip_of_two_devices():
    rows = estimate.memory(COMPILED, CHIP, devices_per_chip=2)
    assert rows == {
        "parameters": 80,
        "optimizer": 160,
        "statistics": 8,
        "batch": 32,
        "padding": 40,
        "output": 12,
        "temporaries": 400,
        "code": 28,
        "total": 760,
        "needed": 760,
        "capacity": 1000,
        "share": 0.76,
    }
    unknown = estimate.memory(COMPILED, None, devices_per_chip=1)
    assert (unknown["total"], unknown["capacity"], unknown["share"]) == (380, None, None)


def test_a_gpu_needs_its_peak():
    compiled = COMPILED | {"platform": "gpu", "memory": COMPILED["memory"] | {"peak": 300}}
    rows = estimate.memory(compiled, CHIP, devices_per_chip=1)
    assert (rows["total"], rows["needed"], rows["share"]) == (380, 300, 0.3)


PRODUCT = """HloModule jit_step

ENTRY %main (x: bf16[8,4]) -> bf16[8,16] {
  %x = bf16[8,4] parameter(0)
  %k = bf16[4,16] parameter(1)
  ROOT %p = (bf16[8,16], s8[99]) custom-call(%x, %k), custom_call_target="__cublas$lt$matmul", \
backend_config={"lhs_contracting_dimensions":["1"]}
}
"""


def test_of_a_gpu_what_libraries_do_is_added():
    compiled = COMPILED | {"platform": "gpu", "memory": COMPILED["memory"] | {"peak": 300}}
    found = analysed(compiled, PRODUCT)
    assert found["arithmetic"]["flops_per_image"] == (1000 + 2 * 8 * 16 * 4) / 10
    assert found["arithmetic"]["hbm_bytes_per_image"] == 2 * (8 * 4 + 4 * 16 + 8 * 16) / 10
    assert found["program"]["libraries"][0]["count"] == 1


def test_figures_of_an_image():
    found = analysed()
    assert found["images_per_chip"] == 20
    arithmetic = found["arithmetic"]
    assert arithmetic["flops_per_image"] == 100
    assert arithmetic["ratio"] == pytest.approx(100 / 90)
    assert arithmetic["hbm_bytes_per_image"] == 40
    assert arithmetic["on_chip_bytes_per_image"] == 0
    assert arithmetic["loops"] == []


def test_what_stays_on_the_chip_is_no_traffic():
    text = TEXT.replace("%c = f32[8] fusion", "%c = f32[8]{0:S(1)} fusion")
    found = analysed(text=text)
    # written once, and read twice by the all-reduce
    assert found["arithmetic"]["on_chip_bytes_per_image"] == 3 * 32 / 10
    assert found["arithmetic"]["hbm_bytes_per_image"] == (400 - 3 * 32) / 10
    assert found["roofline"]["memory"] == pytest.approx(2 * (400 - 96) / 1e12)


def test_exchanges_by_role():
    found = analysed()
    rows = {row["role"]: row for row in found["collectives"]}
    assert set(rows) == {"gradients", "statistics"}
    assert rows["gradients"]["bytes"] == found["gradients"]["bytes"] == 40
    assert found["gradients"]["expected_bytes"] == 40
    assert found["gradients"]["missing_elements"] == 0
    assert found["gradients"]["dtypes"] == ["f32"]
    assert rows["statistics"]["awaited_by_forward"]
    assert found["forward"] == {"count": 1, "bytes": 12}
    assert found["not_gradients"] == {"bytes": 12, "largest": 12}
    assert found["sent_bytes"] == 2 * 7 / 8 * (40 + 12)


@pytest.mark.parametrize(
    ("flops", "hbm_bytes", "sent_bytes", "bound", "step"),
    [
        (100e12, 0.5e12, 5e9, "arithmetic", 1.0),
        (100e12, 2e12, 5e9, "memory", 2.0),
        (100e12, 2e12, 30e9, "links", 3.0),
    ],
)
def test_roofline(flops, hbm_bytes, sent_bytes, bound, step):
    found = estimate.roofline(
        flops=flops,
        hbm_bytes=hbm_bytes,
        sent_bytes=sent_bytes,
        batch_size=600,
        hosts=4,
        chip=CHIP,
        compute_dtype="bfloat16",
    )
    assert found["bound"] == bound
    assert found["step"] == pytest.approx(step)
    assert found["images_per_second"] == pytest.approx(600 / step)
    assert found["images_per_second_per_host"] == pytest.approx(150 / step)
    longest = max(found["arithmetic"], found["memory"])
    assert found["without_overlap"] == pytest.approx(longest + found["links"])


def test_the_peak_is_that_of_the_compute_dtype():
    arguments = {
        "flops": 100e12,
        "hbm_bytes": 0.0,
        "sent_bytes": 0.0,
        "batch_size": 1,
        "hosts": 1,
        "chip": CHIP,
    }
    assert estimate.roofline(**arguments, compute_dtype="bfloat16")["step"] == 1
    assert estimate.roofline(**arguments, compute_dtype="float32")["step"] == 2


def test_no_chip_no_roofline():
    assert analysed(chip=None)["roofline"] is None


LOOPS = """HloModule jit_step

%body (s: f32[8]) -> f32[8] {
  %s = f32[8] parameter(0)
  ROOT %r = f32[8] fusion(%s), metadata={op_name="jit(step)/while/body/dot_general"}
}
%draw (s: f32[8]) -> f32[8] {
  %s = f32[8] parameter(0)
  ROOT %r = f32[8] add(%s, %s), metadata={op_name="jit(step)/threefry/while/body/add"}
}
ENTRY %main (x: f32[8]) -> f32[8] {
  %x = f32[8] parameter(0)
  %d = f32[8] while(%x), body=%draw, backend_config={"known_trip_count":{"n":"5"}}
  ROOT %w = f32[8] while(%d), body=%body, backend_config={"known_trip_count":{"n":"4"}}
}
"""


def test_loops_with_products_are_named():
    assert estimate.uncounted_loops(hlo.parse(LOOPS)) == [4]


def test_arithmetic_of_loops_is_that_of_the_closed_form():
    found = estimate.analyse(
        COMPILED,
        hlo.parse(LOOPS),
        batch_size=80,
        chip=CHIP,
        compute_dtype="bfloat16",
        analytical=Flops(100, 400),
    )
    assert found["arithmetic"]["loops"] == [4]
    assert found["arithmetic"]["ratio"] == 0.25
    assert found["roofline"]["arithmetic"] == pytest.approx(400 * 20 / 100e12)
    assert analysed(analytical=Flops(100, 400))["roofline"]["arithmetic"] == 100 * 20 / 100e12


@settings(deadline=None, derandomize=True, max_examples=200)
@given(
    slope=st.integers(1, 50),
    fixed=st.integers(0, 5000),
    refused=st.integers(1, 40),
    bend=st.integers(0, 30),
    unit=st.sampled_from([1, 8, 128]),
    first=st.integers(1, 30),
    compiles=st.integers(0, 8),
)
def test_search_tells_the_truth(slope, fixed, refused, bend, unit, first, compiles):
    """Whatever the curve, what is said to fit was compiled and fits, and costs no more compiles."""
    asked = []
    capacity = 20_000

    def bytes_of(batch):
        if batch > refused * unit * 10:
            return None
        return fixed + slope * batch + bend * max(batch - 20 * unit, 0)

    def needed(batch):
        asked.append(batch)
        return bytes_of(batch)

    found = estimate.largest_batch(
        needed,
        first=first * unit,
        first_needed=bytes_of(first * unit),
        fixed=fixed,
        capacity=capacity,
        unit=unit,
        compiles=compiles,
    )
    assert len(asked) <= compiles
    assert len(set(asked)) == len(asked)
    assert all(batch % unit == 0 and batch > 0 for batch in asked)
    assert found["tried"] == {batch: bytes_of(batch) for batch in sorted([first * unit, *asked])}
    for batch, taken in found["tried"].items():
        fits = taken is not None and taken <= capacity
        assert not fits or batch <= found["fits"]
        assert fits or batch >= found["too_large"]


def searched(bytes_of, first, **more):
    """What a search finds over a curve of bytes, and the batches that it asked for."""
    asked = []

    def needed(batch):
        asked.append(batch)
        return bytes_of(batch)

    found = estimate.largest_batch(
        needed, first=first, first_needed=bytes_of(first), fixed=1000, unit=64, **more
    )
    return found, asked


def test_search_on_a_line_ends_at_the_right_batch():
    found, asked = searched(lambda batch: 1000 + 7 * batch, 64, capacity=100_000, compiles=3)
    assert found["fits"] == (100_000 - 1000) // 7 // 64 * 64
    assert len(asked) == 1


def test_search_where_the_compiler_trades_time_for_memory():
    """From a batch on it needs hardly more memory, until it gives up: as seen of a real network."""
    limit = 20_000

    def bytes_of(batch):
        return None if batch > limit else min(1000 + 20 * batch, 100_000 + batch // 10)

    found, asked = searched(bytes_of, 1024, capacity=160_000, compiles=6)
    assert max(asked) < 1.3 * limit  # the line would lead to half a million
    assert found["fits"] <= limit < found["too_large"]
    assert found["too_large"] - found["fits"] < 0.1 * limit
