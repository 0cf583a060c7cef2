"""Library calls, transposes and traffic, read from lines that XLA wrote for an H100."""

import pytest

from mtl_face.planner import gpu_program, hlo

# Of the paper's network in bfloat16, 64 images a GPU, jax 0.10.2; without what is not read.
TEXT = """HloModule jit_guarded, is_scheduled=true

%fused_transpose (param_0: bf16[64,49,768]) -> bf16[64,12,64,49] {
  %param_0 = bf16[64,49,768]{2,1,0} parameter(0)
  %bitcast.1 = bf16[64,49,12,64]{3,2,1,0} bitcast(%param_0)
  ROOT %transpose.1 = bf16[64,12,64,49]{3,2,1,0} transpose(%bitcast.1), dimensions={0,2,3,1}, metadata={op_name="jit(guarded)/jvp(MtlFace)/encoder/layer1/attention/key/add"}
}

%fused_kernel (param_0: f32[3,3,512,512]) -> bf16[512,3,3,512] {
  %param_0 = f32[3,3,512,512]{3,2,1,0} parameter(0)
  %convert.1 = bf16[3,3,512,512]{3,2,1,0} convert(%param_0)
  ROOT %transpose.2 = bf16[512,3,3,512]{3,2,1,0} transpose(%convert.1), dimensions={3,0,1,2}
}

%wrapped_slice (param_0: f32[7838208]) -> f32[1024] {
  %param_0 = f32[7838208]{0} parameter(0)
  ROOT %slice.1 = f32[1024]{0} slice(%param_0), slice={[0:1024]}
}

ENTRY %main (param.1: bf16[64,56,56,64], param.2: bf16[256,1,1,64], param.3: f32[3,3,512,512], param.4: bf16[64,49,768], param.5: f32[7838208]) -> f32[1024] {
  %param.1 = bf16[64,56,56,64]{3,2,1,0} parameter(0)
  %param.2 = bf16[256,1,1,64]{3,2,1,0} parameter(1)
  %param.3 = f32[3,3,512,512]{3,2,1,0} parameter(2)
  %param.4 = bf16[64,49,768]{2,1,0} parameter(3)
  %param.5 = f32[7838208]{0} parameter(4)
  %cudnn-conv.1 = (bf16[64,56,56,256]{3,2,1,0}, u8[1024]{0}) custom-call(%param.1, %param.2), window={size=1x1}, dim_labels=b01f_o01i->b01f, custom_call_target="__cudnn$convForward", metadata={op_name="jit(guarded)/jvp(MtlFace)/backbone/stage1_block1/conv3/conv_general_dilated"}
  %gte.1 = bf16[64,56,56,256]{3,2,1,0} get-tuple-element(%cudnn-conv.1), index=0
  %cudnn-conv-bw-filter.1 = (bf16[256,1,1,64]{3,2,1,0}, u8[0]{0}) custom-call(%param.1, %gte.1), window={size=1x1}, dim_labels=b01f_o01i->b01f, custom_call_target="__cudnn$convBackwardFilter", metadata={op_name="jit(guarded)/transpose(jvp(MtlFace))/backbone/stage1_block1/conv3/conv_general_dilated"}
  %cudnn-conv-bw-input.1 = (bf16[64,56,56,64]{3,2,1,0}, u8[0]{0}) custom-call(%gte.1, %param.2), window={size=1x1}, dim_labels=b01f_o01i->b01f, custom_call_target="__cudnn$convBackwardInput", metadata={op_name="jit(guarded)/transpose(jvp(MtlFace))/backbone/stage1_block1/conv3/transpose()/conv_general_dilated"}
  %bitcast.9 = bf16[3136,768]{1,0} bitcast(%param.4)
  %cublas-lt-matmul.1 = (f32[768,768]{1,0}, s8[4194304]{0}) custom-call(%bitcast.9, %bitcast.9), custom_call_target="__cublas$lt$matmul", metadata={op_name="jit(guarded)/transpose(jvp(MtlFace))/encoder/layer1/attention/key/dot_general"}, backend_config={"gemm_backend_config":{"dot_dimension_numbers":{"lhs_contracting_dimensions":["0"],"rhs_contracting_dimensions":["0"],"lhs_batch_dimensions":[],"rhs_batch_dimensions":[]}}}
  %input_transpose_fusion = bf16[64,12,64,49]{3,2,1,0} fusion(%param.4), kind=kInput, calls=%fused_transpose
  %input_transpose_fusion.1 = bf16[512,3,3,512]{3,2,1,0} fusion(%param.3), kind=kInput, calls=%fused_kernel
  ROOT %wrapped_slice.1 = f32[1024]{0} fusion(%param.5), kind=kLoop, calls=%wrapped_slice
}
"""  # noqa: E501

PIXELS = 64 * 56 * 56
KERNEL = 256 * 64
TRANSPOSED = 64 * 49 * 768


@pytest.fixture(scope="module")
def module():
    return hlo.parse(TEXT)


def test_operations_of_the_libraries(module):
    rows = gpu_program.summary(module, [])["libraries"]
    assert {row["count"] for row in rows} == {1}
    calls = {row["target"]: row for row in rows}
    forward, to_kernel, to_input = (
        calls[f"conv{name}"] for name in ("Forward", "BackwardFilter", "BackwardInput")
    )
    product = calls.pop("lt$matmul")
    assert forward["flops"] == to_kernel["flops"] == to_input["flops"] == 2 * PIXELS * KERNEL
    assert product["flops"] == 2 * 768 * 768 * 3136
    assert [forward["phase"], to_kernel["phase"]] == ["forward", "backward"]
    assert forward["bytes"] == 2 * (PIXELS * 64 + KERNEL + PIXELS * 256)
    assert {row["library"] for row in calls.values()} == {"cuDNN"}
    assert (product["library"], product["dtype"], product["result_dtype"]) == (
        "cuBLAS",
        "bf16",
        "f32",
    )


def test_summary(module):
    found = gpu_program.summary(module, [9 * 512 * 512])
    assert (found["kernels"], found["fused_operations"], found["single_operations"]) == (3, 4, 2)
    assert found["transposes"] == [
        {
            "opcode": "transpose",
            "shape": "bf16[64,12,64,49]",
            "source": "jit(guarded)/jvp(MtlFace)/encoder/layer1/attention/key/add",
            "count": 1,
            "bytes": 2 * TRANSPOSED,
        }
    ]
    assert found["copies"] == []
    assert found["parameter_copies"] == 2 * 9 * 512 * 512
    assert found["scatters"] == {"count": 0, "bytes": 0}
    assert [row["count"] for row in found["libraries"]] == [1, 1, 1, 1]


def test_traffic_has_no_workspace_and_of_a_slice_its_part(module):
    convolutions = 3 * 2 * (PIXELS * 64 + KERNEL + PIXELS * 256)
    product = 2 * 2 * TRANSPOSED + 4 * 768 * 768
    fusions = 2 * 2 * TRANSPOSED + (4 + 2) * 9 * 512 * 512 + 2 * 4 * 1024
    assert gpu_program.moved_bytes(module) == convolutions + product + fusions


def test_loops_count_as_often_as_they_run():
    text = """HloModule jit_step

%body (s: f32[8]) -> f32[8] {
  %s = f32[8]{0} parameter(0)
  ROOT %r = f32[8]{0} copy(%s)
}
ENTRY %main (x: f32[8]) -> f32[8] {
  %x = f32[8]{0} parameter(0)
  ROOT %w = f32[8]{0} while(%x), body=%body, backend_config={"known_trip_count":{"n":"5"}}
}
"""
    assert gpu_program.moved_bytes(hlo.parse(text)) == 5 * 2 * 32


def test_additions_to_scattered_places_are_named():
    text = """HloModule jit_step

%fused_scatter (a: bf16[64,112,112,64], i: s32[4], u: bf16[4]) -> bf16[64,112,112,64] {
  %a = bf16[64,112,112,64]{3,2,1,0} parameter(0)
  %i = s32[4]{0} parameter(1)
  %u = bf16[4]{0} parameter(2)
  ROOT %scatter.1 = bf16[64,112,112,64]{3,2,1,0} scatter(%a, %i, %u), to_apply=%add
}
ENTRY %main (x: bf16[64,112,112,64], i: s32[4], u: bf16[4]) -> bf16[64,112,112,64] {
  %x = bf16[64,112,112,64]{3,2,1,0} parameter(0)
  %i = s32[4]{0} parameter(1)
  %u = bf16[4]{0} parameter(2)
  %copy.1 = bf16[64,112,112,64]{3,2,1,0} copy(%x)
  ROOT %f = bf16[64,112,112,64]{3,2,1,0} fusion(%copy.1, %i, %u), calls=%fused_scatter
}
"""
    found = gpu_program.summary(hlo.parse(text), [])
    size = 2 * 64 * 112 * 112 * 64
    assert found["scatters"] == {"count": 1, "bytes": size}
    assert [(row["shape"], row["bytes"]) for row in found["copies"]] == [
        ("bf16[64,112,112,64]", size)
    ]
