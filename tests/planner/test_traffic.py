"""What devices exchange, and what stays on a chip, read from the texts of compiled programs."""

import jax
import jax.numpy as jnp
import pytest
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from mtl_face.planner import hlo, traffic
from mtl_face.training import sharding

SUM = """
%add (a: f32[], b: f32[]) -> f32[] {
  %a = f32[] parameter(0)
  %b = f32[] parameter(1)
  ROOT %sum = f32[] add(%a, %b)
}
"""


def module(body, before=""):
    text = "HloModule jit_step, is_scheduled=true\n" + SUM + before
    lines = "\n".join(f"  {line}" for line in body)
    return hlo.parse(text + "\nENTRY %main (x: f32[8]) -> f32[8] {\n" + lines + "\n}\n")


def only(body, before="", num_devices=8):
    (found,) = traffic.collectives(module(body, before), num_devices)
    return found


def elements(found):
    return [(array.dtype, array.elements) for array in found.arrays]


def test_merged_all_reduce():
    found = only(
        [
            "%x = f32[8]{0} parameter(0)",
            "%r = (bf16[7,7,3,24]{3,2,1,0:T(4,128)(2,1)}, /*index=1*/f32[24]{0:T(128)}) "
            "all-reduce(%x, %x), channel_id=2, replica_groups={{0,1,2,3},{4,5,6,7}}, "
            'to_apply=%add, metadata={op_name="jit(f)/transpose(jvp(Net))/conv1/dot_general"}',
        ]
    )
    assert found.kind == "all-reduce"
    assert elements(found) == [("bf16", 7 * 7 * 3 * 24), ("f32", 24)]
    assert found.nbytes == 2 * 7 * 7 * 3 * 24 + 4 * 24
    assert found.group_size == 4
    assert found.phase == "backward"
    assert found.sent_bytes == 2 * 3 / 4 * found.nbytes


CONCATENATION = """
%wrapped_concatenate_computation (p.0: f32[1], p.1: f32[64], p.2: f32[64]) -> f32[129] {
  %p.0 = f32[1]{0} parameter(0)
  %p.1 = f32[64]{0} parameter(1)
  %p.2 = f32[64]{0} parameter(2)
  ROOT %concatenate.1 = f32[129]{0} concatenate(%p.0, %p.1, %p.2), dimensions={0}
}
"""


def test_arrays_that_a_gpus_compiler_put_into_one():
    found = only(
        [
            "%x = f32[64]{0} parameter(0)",
            "%one = f32[1]{0} parameter(1)",
            "%late = f32[64]{0} fusion(%x), calls=%f, "
            'metadata={op_name="jit(f)/transpose(jvp(Net))/bn1/reduce_sum"}',
            "%wrapped_concatenate = f32[129]{0} fusion(%one, %x, %late), kind=kLoop, "
            "calls=%wrapped_concatenate_computation",
            "%start = f32[129]{0} all-reduce-start(%wrapped_concatenate), channel_id=109, "
            "replica_groups=mesh['axis_0'=8] {'axis_0'}, to_apply=%add",
            "%done = f32[129]{0} all-reduce-done(%start)",
        ],
        before=CONCATENATION,
    )
    assert elements(found) == [("f32", 1), ("f32", 64), ("f32", 64)]
    assert (found.phase, found.group_size) == ("backward", 8)


def test_operands_among_the_results_count_once():
    """As jax 0.12 writes an exchange's start."""
    found = only(
        [
            "%x = f32[8]{0} parameter(0)",
            "%y = f32[4]{0} parameter(1)",
            "%start = ((f32[8]{0}, f32[4]{0}), (f32[8]{0}, f32[4]{0})) all-reduce-start(%x, %y), "
            "replica_groups={{0,1}}, to_apply=%add",
        ]
    )
    assert found.nbytes == 4 * 12


@pytest.mark.parametrize(
    ("groups", "size"),
    [
        ("replica_groups={{0,1},{2,3},{4,5},{6,7}}", 2),
        ("replica_groups=[2,4]<=[8]", 4),
        ("replica_groups=[4,2]<=[2,4]T(1,0)", 2),
        ("replica_groups=mesh['axis_0'=4,'axis_1'=2] {'axis_0'}", 4),
        ("replica_groups=mesh['axis_0'=4,'axis_1'=2] {'axis_0','axis_1'}", 8),
        ("replica_groups=mesh['axis_0'=2,'axis_1'=4], device_ids=([4,2]T(1,0)) {'axis_0'}", 2),
        ("replica_groups={}", 8),
        ("channel_id=1", 8),
    ],
)
def test_group_size(groups, size):
    assert traffic.group_size(f", channel_id=3, {groups}, use_global_device_ids=true", 8) == size


def test_what_scatters_and_gathers_is_counted_whole():
    scatter = only(
        ["%x = f32[64] parameter(0)", "%r = f32[8] reduce-scatter(%x), replica_groups=[1,8]<=[8]"]
    )
    assert (scatter.nbytes, scatter.sent_bytes) == (4 * 64, 7 / 8 * 4 * 64)
    gather = only(
        ["%x = f32[8] parameter(0)", "%r = f32[64] all-gather(%x), replica_groups=[1,8]<=[8]"]
    )
    assert (gather.nbytes, gather.sent_bytes) == (4 * 64, 7 / 8 * 4 * 64)


def test_an_exchange_in_two_halves_counts_once():
    body = [
        "%x = f32[8] parameter(0)",
        "%s = (f32[8], f32[64]) all-gather-start(%x), replica_groups=[1,8]<=[8]",
        "%r = f32[64] all-gather-done(%s)",
        "%p = (f32[64], f32[64], u32[], u32[]) collective-permute-start(%r), "
        "source_target_pairs={{0,1}}",
        "%q = f32[64] collective-permute-done(%p)",
    ]
    found = traffic.collectives(module(body), 8)
    assert [(item.kind, item.nbytes) for item in found] == [
        ("all-gather", 256),
        ("collective-permute", 256),
    ]


def test_an_exchange_in_a_loop_counts_as_often_as_it_is_made():
    body = """
%body (s: f32[8]) -> f32[8] {
  %s = f32[8]{0} parameter(0)
  ROOT %r = f32[8]{0} all-reduce(%s), replica_groups=[1,8]<=[8], to_apply=%add
}
%condition (s: f32[8]) -> pred[] {
  %s = f32[8]{0} parameter(0)
  ROOT %t = pred[] constant(true)
}
%never (s: f32[8]) -> f32[8] {
  %s = f32[8]{0} parameter(0)
  ROOT %r = f32[8]{0} all-reduce(%s), replica_groups=[1,8]<=[8], to_apply=%add
}
"""
    loop = "%w = f32[8]{0} while(%x), condition=%condition, body=%body"
    found = only(
        [
            "%x = f32[8] parameter(0)",
            loop + ', backend_config={"known_trip_count":{"n":"5"}}',
        ],
        before=body,
    )
    assert found.count == 5
    assert found.sent_bytes == 5 * 2 * 7 / 8 * 32
    assert only(["%x = f32[8] parameter(0)", loop], before=body).count == 1
    counted = body.replace(
        "ROOT %t = pred[] constant(true)",
        "%n = s32[]{:T(128)} constant(7)\n"
        "  %i = s32[]{:T(128)} get-tuple-element(%s), index=0\n"
        "  ROOT %t = pred[] compare(%i, %n), direction=LT",
    )
    assert only(["%x = f32[8] parameter(0)", loop], before=counted).count == 7


def at(place):
    return 'metadata={op_name="jit(step)/' + place + '"}'


def test_what_the_forward_pass_waits_for():
    body = [
        "%x = f32[8] parameter(0)",
        f"%m = f32[8] all-reduce(%x), to_apply=%add, {at('jvp(Net)/bn1/reduce_sum')}",
        f"%c = f32[8] fusion(%m), kind=kOutput, {at('jvp(Net)/conv2/conv_general_dilated')}",
        f"%n = f32[8] all-reduce(%x), to_apply=%add, {at('jvp()/reduce_sum')}",
        f"%g = f32[8] negate(%n), {at('transpose(jvp())/neg')}",
        # Fused with a part of the backward pass, and named after the forward pass.
        f"%h = f32[8] fusion(%g), kind=kOutput, {at('jvp(Net)/head/dot_general')}",
        # A library's call bears its own name, whatever it depends on does.
        f"%o = f32[8] all-reduce(%g), to_apply=%add, {at('jvp(Net)/bn2/reduce_sum')}",
        '%l = f32[8] custom-call(%o), custom_call_target="__cudnn$convForward", '
        f"{at('jvp(Net)/conv3/conv_general_dilated')}",
        # The mean of running statistics goes into the new state alone.
        f"%s = f32[8] all-reduce(%c), to_apply=%add, {at('jvp(Net)/bn1/reduce_mean')}",
    ]
    found = traffic.collectives(module(body), 8)
    assert [item.awaited for item in found] == [True, True, True, False]


def test_gradients_are_told_from_statistics_by_their_sizes():
    body = [
        "%x = f32[8] parameter(0)",
        f"%m = f32[24] all-reduce(%x), to_apply=%add, {at('jvp(Net)/bn1/reduce_sum')}",
        f"%b = f32[24] all-reduce(%x), to_apply=%add, {at('transpose(jvp(Net))/bn1/reduce_sum')}",
        "%g = (f32[3,3,8,24], f32[24], f32[]) all-reduce(%x, %x, %x), to_apply=%add, "
        + at("transpose(jvp(Net))/conv1/conv_general_dilated"),
        "%r = f32[100] reduce-scatter(%x), replica_groups=[2,4]<=[8], "
        + at("transpose(jvp(Net))/dense/dot_general"),
    ]
    found = traffic.collectives(module(body), 8)
    split, missing = traffic.split_gradients(found, [3 * 3 * 8 * 24, 24, 400, 17])
    assert [size for _, size in split] == [0, 0, 4 * (3 * 3 * 8 * 24 + 24), 1600]
    assert missing == 17


def test_rows_of_a_kernel_make_one_gradient():
    body = ["%x = f32[8] parameter(0)"] + [
        f"%g{row} = f32[24,8] all-reduce(%x), to_apply=%add, {at('transpose(jvp(N))/dot_general')}"
        for row in range(4)
    ]
    split, missing = traffic.split_gradients(traffic.collectives(module(body), 8), [3 * 24 * 8])
    assert [size for _, size in split] == [768, 768, 768, 0]
    assert missing == 0


@pytest.fixture(scope="module")
def compiled_text():
    """A product over a split axis, in a loop of four, and a mean over the batch, on 8 devices."""
    mesh = sharding.make_mesh(data=4, fsdp=2)
    batch = jax.ShapeDtypeStruct((16, 32), jnp.float32, sharding=sharding.by_example(mesh))
    kernel = jax.ShapeDtypeStruct((32, 32), jnp.float32, sharding=NamedSharding(mesh, P("fsdp")))

    def step(batch_BD, kernel_DD):
        def layer(carry_BD, _):
            carry_BD = jnp.tanh(carry_BD @ kernel_DD)
            return carry_BD - jnp.mean(carry_BD, axis=0, keepdims=True), None

        return jax.lax.scan(layer, batch_BD, length=4)[0].mean()

    lowered = jax.jit(step, out_shardings=sharding.replicated(mesh)).lower(batch, kernel)
    return lowered.compile().as_text()


def test_a_program_of_this_compiler(compiled_text):
    found = traffic.collectives(hlo.parse(compiled_text), 8)
    rows = [
        (item.kind, item.nbytes, item.group_size, item.count)
        for item in found
        if item.kind == "all-reduce"
    ]
    assert sorted(rows) == [("all-reduce", 4, 8, 1), ("all-reduce", 128, 8, 4)]
    gathered = [item for item in found if item.kind == "all-gather"]
    assert {(item.nbytes, item.group_size) for item in gathered} == {(32 * 32 * 4, 2)}


LARGE, NEAR = "{1,0:T(8,128)(2,1)}", "{1,0:T(8,128)(2,1)S(1)}"
TILES = 2 * 16 * 128  # bytes of bf16[10,100] in whole tiles of 8 by 128
PREFETCH = f"""\
  %a = bf16[10,100]{LARGE} parameter(0)
  %s = (bf16[10,100]{NEAR}, bf16[10,100]{LARGE}, u32[]{{:S(2)}}) copy-start(%a)
  %d = bf16[10,100]{NEAR} copy-done(%s)
"""


def on_chip(body, before=""):
    text = f"HloModule jit_step\n{before}\nENTRY %main (a: bf16[10,100]) -> f32[8] {{\n{body}}}\n"
    return traffic.on_chip_bytes(hlo.parse(text))


def test_nothing_is_marked():
    body = f"  %a = bf16[10,100]{LARGE} parameter(0)\n  %b = f32[8] fusion(%a), kind=kLoop\n"
    assert on_chip(body) == on_chip(body.replace(LARGE, "")) == 0


def test_a_copy_to_the_chip_and_its_use():
    assert on_chip(PREFETCH) == TILES  # written there; read from the large memory
    use = "  %f = f32[8]{0:T(256)} fusion(%d, %a), kind=kLoop\n"
    assert on_chip(PREFETCH + use) == 2 * TILES
    result = "  %f = f32[8]{0:T(256)S(1)} fusion(%d, %a), kind=kLoop\n"
    assert on_chip(PREFETCH + result) == 2 * TILES + 4 * 256


def test_parts_of_a_tuple():
    body = PREFETCH + (
        f"  %f = (bf16[10,100]{NEAR}, bf16[10,100]{LARGE}) fusion(%d, %d), kind=kLoop\n"
        f"  %g = bf16[10,100]{NEAR} get-tuple-element(%f), index=0\n"
        f"  %h = bf16[10,100]{LARGE} get-tuple-element(%f), index=1\n"
        "  %i = f32[8] fusion(%g, %h), kind=kLoop\n"
    )
    assert on_chip(body) == TILES + (2 + 1) * TILES + TILES


@pytest.mark.parametrize(
    ("source", "target", "expected"),
    [(LARGE, NEAR, TILES), (NEAR, LARGE, TILES), (NEAR, NEAR, 2 * TILES), (LARGE, LARGE, 0)],
)
def test_a_slice_reads_no_more_than_it_writes(source, target, expected):
    body = (
        f"  %a = bf16[40,100]{source} parameter(0)\n"
        f"  %s = ((bf16[40,100]{source}), bf16[10,100]{target}, s32[]{{:S(2)}}) slice-start(%a)\n"
        f"  %d = bf16[10,100]{target} slice-done(%s)\n"
    )
    assert on_chip(body) == expected


def test_loops_count_once_and_the_inside_of_a_fusion_never():
    near = f"bf16[10,100]{NEAR}"
    before = f"""
%fused (p: bf16[10,100]) -> bf16[10,100] {{
  %p = {near} parameter(0)
  ROOT %n = {near} negate(%p)
}}
%body (p: bf16[10,100]) -> bf16[10,100] {{
  %p = {near} parameter(0)
  ROOT %n = {near} fusion(%p), kind=kLoop, calls=%fused
}}
%condition (p: bf16[10,100]) -> pred[] {{
  %p = {near} parameter(0)
  ROOT %t = pred[] constant(true)
}}
"""
    body = (
        f"  %a = {near} parameter(0)\n  %w = {near} while(%a), condition=%condition, body=%body\n"
    )
    assert on_chip(body, before) == 2 * TILES
