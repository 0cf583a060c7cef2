"""Help without heavy imports, one message for each mistake, and output that nobody takes."""

import contextlib
import json
import os
import resource
import subprocess
import sys

import own_process
import pytest
import scorer_files
from small_experiment import ROOT, Experiment, assert_is_users_error

from mtl_face.cli import main
from mtl_face.errors import WorkdirError
from mtl_face.run import datasets, score

EVALUATE = ("evaluate", "--predictions=a.parquet", "--truth=truth.txt", "--resamples=10")
HEAVY = {"jax", "jaxlib", "tensorflow", "flax", "optax", "orbax", "clu", "numpy", "pandas", "scipy"}


@pytest.fixture
def experiment(tmp_path):
    return Experiment(tmp_path)


@pytest.mark.parametrize("words", [["--help"], ["train", "--help"], ["settings"]])
def test_help_imports_nothing_heavy(words):
    assert len(own_process.run(words, HEAVY)) > 5


def test_help_lists_every_command(capsys):
    with pytest.raises(SystemExit) as left:
        main.main(["--help"])
    assert left.value.code == 0
    text = capsys.readouterr().out
    for command in ("train", "evaluate", "export", "prepare", "settings"):
        assert f"\n    {command} " in text


@pytest.mark.parametrize(
    "words",
    [
        [],
        ["tain", "--config=x.py", "--workdir=x"],
        ["train"],
        ["train", "--config=configs/paper.py"],
        ["train", "--config=configs/paper.py", "--workdir=x", "--wrkdir=y"],
        ["train", "--conf=configs/paper.py", "--work=x"],
    ],
)
def test_wrong_words(words, capsys):
    with pytest.raises(SystemExit) as left:
        main.main(words)
    assert left.value.code == 2
    captured = capsys.readouterr()
    assert captured.err.startswith("usage: ")
    assert captured.out == ""


@pytest.mark.parametrize(
    ("words", "meant"),
    [
        (["trian", "--workdir=x"], "did you mean train?"),
        (["evaluate", "--modle=x"], "there is no flag --modle: did you mean --model?"),
        (["train", "--confg", "paper", "--workdir=x"], "did you mean --config?"),
        (["settings", "--zzz"], "there is no flag --zzz"),
    ],
)
def test_misspelt_words_are_told_the_nearest(words, meant, capsys):
    with pytest.raises(SystemExit) as left:
        main.main(words)
    assert left.value.code == 2
    assert meant in capsys.readouterr().err


def test_an_empty_config(capsys, tmp_path):
    assert main.main(["train", "--config=", f"--workdir={tmp_path}"]) == 2
    assert "no config is named" in capsys.readouterr().err


def test_setting_without_equals_sign(experiment, capsys):
    result = experiment.run(capsys, "train", "--config.seed", "3")
    assert_is_users_error(result, "'seed' has no value", "--config.seed=VALUE")


def test_wrong_setting(experiment, capsys):
    result = experiment.run(capsys, "train", "--config.optimizer.batchsize=3")
    assert_is_users_error(result, "did you mean optimizer.batch_size?")
    assert not experiment.workdir.exists()


def test_config_file_fails(experiment, capsys):
    experiment.config.write_text("\n\nx = 1 / 0\n")
    result = experiment.run(capsys, "train")
    assert_is_users_error(result, f"{experiment.config}, line 3", "ZeroDivisionError")


def test_no_such_config_file(experiment, capsys):
    experiment.config = experiment.config.with_name("smal.py")
    result = experiment.run(capsys, "train")
    assert_is_users_error(result, "no such config file", "small.py?")


def test_defect_of_the_program_keeps_its_traceback(experiment, monkeypatch):
    def broken(*arguments):
        raise RuntimeError("a defect")

    monkeypatch.setattr(datasets, "load_split", broken)
    with pytest.raises(RuntimeError, match="a defect"):
        main.main(experiment.arguments("prepare"))


def test_interrupt(experiment, capsys, monkeypatch):
    def interrupted(*arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr(datasets, "load_split", interrupted)
    status, _, err = experiment.run(capsys, "prepare")
    assert (status, err) == (130, "interrupted\n")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("refused")
    scorer_files.write_files(folder, 60, "a.parquet", "b.parquet")
    return folder


@contextlib.contextmanager
def small_files():
    """Makes files above 1,000 bytes impossible, as if the disk were full.

    To be left before anything else is written: a test's own output may go to a file, too.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize(
    "words",
    [
        (*EVALUATE, "--output=new.json"),
        (*EVALUATE, "--report=new.html"),
        ("compare", "a.parquet", "b.parquet", "--truth=truth.txt", "--resamples=10",
         "--output=new.json"),
        ("smooth", "--predictions=a.parquet", "--output=new.parquet"),
        ("smooth", "--predictions=a.parquet", "--output=new.csv"),
        ("ensemble", "a.parquet", "b.parquet", "--output=new.parquet"),
        ("calibrate", "--predictions=a.parquet", "--truth=truth.txt", "--windows=0",
         "--output=new.json"),
    ],
    ids=lambda words: f"{words[0]} {words[-1]}",
)  # fmt: skip
def test_results_on_a_full_disk(words, folder, monkeypatch, capsys):
    monkeypatch.chdir(folder)
    before = sorted(folder.iterdir())
    with small_files():
        status = main.main(list(words))
    assert status == 2
    name = words[-1].partition("=")[2]
    error = capsys.readouterr().err
    assert error.startswith(f"error: {name}: cannot be written (File too large)\n  -> ")
    assert error.count("\n") == 2
    assert sorted(folder.iterdir()) == before


def test_a_report_that_cannot_be_written_costs_no_number(folder, tmp_path, monkeypatch, capsys):
    def fail(*arguments, **options):
        raise WorkdirError("cannot be written (No space left on device)")

    monkeypatch.chdir(folder)
    monkeypatch.setattr(score, "report_file", fail)
    output = tmp_path / "metrics.json"
    assert main.main([*EVALUATE, f"--output={output}", f"--report={tmp_path / 'r.html'}"]) == 2
    assert "No space left" in capsys.readouterr().err
    assert json.loads(output.read_text())["num_rows"] == 60


@pytest.mark.parametrize(
    "words",
    [
        [*EVALUATE, "--output="],
        [*EVALUATE, "--report="],
        ["compare", "a.parquet", "b.parquet", "--truth=truth.txt", "--output="],
        ["smooth", "--predictions=a.parquet", "--output="],
        ["ensemble", "a.parquet", "b.parquet", "--output="],
        ["calibrate", "--predictions=a.parquet", "--truth=truth.txt", "--output="],
        ["predict", "--model=x", "--test_list=truth.txt", "--output="],
        ["plan", "--config=paper", "--topology=local", "--output="],
    ],
    ids=lambda words: f"{words[0]} {words[-1]}",
)
def test_an_output_that_cannot_be_written_is_told_before_the_work(
    words, folder, monkeypatch, capsys
):
    monkeypatch.chdir(folder)
    assert main.main([*words[:-1], words[-1] + "/proc/new.csv"]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("error: /proc/new.csv: cannot be written (No such file or directory)\n")


def test_an_installed_program_calls_itself_so(folder, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["/usr/bin/mtl-face"])
    output = tmp_path / "run.py evaluated.csv"
    assert main.main(["smooth", f"--predictions={folder / 'a.parquet'}", f"--output={output}"]) == 0
    assert main.main(["settings", "--config.seed"]) == 2
    with pytest.raises(SystemExit):
        main.main(["calibrate", "--help"])
    out, err = capsys.readouterr()
    assert f"next: mtl-face evaluate --predictions={output} " in out
    assert "as in mtl-face smooth" in " ".join(out.split())
    assert "run.py" not in out.replace(str(output), "") + err


def test_names_do_not_act_on_the_terminal(tmp_path, capsys):
    path = tmp_path / "\x1b[2Jpredictions.parquet"
    scorer_files.write_files(tmp_path, 60, "a.parquet")
    (tmp_path / "a.parquet").rename(path)
    output = tmp_path / "\u202esmooth.csv"
    assert main.main(["smooth", f"--predictions={path}", f"--output={output}"]) == 0
    assert output.exists()
    assert main.main(["smooth", f"--predictions={path}\x07", f"--output={output}"]) == 2
    with pytest.raises(SystemExit):
        main.main(["smooth", "--\x1b[31m"])
    out, err = capsys.readouterr()
    assert not {*"\x1b\x07\u202e"} & {*out, *err}
    assert r"\u202esmooth.csv" in out
    assert r"\x1b[2Jpredictions.parquet\x07" in err
    assert r"there is no flag --\x1b[31m" in err


def test_a_bar_may_begin_its_line_anew(capsys):
    with contextlib.redirect_stdout(main._ToTheUser(sys.stdout)):
        print("\r1 of 2", end="")
        print("a\rb")
    assert capsys.readouterr().out == "\r1 of 2a\\rb\n"


def test_settings_in_messages_are_flags(experiment, capsys):
    data = experiment.data / "mine"
    (data / "cropped_aligned").mkdir(parents=True)
    (data / "train.csv").write_text("image,au1\na.jpg,8\n")
    arguments = ["--config.data.kind=manifest", f"--config.data.root={data}"]
    result = experiment.run(capsys, "prepare", *arguments)
    assert_is_users_error(result, " --config.data.manifest.missing_values=-1,-5,8")
    assert "config.config" not in result[2]


@pytest.mark.parametrize("unbuffered", ["", "1"])
@pytest.mark.parametrize("words", [("--help",), ("settings",), EVALUATE], ids=lambda w: w[0])
def test_a_reader_that_went_away_ends_a_command_quietly(words, unbuffered, folder):
    reading, writing = os.pipe()
    os.close(reading)
    try:
        result = subprocess.run(
            [sys.executable, str(ROOT / "run.py"), *words],
            cwd=folder,
            env={**os.environ, "PYTHONUNBUFFERED": unbuffered},
            stdout=writing,
            stderr=subprocess.PIPE,
            text=True,
            timeout=600,
        )
    finally:
        os.close(writing)
    assert result.stderr == ""
    assert result.returncode == 128 + 13


def test_another_broken_pipe_is_a_defect(monkeypatch):
    def fail(arguments):
        raise BrokenPipeError

    monkeypatch.setattr(main, "_run", fail)
    with pytest.raises(BrokenPipeError):
        main.main(["settings"])


@pytest.mark.parametrize("words", [("--help",), ("settings",), EVALUATE], ids=lambda w: w[0])
def test_a_full_disk_under_the_output_is_said(words, folder):
    with open("/dev/full", "w") as full:
        result = subprocess.run(
            [sys.executable, str(ROOT / "run.py"), *words],
            cwd=folder,
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            timeout=600,
        )
    assert result.returncode == 2
    lines = result.stderr.splitlines()
    assert lines[0] == "error: standard output cannot be written: No space left on device"
    assert len(lines) == 2


@pytest.mark.parametrize("closed", [">&-", ">&- 2>&- <&-"])
def test_closed_streams_are_no_mistake(closed, folder):
    """Nor does a file that is opened next take the place of one."""
    command = f"exec {sys.executable} {ROOT / 'run.py'} {' '.join(EVALUATE)} {closed}"
    result = subprocess.run(["sh", "-c", command], cwd=folder, capture_output=True, timeout=600)
    assert (result.returncode, result.stderr) == (0, b"")


def test_a_package_that_is_not_installed_is_named(monkeypatch, capsys):
    def fail(config, options):
        import no_such_package.part  # noqa: F401

    monkeypatch.setattr("mtl_face.cli.commands.settings.run", fail)
    assert main.main(["settings"]) == 2
    error = capsys.readouterr().err
    assert "settings needs no_such_package, which is not installed" in error
    assert "pip install" in error


@pytest.mark.parametrize("same", ["--predictions", "--test_list"])
def test_what_is_read_is_not_written_over(same, folder, capsys):
    path = folder / "input.txt"
    path.write_text("mine")
    words = {"--predictions": "a.parquet", "--test_list": "list.txt", same: str(path)}
    arguments = ["submit", "--edition=abaw7_mtl", f"--output={path}"]
    assert main.main([*arguments, *(f"{name}={value}" for name, value in words.items())]) == 2
    assert f"is the file that {same} reads" in capsys.readouterr().err
    assert path.read_text() == "mine"


@pytest.mark.parametrize(
    ("words", "accelerator", "restarts"),
    [(["train"], False, 1), (["train"], True, 0), (["summarise"], False, 0)],
)
def test_trainings_on_a_processor_restart(monkeypatch, words, accelerator, restarts):
    calls = []
    monkeypatch.setattr(sys, "argv", ["run.py", *words])
    monkeypatch.setattr(main.environment, "has_accelerator", lambda: accelerator)
    monkeypatch.setattr(main.environment, "restart_with_huge_pages", lambda: calls.append(1))
    monkeypatch.setattr(main, "main", lambda: 7)
    assert main.program() == 7
    assert len(calls) == restarts
