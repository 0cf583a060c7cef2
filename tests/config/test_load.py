"""Config files and overrides, and the messages on wrong ones."""

import textwrap
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from mtl_face import config
from mtl_face.errors import ConfigError

CONFIGS = Path(__file__).parents[2] / "configs"
FILES = sorted(path for path in CONFIGS.glob("*.py") if path.name != "__init__.py")
RENDERED = CONFIGS / "rendered_faces.py"
NAMES = [name for name, _ in config.fields()]


@pytest.fixture
def config_file(tmp_path):
    def write(body):
        path = tmp_path / "experiment.py"
        path.write_text(textwrap.dedent(body))
        return path

    return write


def error_of(path, overrides=()):
    with pytest.raises(ConfigError) as raised:
        config.load(path, overrides)
    return raised.value


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_every_config_file_loads(path):
    result = config.load(path, ["data.root=/data"])
    assert result.name == path.stem
    assert result.data.root == "/data"


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_every_config_file_says_how_to_run_it(path):
    text = path.read_text()
    assert text.startswith('"""')
    command = "ensemble" if path.stem == "paper_ensemble" else "train"
    assert f"python run.py {command} --config=configs/{path.name}" in text.split('"""')[1]


def test_overrides():
    result = config.load(
        RENDERED,
        [
            "seed=7",
            "name=a=b, c",
            "data.root=~/faces",
            "optimizer.learning_rate=3e-4",
            "optimizer.weight_decay=1",
            "augmentation.flip=False",
            "augmentation.zoom=0.8,1.2",
            "model.input_std=(1, 2, 3)",
            "model.backbone.stage_sizes=[1,2,]",
            "data.rendered_faces.workers=None",
            "seed=8",
        ],
    )
    assert result.seed == 8
    assert result.name == "a=b, c"
    assert result.data.root == "~/faces"
    assert result.optimizer.learning_rate == 3e-4
    assert result.optimizer.weight_decay == 1.0
    assert isinstance(result.optimizer.weight_decay, float)
    assert result.augmentation.flip is False
    assert result.augmentation.zoom == (0.8, 1.2)
    assert result.model.input_std == (1.0, 2.0, 3.0)
    assert result.model.backbone.stage_sizes == (1, 2)
    assert result.data.rendered_faces.workers is None
    assert result.model.embed_dim == 96  # the file's


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("seed", "'seed' has no value"),
        ("", "'' has no value"),
        ("=3", "unknown config field ''"),
        ("optimizer.epoch=3", "did you mean optimizer.epochs?"),
        ("optimizer.epochs=2.5", "optimizer.epochs is '2.5', expected a whole number"),
        ("optimizer.epochs=0", "optimizer.epochs is 0, expected at least 1"),
        ("model.backbone.stage_sizes=1,,2", "expected a list of values"),
        ("augmentation.flip=perhaps", "expected true or false"),
        ("model=3", "model is a section, not a field"),
        ("data.root.x=3", "unknown config field 'data.root.x'"),
    ],
)
def test_wrong_override(override, expected):
    error = error_of(RENDERED, [override])
    assert expected in str(error)
    assert error.path is None  # the file is not to blame


@pytest.mark.parametrize(
    ("body", "line", "expected"),
    [
        ("def get_config(:\n    pass\n", 1, "SyntaxError"),
        ("x = 1\n\nimport no_such_module_anywhere\n", 3, "no_such_module_anywhere"),
        ("def get_config():\n    return 1 / 0\n", 2, "ZeroDivisionError"),
        ("import sys\nsys.exit(3)\n", 2, "SystemExit"),
        ("x = 1\n", None, "has no function get_config()"),
        ("get_config = 3\n", None, "has no function get_config()"),
        ("def get_config(x):\n    return x\n", None, "TypeError"),
        ("def get_config():\n    return {'seed': 3}\n", None, "returned dict"),
        ("def get_config():\n    return None\n", None, "returned NoneType"),
        (
            """\
            from mtl_face import config

            def get_config():
                settings = config.default()
                settings.optimizer.batchsize = 3
                return settings
            """,
            5,
            "batch_size",
        ),
        (
            """\
            from mtl_face import config

            def get_config():
                settings = config.default()
                settings.optimizer.batch_size = "many"
                return settings
            """,
            5,
            "TypeError",
        ),
        (
            """\
            from mtl_face import config

            def get_config():
                settings = config.default()
                settings.optimizer.batch_size = -3
                return settings
            """,
            None,
            "optimizer.batch_size is -3, expected at least 1",
        ),
        (
            """\
            from ml_collections import config_dict

            def get_config():
                return config_dict.ConfigDict({"sede": 3})
            """,
            None,
            "did you mean seed?",
        ),
        (
            """\
            from ml_collections import config_dict

            def get_config():
                return config_dict.ConfigDict({"model": 3})
            """,
            None,
            "model is a section, not a value",
        ),
    ],
)
@pytest.mark.parametrize("relative", [False, True], ids=["absolute", "relative"])
def test_wrong_file(config_file, monkeypatch, tmp_path, body, line, expected, relative):
    path = config_file(body)
    if relative:
        monkeypatch.chdir(tmp_path)
        path = Path(path.name)
    error = error_of(path, ["model.embed_dim=768"])
    assert error.path == str(path)
    assert error.line == line
    assert expected in str(error)
    assert error.remedy
    assert "mtl_face/config.py" not in str(error)


def test_error_in_an_imported_file_points_to_the_import(config_file, tmp_path, monkeypatch):
    (tmp_path / "broken_helper.py").write_text("\n\n\nx = (\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    error = error_of(config_file("\nimport broken_helper\n"))
    assert error.line == 2
    assert "broken_helper" in str(error)


def test_no_such_file(tmp_path):
    error = error_of(CONFIGS / "papper.py")
    assert "no such config file" in str(error)
    assert f"did you mean {CONFIGS / 'paper.py'}?" in str(error)
    assert "no such config file" in str(error_of(tmp_path))
    assert "no such config file" in str(error_of(tmp_path / "nowhere" / "x.py"))


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_a_bare_name_is_a_shipped_experiment_from_any_folder(path, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / path.stem).mkdir()
    assert config.load(path.stem, ["data.root=/data"]).name == path.stem
    with pytest.raises(ConfigError, match="no such config file"):
        config.load(f"./{path.stem}.py")


def test_a_wrong_name_lists_the_shipped_ones():
    message = str(error_of("papper"))
    assert "did you mean paper?" in message
    assert "paper, paper_ensemble, paper_mixup, rendered_faces" in message
    assert "paper_mixup, rendered_faces" in str(error_of("/nowhere/x.py"))


def test_an_experiment_imports_its_neighbour(config_file, tmp_path):
    """And not one of the same name that was imported from another folder."""
    for folder, seed in (("one", 1), ("two", 2)):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "base.py").write_text(
            "from mtl_face import config\n\ndef get_config():\n"
            f"    settings = config.default()\n    settings.seed = {seed}\n    return settings\n"
        )
        file = tmp_path / folder / "my-own.v2.py"
        file.write_text("from . import base\n\nget_config = base.get_config\n")
        assert config.load(file, ["data.root=/data"]).seed == seed


def test_where_the_data_lie_matters_to_those_who_read_it():
    path = CONFIGS / "paper.py"
    assert "data.root is not set" in str(error_of(path))
    assert config.load(path, reads_data=False).data.root is None


def test_not_a_python_file(tmp_path):
    path = tmp_path / "experiment.yaml"
    path.write_text("seed: 3\n")
    assert "is not a Python file" in str(error_of(path))
    binary = tmp_path / "experiment.py"
    binary.write_bytes(b"\xff\xfe\x00\x01")
    assert error_of(binary).path == str(binary)


def test_override_of_a_section_that_the_file_left_out(config_file):
    path = config_file(
        """\
        from ml_collections import config_dict

        def get_config():
            return config_dict.ConfigDict({"seed": 3})
        """
    )
    result = config.load(path, ["model.backbone.width=8", "data.root=/data"])
    assert (result.seed, result.model.backbone.width) == (3, 8)


@hypothesis_settings(deadline=None, derandomize=True, max_examples=200)
@given(
    st.lists(
        st.text(max_size=30)
        | st.builds(
            "{}={}".format,
            st.sampled_from(NAMES),
            st.text(max_size=12)
            | st.integers().map(str)
            | st.floats().map(str)
            | st.lists(st.integers() | st.floats(), max_size=4).map(str),
        ),
        max_size=3,
    )
)
def test_any_overrides_give_a_config_or_a_config_error(overrides):
    try:
        result = config.load(RENDERED, overrides)
    except ConfigError:
        return
    assert isinstance(result, config.Config)


def test_settings_from_python():
    changed = config.load_config(
        "rendered_faces",
        seed=3,
        optimizer={"batch_size": 32},
        model={"backbone": {"width": 8}},
        **{"optimizer.epochs": 2},
    )
    same = config.load(
        RENDERED,
        ["seed=3", "optimizer.batch_size=32", "model.backbone.width=8", "optimizer.epochs=2"],
    )
    assert changed == same
    with pytest.raises(ConfigError, match=r"did you mean optimizer\.epochs"):
        config.load_config("rendered_faces", optimizer={"epoch": 2})


def test_an_empty_section_changes_nothing():
    assert config.load_config("rendered_faces", model={}, **{"data.mixture": {}}) == config.load(
        RENDERED
    )


@pytest.mark.parametrize(
    ("changes", "problem", "remedy"),
    [
        ({"modle": {}}, "unknown config field 'modle'", "did you mean model?"),
        ({"model": {"backbon": {}}}, "field 'model.backbon'", "did you mean model.backbone?"),
        ({"modle": {"input_size": 96}}, "unknown config field 'modle'", "did you mean model?"),
        ({"seed": {}}, "seed is {}, expected a whole number", None),
        ({"model": 3}, "model is a section, not a value", None),
        ({"model": 3, "model.input_size": 96}, "model is a section, not a value", None),
    ],
)
def test_wrong_settings_from_python_are_no_fault_of_the_file(changes, problem, remedy):
    with pytest.raises(ConfigError) as raised:
        config.load_config("rendered_faces", **changes)
    assert problem in str(raised.value)
    assert raised.value.path is None
    assert remedy is None or raised.value.remedy == remedy


def test_a_missing_folder_is_named_from_python_and_from_the_command_line():
    with pytest.raises(ConfigError) as raised:
        config.load_config("paper")
    assert raised.value.problem == "data.root is not set"
    assert "--config.data.root=FOLDER" in raised.value.remedy
    assert 'load_config(..., **{"data.root": FOLDER})' in raised.value.remedy
