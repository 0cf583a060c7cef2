"""`run.py weights`: what it prints, with what it does without."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch
import weight_files

from mtl_face.cli import main

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    path = tmp_path_factory.mktemp("weights") / "resnet50.pth"
    torch.save(weight_files.meta_state(), path)
    return path


def test_prints_what_a_file_is(file, capsys):
    assert main.main(["weights", str(file)]) == 0
    captured = capsys.readouterr()
    assert captured.err == ""
    for words in (
        f"initial weights: {file} (sha256 ",
        "PyTorch file (zip): ResNet50 (stages of 3, 4, 6, 3 blocks, width 64, expansion 4)",
        "geometry torchvision; first convolution in RGB\n",
        "matched 53 convolutions and 53 batch norms, 23,508,032 parameters",
        "left out, not of the backbone: fc.weight 1000x2048, fc.bias 1000",
        "trained on ImageNet",
        "next: python run.py train ",
        f"--config.model.backbone.init_from={file}",
        "--config.model.backbone.variant=torchvision",
        "--config.model.input_mean=123.675,116.28,103.53",
        "--config.model.input_std=58.395,57.12,57.375",
    ):
        assert words in captured.out


def test_channels(file, capsys):
    assert main.main(["weights", str(file), "--channels=bgr"]) == 0
    out = capsys.readouterr().out
    assert "first convolution in BGR, turned to RGB" in out
    assert "--config.model.backbone.init_channels=bgr" in out


def test_prefix(tmp_path, capsys):
    path = tmp_path / "two.pth"
    torch.save({"model": weight_files.meta_state(), "ema": weight_files.meta_state()}, path)
    assert main.main(["weights", str(path)]) == 2
    error = capsys.readouterr().err
    assert "holds 2 networks, under 'ema.', 'model.'" in error
    assert "choose one, as --prefix='ema.' for run.py weights" in error
    assert main.main(["weights", str(path), "--prefix=ema."]) == 0
    assert "--config.model.backbone.init_prefix=ema." in capsys.readouterr().out


def test_a_bad_file(tmp_path, capsys):
    path = tmp_path / "weights.h5"
    path.write_text("<!DOCTYPE html>")
    assert main.main(["weights", str(path)]) == 2
    captured = capsys.readouterr()
    assert captured.err.startswith(f"error: {path}: is a web page, not a weights file\n  -> ")
    assert captured.out == ""


def test_imports_neither_jax_nor_the_makers_of_the_files(file):
    assert status_of_its_own_process(file) == "STATUS 0"


def test_bfloat16_without_jax(tmp_path):
    path = tmp_path / "weights.safetensors"
    tensors = {name: value.bfloat16() for name, value in weight_files.meta_state().items()}
    weight_files.write_safetensors(path, tensors)
    assert status_of_its_own_process(path) == "STATUS 0"


def status_of_its_own_process(file):
    """The exit status, with the heavy libraries that were imported."""
    code = (
        "import sys; from mtl_face.cli import main; status = main.main(sys.argv[1:]);"
        "print('STATUS', status, *sorted({'jax', 'flax', 'tensorflow', 'keras', 'torch', 'orbax'}"
        " & set(sys.modules)))"
    )
    result = subprocess.run(
        [sys.executable, "-c", code, "weights", str(file)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
        timeout=600,
    )
    assert result.stderr == ""
    return result.stdout.splitlines()[-1]
