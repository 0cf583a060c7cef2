"""ONNX files in float16 and int8: near the answers of float32, and smaller."""

import numpy as np
import onnx
import program_files
import pytest
import small_dataset
from onnx import TensorProto
from PIL import Image

from mtl_face.cli import main
from mtl_face.errors import ConfigError, ImageError
from mtl_face.export import onnx_precision
from mtl_face.run import models, smaller
from mtl_face.weights.card import ExportError
from mtl_face.weights.programs import onnx_file

MOST = {"float16": 0.005, "int8": 0.1}
"""By which logits may differ on average; they are of the order of 2."""

SIZE = {"float16": 0.55, "int8": 0.4}


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return tmp_path_factory.mktemp("smaller")


@pytest.fixture(scope="module")
def file(place):
    config = program_files.config_of("image", embed_dim=96, head_width=512)
    return program_files.write_onnx(
        place / "float32.onnx", program_files.write_export(place / "export", config)
    )


@pytest.fixture(scope="module")
def crops(place):
    """A data set, whose crops are 32 pixels wide, as the file takes them, and a stranger."""
    root = small_dataset.write(place / "data", rows={"training": 12, "validation": 5})
    Image.new("RGB", (50, 40), "red").save(root / "cropped_aligned" / "other.png")
    return root


@pytest.mark.parametrize("precision", ["float16", "int8"])
def test_less_precision(precision, file, crops, place):
    said = []
    path = smaller.write_smaller(
        file, place / f"{precision}.onnx", precision=precision, crops=crops, say=said.append
    )
    assert path.stat().st_size < SIZE[precision] * file.stat().st_size
    assert said[-1].startswith(f"program: {path}  ({precision}: 0.")
    crop_NSS3 = onnx_precision.read_crops(onnx_precision.crops_of(crops), program_files.SIDE)
    assert crop_NSS3.shape == (18, 32, 32, 3)
    expected, found = (models.load(each).predict_crops(crop_NSS3) for each in (file, path))
    for name in ("va", "au_logits", "expression_logits"):
        difference = np.abs(getattr(found, name) - getattr(expected, name)).mean()
        assert 0 < difference < MOST[precision]
    card = onnx_file.read(path).card
    assert card["whole_way"]["precision"]["name"] == precision
    before, after = (onnx.load(each).graph for each in (file, path))
    assert [*before.input, *before.output] == [*after.input, *after.output]
    with pytest.raises(ExportError, match=f"is of precision {precision} already"):
        smaller.write_smaller(path, place / "again.onnx", precision="float16")


def test_layers_are_int8_but_for_the_last_of_each_head(file, crops, place):
    model = onnx.load(file)
    model = onnx_precision.in_int8(
        model, onnx_precision.read_crops(onnx_precision.crops_of(crops, most=3), 32)
    )
    whole = {
        tensor.name for tensor in model.graph.initializer if tensor.data_type == TensorProto.FLOAT
    }
    layers = [node for node in model.graph.node if node.op_type in ("Conv", "MatMul")]
    left = {node.name.split("/")[1] for node in layers if node.input[1] in whole}
    assert left == {"head_va", "head_au", "head_expr"}
    assert len([node for node in layers if node.input[1] in whole]) == 3
    kernels = [
        onnx.numpy_helper.to_array(tensor).astype(int)
        for tensor in model.graph.initializer
        if len(tensor.dims) > 1 and tensor.data_type == TensorProto.INT8
    ]
    assert kernels
    # A processor without products of int8 adds two products with values of 0..255 in 16 bits.
    assert max(2 * 255 * np.abs(kernel).max() for kernel in kernels) < 2**15


def test_numbers_that_overflow_are_not_kept(file, tmp_path):
    model = onnx.load(file)
    for tensor in model.graph.initializer:
        if tensor.name.startswith("MtlFace/head_au/") and "/weight" in tensor.name:
            array = onnx.numpy_helper.to_array(tensor)
            tensor.CopyFrom(onnx.numpy_helper.from_array(6e4 * np.sign(array), tensor.name))
    source, path = tmp_path / "large.onnx", tmp_path / "out.onnx"
    onnx.save(model, source)
    with pytest.raises(ExportError, match="numbers overflow in float16: MtlFace/head_au/"):
        smaller.write_smaller(source, path, precision="float16", say=str)
    assert not path.exists()


def test_what_is_refused(file, tmp_path):
    output = tmp_path / "out.onnx"
    with pytest.raises(ConfigError, match="int8 needs crops"):
        smaller.write_smaller(file, output, precision="int8")
    with pytest.raises(ImageError, match="holds no pictures"):
        smaller.write_smaller(file, output, precision="int8", crops=tmp_path)
    with pytest.raises(ImageError, match="is no folder"):
        smaller.write_smaller(file, output, precision="int8", crops=tmp_path / "none")
    with pytest.raises(ConfigError, match="float16 or int8"):
        smaller.write_smaller(file, output, precision="float8")


@pytest.mark.slow
def test_what_a_smaller_file_loses(file, crops, place, capsys):
    path = smaller.write_smaller(file, place / "half.onnx", precision="float16", say=str)
    asked = ["evaluate", f"--model={path}", f"--config.data.root={crops}"]
    assert main.main([*asked, f"--output={place / 'out'}", f"--against={file}"]) == 0
    captured = capsys.readouterr()
    lines = [line for line in captured.out.splitlines() if f"of {file}: " in line]
    assert [line.split(":")[0] for line in lines] == ["p", "va", "au", "expr"]
    for line in lines:
        mine, rest = line.split(": ", 1)[1].split(", ", 1)
        other, loss = rest.split(" ")[0], rest.rsplit(" ", 1)[1]
        assert float(mine) - float(other) == pytest.approx(float(loss), abs=2e-4)
        assert abs(float(loss)) < 0.05
    assert captured.err == ""
    assert main.main([*asked, f"--output={place / 'out'}", "--against=nothing"]) == 2
    assert "nothing: does not exist" in capsys.readouterr().err


def test_the_command_makes_a_smaller_file_of_a_file(file, crops, place, capsys):
    output = place / "small.onnx"
    asked = ["export", f"--model={file}", "--format=onnx", f"--output={output}"]
    assert main.main([*asked, "--precision=int8", f"--crops={crops}"]) == 0
    captured = capsys.readouterr()
    assert f"program: {output}  (int8: " in captured.out
    assert captured.err == ""
    assert onnx_file.read(output).card["whole_way"]["precision"] == {"name": "int8", "crops": 18}
    for wrong, words in {
        "--precision=int8": "int8 needs crops",
        f"--crops={crops}": "--crops go with --precision",
        "--precision=float16 --crop_size=40": "--crop_size would change nothing",
    }.items():
        assert main.main([*asked, *wrong.split()]) == 2
        assert words in capsys.readouterr().err
    assert main.main([*asked[:2], f"--output={output}", "--precision=float16"]) == 2
    assert "goes with --format=onnx" in capsys.readouterr().err


def test_float16_stays_in_the_network(file):
    model = onnx.shape_inference.infer_shapes(
        onnx_precision.in_float16(onnx.load(file)), strict_mode=True
    )
    onnx.checker.check_model(model, full_check=True)
    kinds = {value.name: value.type.tensor_type.elem_type for value in model.graph.value_info}
    kinds |= {tensor.name: tensor.data_type for tensor in model.graph.initializer}
    around = {
        kinds.get(name)
        for node in model.graph.node
        if not node.name.startswith("MtlFace/") and node.op_type != "Cast"
        for name in node.input
    }
    within = {
        kinds.get(name)
        for node in model.graph.node
        if node.name.startswith("MtlFace/") and node.op_type != "Cast"
        for name in node.output
    }
    assert TensorProto.FLOAT in around
    assert TensorProto.FLOAT16 not in around
    assert TensorProto.FLOAT16 in within
    assert TensorProto.FLOAT not in within
