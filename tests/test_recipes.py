"""The script of docs/recipes.md goes from a folder of s-Aff-Wild2 to an accepted submission."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from data_pipeline.formats.test_list import load_test_list
from data_pipeline.rendered_faces import generate, layout
from mtl_face.evaluation import prediction_files

ROOT = Path(__file__).parents[1]

SMALL_FRAMES = (
    *("model.backbone.vit.depth=1", "model.backbone.vit.width=16", "model.backbone.vit.patch=8"),
    *("model.backbone.vit.num_heads=2", "model.backbone.vit.mlp_width=16", "model.input_size=32"),
    *("model.embed_dim=16", "model.num_heads=2", "model.decoder_modules=1", "model.head_layers=2"),
    *("model.head_width=16", "model.backbone.drop_path=0", "optimizer.epochs=1"),
    *("optimizer.batch_size=8", "evaluation.batch_size=16"),
)
SMALL_OVER_TIME = (
    *("model.embed_dim=16", "temporal.width=8", "temporal.layers=1", "temporal.window=4"),
    *("optimizer.batch_size=8", "optimizer.epochs=1", "evaluation.batch_size=8"),
)


def script():
    """The one block of shell in the page that is a script of its own."""
    text = (ROOT / "docs" / "recipes.md").read_text(encoding="utf-8")
    blocks = [part.split("```")[0] for part in text.split("```bash\n")[1:]]
    (block,) = [block for block in blocks if block.startswith("#!")]
    return block


def settings(name, changes):
    return " ".join([f"--config=configs/{name}.py", *(f"--config.{one}" for one in changes)])


@pytest.mark.slow
def test_the_script_runs(tmp_path, shared_programs):
    data, runs = tmp_path / "data", tmp_path / "runs"
    generate.generate(data, num_videos=18, frames_per_video=6, seed=0, density="dense", workers=1)
    environment = {
        **os.environ,
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "DATA": str(data),
        "RUNS": str(runs),
        "SEEDS": "0",
        "KINDS": "convolution attention",
        "FRAMES": settings("abaw11", SMALL_FRAMES),
        "OVER_TIME": settings("temporal_best", SMALL_OVER_TIME),
    }
    ended = subprocess.run(
        ["bash"], input=script(), text=True, capture_output=True, cwd=ROOT, env=environment
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert f"accepted: {runs / 'submission.txt'}" in ended.stdout
    asked = load_test_list(data / layout.TEST_LIST_FILE, data)
    assert len((runs / "submission.txt").read_text().splitlines()) == 1 + len(asked)
    table = prediction_files.read(runs / "test.parquet")
    members = [member["name"] for member in table.metadata["ensemble"]["members"]]
    kinds = ("attention", "convolution")
    assert members == [str(runs / f"test-{kind}-seed0.parquet") for kind in kinds]
    assert table.is_calibrated
    assert "other weights" not in ended.stdout
