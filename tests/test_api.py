"""The Python API: the README's examples, and what importing the package costs."""

import inspect
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import camera_frames
import numpy as np
import pytest
import small_experiment
from PIL import Image

import mtl_face
from mtl_face.cli import main
from mtl_face.errors import ConfigError, WorkdirError
from mtl_face.tables import PredictionTable
from mtl_face.tasks import AU_NAMES, TASKS

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()


def example(name):
    """The code that stands in the README below a marker."""
    (code,) = re.findall(rf"<!-- {name} -->\n```python\n(.*?)```", README, flags=re.DOTALL)
    return code


@pytest.fixture(scope="module")
def experiment(tmp_path_factory):
    """A small run, trained and evaluated through the API."""
    experiment = small_experiment.Experiment(tmp_path_factory.mktemp("api"))
    config = mtl_face.load_config(
        experiment.config, data={"root": str(experiment.data)}, optimizer={"epochs": 1}
    )
    experiment.lines = []
    experiment.result = mtl_face.train(config, experiment.workdir, say=experiment.lines.append)
    return experiment


def test_training_returns_what_it_wrote(experiment):
    result = experiment.result
    assert result.workdir == experiment.workdir
    assert result.step == small_experiment.STEPS_PER_EPOCH
    assert result.stopped_by is None
    written = json.loads((experiment.workdir / "evaluation" / "metrics.json").read_text())
    assert json.loads(json.dumps(result.metrics)) == written
    assert any(line.startswith("step 5/5") for line in experiment.lines)


def test_a_model_knows_how_many_labels_it_was_trained_on(experiment):
    labels = mtl_face.load(experiment.workdir).origin["training"]["labels"]
    lines = (experiment.data / "training_set_annotations.txt").read_text().splitlines()[1:]
    cells = [line.split(",") for line in lines]
    assert labels["va"] == sum(row[1] != "-5" for row in cells)
    assert labels["expr"] == sum(row[3] != "-1" for row in cells)
    assert labels["au"] == labels["per_au"]["au26"] == sum(row[15] != "-1" for row in cells)
    assert experiment.result.metrics["data"] == {"name": "data", "rows": "validation set"}


def test_a_complete_run_is_not_trained_again(experiment):
    config = mtl_face.load_config(
        experiment.config, data={"root": str(experiment.data)}, optimizer={"epochs": 1}
    )
    lines = []
    again = mtl_face.train(config, experiment.workdir, say=lines.append)
    assert "training is complete (5 steps)" in lines
    assert again.metrics["p"] == experiment.result.metrics["p"]


def test_evaluating_a_run_gives_its_scores_again(experiment, tmp_path):
    scores = mtl_face.evaluate(experiment.workdir, output=tmp_path, say=lambda line: None)
    for task in TASKS:
        assert scores[task]["score"] == experiment.result.metrics[task]["score"]
    assert (tmp_path / "report.html").exists()


def test_a_loaded_model_is_evaluated_without_a_file(experiment):
    model = mtl_face.load(experiment.workdir)
    scores = mtl_face.evaluate(model, say=lambda line: None)
    assert scores["p"] == experiment.result.metrics["p"]


def test_other_rows_are_scored_beside_the_validation_set(experiment, capsys):
    before = (experiment.workdir / "evaluation" / "metrics.json").read_bytes()
    assert main.main(["evaluate", f"--workdir={experiment.workdir}", "--split=train"]) == 0
    assert f"results: {experiment.workdir / 'evaluation_train'}" in capsys.readouterr().out
    scores = mtl_face.evaluate(
        experiment.workdir,
        data=experiment.data / "training_set_annotations.txt",
        say=lambda line: None,
    )
    assert scores["num_rows"] == 40
    for name in ("evaluation_train", "evaluation_training_set_annotations.txt"):
        written = json.loads((experiment.workdir / name / "metrics.json").read_text())
        assert written["p"] == scores["p"]
    assert (experiment.workdir / "evaluation" / "metrics.json").read_bytes() == before
    with pytest.raises(ConfigError, match="there is no split 'test'"):
        mtl_face.evaluate(experiment.workdir, split="test")


def test_settings_say_how_other_rows_are_read(experiment, tmp_path, capsys):
    """Also where the file could be taken for a challenge's, and the run has other settings."""
    images = experiment.data / "cropped_aligned"
    shutil.copytree(images, tmp_path / "cropped_aligned")
    names = sorted(path.relative_to(images).as_posix() for path in images.rglob("*.jpg"))[:8]
    header = ["image", "valence", "arousal", "expression", *AU_NAMES]
    rows = [f"{name},5,7,{2 if i else 0}{',1' * 12}" for i, name in enumerate(names)]
    path = tmp_path / "labels.csv"
    path.write_text("\n".join([",".join(header), *rows]) + "\n")
    words = [f"--model={experiment.workdir}", f"--data={path}", f"--output={tmp_path / 'out'}"]
    words += ["--config.data.manifest.va_range=1,9", "--config.data.manifest.video_from=folder"]
    words += ["--config.data.manifest.expression_map=affectnet"]
    assert main.main(["evaluate", *words]) == 0, capsys.readouterr().err
    support = json.loads((tmp_path / "out" / "metrics.json").read_text())["expr"]["support"]
    assert support["Sadness"] == 7  # AffectNet's 2


def test_a_run_alone_is_enough_to_calibrate(experiment, capsys):
    assert main.main(["calibrate", f"--workdir={experiment.workdir}", "--windows=0"]) == 0
    path = experiment.workdir / "calibration.json"
    assert f"results: {path}" in capsys.readouterr().out
    assert json.loads(path.read_text())["fitted_on"]["num_rows"] == 19


def test_predicting_a_list_gives_the_rows_of_the_list(experiment, tmp_path):
    images = experiment.data / "cropped_aligned"
    names = sorted(str(path.relative_to(images)) for path in images.rglob("*.jpg"))[:5]
    listed = tmp_path / "list.txt"
    listed.write_text("".join(f"{name}\n" for name in names))
    table = mtl_face.predict(experiment.workdir, listed, say=lambda line: None)
    assert table.image.tolist() == names
    model = mtl_face.load(experiment.workdir)
    crops = [np.asarray(Image.open(images / name).convert("RGB")) for name in names]
    found = model.predict_crops(crops)
    np.testing.assert_allclose(found.au_logits, table.au_logits, rtol=1e-5, atol=1e-5)
    assert found.metadata["weights_sha256"] == table.metadata["weights_sha256"]


def test_an_export_predicts_as_its_run(experiment, tmp_path):
    from mtl_face.run.export import export

    crops = np.random.default_rng(0).integers(0, 256, (3, 32, 32, 3)).astype(np.uint8)
    expected = mtl_face.load(experiment.workdir).predict_crops(crops)
    for form in ("orbax", "safetensors"):
        folder = export(
            experiment.workdir, form=form, output=tmp_path / form, say=lambda line: None
        )
        found = mtl_face.load(folder).predict_crops(crops)
        np.testing.assert_array_equal(found.expression_logits, expected.expression_logits)
    again = export(
        tmp_path / "orbax", form="safetensors", output=tmp_path / "again", say=lambda line: None
    )
    cards = [json.loads((folder / "model.json").read_text()) for folder in (folder, again)]
    assert cards[0] == cards[1]
    with pytest.raises(ConfigError, match="is an export"):
        export(again)


def test_a_model_is_shown_in_a_line(experiment):
    assert repr(mtl_face.load(experiment.workdir)) == (
        "Predictor('small', step 5, crops of 32 pixels)"
    )


def test_settings_that_are_none_are_an_error(tmp_path):
    with pytest.raises(ConfigError, match=r"settings of type str"):
        mtl_face.train("rendered_faces", tmp_path)


def test_what_is_no_model_is_an_error(tmp_path):
    with pytest.raises(WorkdirError, match="holds no run, and no export either"):
        mtl_face.load(tmp_path)
    with pytest.raises(WorkdirError, match="does not exist"):
        mtl_face.load(tmp_path / "nowhere")
    (tmp_path / "config.json").write_text('{"architectures": ["ViTModel"], "hidden_size": 8}')
    with pytest.raises(WorkdirError, match=r"of another program \(ViTModel\)"):
        mtl_face.load(tmp_path)
    with pytest.raises(WorkdirError, match="is empty"):
        mtl_face.load("")


def test_changes_of_a_config():
    config = mtl_face.load_config(
        "rendered_faces",
        seed=3,
        optimizer={"batch_size": 8},
        **{"data.rendered_faces.num_videos": 24},
    )
    assert (config.seed, config.optimizer.batch_size) == (3, 8)
    assert config.data.rendered_faces.num_videos == 24
    assert config.optimizer.epochs == mtl_face.load_config("rendered_faces").optimizer.epochs
    with pytest.raises(ConfigError, match=r"optimizer\.batch_sise"):
        mtl_face.load_config("rendered_faces", optimizer={"batch_sise": 8})
    with pytest.raises(ConfigError, match="rendered_faces"):
        mtl_face.load_config("renderd_faces")


def test_importing_costs_nothing():
    """Neither the package nor a question for its names imports anything heavy."""
    code = (
        "import sys, mtl_face; before = set(sys.modules); dir(mtl_face); mtl_face.__version__;"
        "print(*sorted({'jax', 'numpy', 'tensorflow', 'ml_collections', 'pandas', 'scipy'}"
        " & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "\n"


@pytest.mark.usefixtures("shared_programs")
def test_predicting_needs_no_tensorflow(experiment):
    code = (
        "import sys, numpy as np, mtl_face;"
        f"model = mtl_face.load({str(experiment.workdir)!r});"
        "model.predict_crops(np.zeros((1, 32, 32, 3), np.uint8)).to_dataframe();"
        "print(*sorted({'tensorflow', 'clu', 'tensorboard', 'tensorflow_datasets'}"
        " & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "\n"


@pytest.fixture
def bundled(experiment, tmp_path, monkeypatch):
    """A small model in place of the packaged one."""
    from mtl_face.run import workdir
    from mtl_face.run.export import export

    folder = export(
        experiment.workdir, form="safetensors", output=tmp_path / "e", say=lambda line: None
    )
    file = tmp_path / "bundled" / f"{workdir.DEFAULT_MODEL}.safetensors"
    file.parent.mkdir()
    shutil.copy(folder / "model.safetensors", file)
    monkeypatch.setattr(workdir, "_BUNDLED", file.parent)
    return file


def test_the_five_lines_of_the_readme(bundled, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    picture, _ = camera_frames.head(1)
    Image.fromarray(picture).save("photo.jpg")
    assert len(example("python-faces").splitlines()) <= 6
    variables = {}
    exec(compile(example("python-faces"), "README.md", "exec"), variables)
    out = capsys.readouterr().out
    assert "valence" in out
    assert "au12_probability" in out
    assert variables["faces"].person.tolist() == [1]
    with Image.open("seen.png") as drawn:
        assert drawn.width > picture.shape[1]


def test_bundled_models_are_found_by_name(bundled, tmp_path, monkeypatch, capsys):
    model = mtl_face.load("geometry")
    assert model.step == small_experiment.STEPS_PER_EPOCH
    with pytest.raises(WorkdirError, match="or name a bundled model: geometry"):
        mtl_face.load("geometri")
    monkeypatch.chdir(tmp_path)
    Image.new("RGB", (64, 64)).save("a.png")
    assert main.main(["predict", "a.png"]) == 0  # the default
    assert "no face" in capsys.readouterr().out
    # What lies at a path comes first, and a folder that is no model does not hide it.
    Path("geometry").mkdir()
    assert mtl_face.load("geometry").step == model.step


@pytest.mark.usefixtures("shared_programs")
def test_predicting_faces_imports_little(bundled):
    code = (
        "import sys, numpy as np, mtl_face;"
        f"model = mtl_face.load({str(bundled)!r});"
        "model.predict(np.zeros((64, 64, 3), np.uint8));"
        "print(*sorted({'tensorflow', 'clu', 'orbax', 'optax', 'tensorboard', 'pandas',"
        " 'matplotlib', 'tensorflow_datasets', 'data_pipeline', 'av'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT
    )
    assert done.stdout == "\n"


@pytest.mark.parametrize("name", mtl_face.__all__)
def test_the_functions_are_documented(name):
    function = getattr(mtl_face, name)
    documentation = inspect.getdoc(function)
    assert documentation.count("\n") > 8
    for parameter in inspect.signature(function).parameters.values():
        assert parameter.annotation is not inspect.Parameter.empty
        assert f"{parameter.name}:" in documentation
    with pytest.raises(AttributeError):
        mtl_face.nothing  # noqa: B018


@pytest.mark.slow
def test_the_examples_of_the_readme(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert len(example("python-train").splitlines()) <= 12
    exec(compile(example("python-train"), "README.md", "exec"), {"__name__": "__main__"})
    assert str(tmp_path / "runs/first") in capsys.readouterr().out
    picture = np.random.default_rng(0).integers(0, 256, (90, 90, 3)).astype(np.uint8)
    Image.fromarray(picture).save("face.jpg")
    variables = {}
    exec(compile(example("python-predict"), "README.md", "exec"), variables)
    assert "valence" in capsys.readouterr().out
    assert isinstance(variables["model"].predict_crops([picture]), PredictionTable)
