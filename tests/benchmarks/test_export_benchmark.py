"""The benchmark of ONNX files: the ways that are compared answer alike, and all have times."""

import pytest
import small_experiment

import mtl_face


@pytest.mark.slow
def test_two_files_and_the_jit_answer_alike(tmp_path):
    pytest.importorskip("torch")
    pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    from benchmarks import export

    config = small_experiment.write_config(tmp_path)
    settings = mtl_face.load_config(config, **{"data.root": str(tmp_path)})
    groups = export.compared(settings, [1, 3], 1, tmp_path)
    assert [group.name for group in groups] == ["small, batch 1", "small, batch 3"]
    ways = {export.JIT, export.OWN_ONNX, export.TORCH_ONNX}
    assert all(group.times.keys() == ways for group in groups)
    assert all(group.reference == export.TORCH_ONNX for group in groups)
