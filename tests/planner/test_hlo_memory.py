"""What stays in a chip's own memory, by sizes that are worked out by hand."""

import pytest

from mtl_face.planner import hlo, hlo_memory

LARGE, NEAR = "{1,0:T(8,128)(2,1)}", "{1,0:T(8,128)(2,1)S(1)}"
TILES = 2 * 16 * 128  # bytes of bf16[10,100] in whole tiles of 8 by 128
PREFETCH = f"""\
  %a = bf16[10,100]{LARGE} parameter(0)
  %s = (bf16[10,100]{NEAR}, bf16[10,100]{LARGE}, u32[]{{:S(2)}}) copy-start(%a)
  %d = bf16[10,100]{NEAR} copy-done(%s)
"""


def on_chip(body, before=""):
    text = f"HloModule jit_step\n{before}\nENTRY %main (a: bf16[10,100]) -> f32[8] {{\n{body}}}\n"
    return hlo_memory.on_chip_bytes(hlo.parse(text))


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
