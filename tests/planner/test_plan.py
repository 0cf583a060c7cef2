"""`run.py plan`: a plan for this machine's devices, the input's rate, what a user may get wrong."""

import dataclasses
import gzip
import importlib.util
import json
import sys

import jax
import pytest
import small_experiment

from mtl_face import config as config_lib
from mtl_face.cli import main
from mtl_face.errors import ConfigError
from mtl_face.planner import chips, compile_step, flops, plan, programs

try:
    LIBTPU = programs.find_library()
except programs.CompilerError:
    LIBTPU = None

try:
    PLUGIN = programs.find_plugin()
except programs.CompilerError:
    PLUGIN = None

# Few operations, which is what compiling takes its time by.
SMALLEST = (
    "--config.model.encoder_layers=0",
    "--config.model.head_layers=1",
    "--config.model.decoder_mlp=last",
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("plan")
    small_experiment.write_config(folder)
    return folder


@pytest.fixture(autouse=True)
def own_cache(folder, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(folder / "cache"))
    monkeypatch.delenv(programs.FOLDER, raising=False)
    monkeypatch.delenv(programs.GPU_FOLDER, raising=False)


def run(folder, capsys, *words):
    status = main.main(["plan", f"--config={folder / 'small.py'}", *SMALLEST, *words])
    captured = capsys.readouterr()
    return status, captured.out, captured.err


@pytest.fixture(scope="module")
def planned(folder):
    """A plan of a batch of 16 on the eight devices of this process, and what was printed."""
    patch = pytest.MonkeyPatch()
    patch.setenv("XDG_CACHE_HOME", str(folder / "cache"))
    output = folder / "plan.json"
    printed: list[str] = []
    patch.setattr("builtins.print", lambda *words, **_: printed.append(" ".join(map(str, words))))
    status = main.main(
        [
            "plan",
            f"--config={folder / 'small.py'}",
            *SMALLEST,
            "--topology=local",
            "--batch=16",
            f"--output={output}",
        ]
    )
    patch.undo()
    assert status == 0
    return json.loads(output.read_text()), "\n".join(printed)


def test_neither_data_nor_weights_are_needed(planned):
    found, _ = planned
    assert (found["topology"], found["batch_size"], found["fits"]) == ("local", 16, True)
    assert (found["devices"], found["chips"], found["hosts"]) == (8, 8, 1)
    assert found["images_per_chip"] == 2


def test_memory_of_the_state(planned):
    found, _ = planned
    memory = found["memory"]
    assert memory["parameters"] == 4 * found["parameters"]
    assert 2 * memory["parameters"] <= memory["optimizer"] <= 2 * memory["parameters"] + 64
    assert memory["batch"] == 2 * (32 * 32 * 3 + 4 * (2 + 12 + 8) + 4 * (1 + 12 + 1))
    assert memory["output"] < memory["parameters"] / 4, "the state is not donated"
    listed = ("parameters", "optimizer", "statistics", "batch", "padding", "output", "code")
    assert memory["total"] == sum(memory[name] for name in (*listed, "temporaries"))


def test_exchanges_are_one_all_reduce_of_the_gradients_and_statistics(planned):
    found, _ = planned
    gradients = found["gradients"]
    assert gradients["bytes"] == gradients["expected_bytes"] == 4 * found["parameters"]
    assert gradients["missing_elements"] == 0
    assert gradients["dtypes"] == ["f32"]
    assert found["not_gradients"]["bytes"] < 10_000
    assert found["forward"]["count"] > 0  # batch norm of the global batch
    assert {row["kind"] for row in found["collectives"]} == {"all-reduce"}


def test_text_holds_the_figures(planned):
    found, text = planned
    assert "local: 8 chips (cpu), 1 host; 16 images a step, 2 a chip, float32" in text
    assert f"{found['memory']['temporaries'] / 2**30:.3f} GiB" in text
    assert f"{found['arithmetic']['flops_per_image'] / 1e9:.3f} GFLOP" in text
    assert "no published peaks known" in text
    assert "next: " in text


def test_second_call_compiles_nothing(planned, folder, capsys, monkeypatch):
    def refuse(*words):
        raise AssertionError("compiled again")

    monkeypatch.setattr(compile_step, "compile_step", refuse)
    words = ["--topology=local", "--batch=16"]
    # What has no effect on the step has none on the cache.
    words += ["--config.name=other", "--config.data.root=elsewhere", "--config.seed=3"]
    status, out, err = run(folder, capsys, *words)
    assert (status, err) == (0, "")
    assert "by an earlier call" in out
    with pytest.raises(AssertionError, match="compiled again"):
        run(folder, capsys, *words, "--config.model.compute_dtype=bfloat16")


def test_a_cache_that_cannot_be_written(folder, capsys, monkeypatch):
    (folder / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(folder / "file"))
    status, _, err = run(folder, capsys, "--topology=local", "--batch=16")
    assert status == 2
    assert "compiled steps cannot be kept" in err


def test_a_batch_that_does_not_split(folder, capsys):
    status, _, err = run(folder, capsys, "--topology=local", "--batch=12")
    assert status == 2
    assert "batch 12 does not split over 8 devices" in err
    assert "use 8 or 16" in err


def test_an_unknown_topology(folder, capsys):
    status, _, err = run(folder, capsys, "--topology=v5e:4x5")
    assert status == 2
    assert "'v5e:4x5' is unknown" in err
    assert "16x16" in err
    assert "2x2x4" in err


def test_no_compiler_for_tpus(folder, capsys, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    status, _, err = run(folder, capsys, "--topology=v5e:4x4")
    assert status == 2
    target = folder / "cache" / "mtl_face" / "libtpu"
    assert f"{sys.executable} -m pip install --no-deps --target={target}" in err
    assert '"libtpu' in err


def test_no_compiler_for_gpus(folder, capsys):
    status, _, err = run(folder, capsys, "--topology=h100:2x8", "--batch=32")
    assert status == 2
    target = folder / "cache" / "mtl_face" / "cuda_plugin"
    assert f"{sys.executable} -m pip install --no-deps --target={target}" in err
    assert "nvidia-cuda-nvcc nvidia-nvvm" in err


GPU_TEXT = """HloModule jit_step

ENTRY %main (x: bf16[8,4], k: bf16[4,16]) -> (bf16[8,16], s8[99]) {
  %x = bf16[8,4] parameter(0)
  %k = bf16[4,16] parameter(1)
  %g = f32[10] all-reduce(%k), metadata={op_name="jit(step)/transpose(jvp(N))/dot_general"}
  ROOT %p = (bf16[8,16], s8[99]) custom-call(%x, %k), custom_call_target="__cublas$lt$matmul", \
backend_config={"lhs_contracting_dimensions":["1"]}
}
"""


@pytest.fixture
def gpus(folder, monkeypatch):
    """A compiler for GPUs that answers with the text above; memory grows with the batch."""
    text = folder / "gpu.hlo.gz"
    text.write_bytes(gzip.compress(GPU_TEXT.encode()))

    def compiled(config, target, **named):
        _, hosts, of_host = chips.gpu_topology(target.topology)
        share = target.batch_size // (hosts * of_host)
        answer = {
            "platform": "gpu",
            "device_kind": "NVIDIA H100 80GB HBM3",
            "devices": hosts * of_host,
            "chips": hosts * of_host,
            "hosts": hosts,
            "memory_limit": None,
            "fits": True,
            "parameters": 10,
            "parameter_sizes": [10],
            "learned": ["projection/kernel"],
            "shards": 1,
            "seconds": 1.0,
            "arguments": {"parameters": 40, "optimizer": 80, "statistics": 4, "batch": share},
            "memory": {"arguments": 200, "output": 0, "alias": 0, "code": 0}
            | {"temporaries": share * 10**8, "peak": share * 10**8 + 200},
            "flops": 100.0,
            "bytes_accessed": 100.0,
        }
        return programs.Program(answer, text, cached=False)

    monkeypatch.setattr(programs, "compiled", compiled)


def test_gpus_of_two_hosts(folder, capsys, gpus):
    output = folder / "gpu.json"
    words = ["--topology=h100:2x8", "--batch=1600", "--search=0", f"--output={output}"]
    status, out, err = run(folder, capsys, *words)
    assert (status, err) == (0, "")
    found = json.loads(output.read_text())
    assert found["capacity"] == 60 * 10**9  # three quarters
    assert found["memory"]["needed"] == 100 * 10**8 + 200
    # Eight adapters of a host are slower than the links of one GPU.
    assert found["roofline"]["links"] == pytest.approx(found["sent_bytes"] / (8 * 50e9))
    assert "peak            9.313 GiB  of 55.9: 17 %" in out
    assert "cuBLAS    1 lt$matmul" in out
    assert "not known without a GPU" in out


def test_gpus_with_too_little_memory(folder, capsys, gpus):
    """The compiler refuses nothing: what fits is worked out, and so is the largest batch."""
    words = ["--topology=h100:8", "--batch=6400", "--search=3"]
    status, out, _ = run(folder, capsys, *words)
    assert status == 1
    assert "6400 images a step do not fit: the peak is more than a step may take" in out
    assert "largest batch: 4736 fits (compiled)" in out


def test_a_step_that_does_not_fit(folder, capsys, monkeypatch):
    """What the plan says when the compiler refuses, on a chip with little memory."""

    def compiled(config, target, **named):
        fits = target.batch_size <= 512
        answer = {
            "platform": "tpu",
            "device_kind": "TPU v5 lite",
            "devices": 16,
            "chips": 16,
            "hosts": 4,
            "memory_limit": None,
            "fits": fits,
            "parameters": 10,
            "parameter_sizes": [10],
            "learned": [],
            "shards": 1,
            "seconds": 1.0,
            "message": "RESOURCE_EXHAUSTED: no room",
        }
        if fits:
            answer["arguments"] = dict.fromkeys(("parameters", "optimizer", "statistics"), 1)
            answer["arguments"] |= {"batch": target.batch_size}
            answer["memory"] = {"arguments": 900, "output": 0, "alias": 0, "code": 0}
            answer["memory"] |= {"temporaries": target.batch_size * 2**25}
        return programs.Program(answer, folder / "none", cached=False)

    monkeypatch.setattr(programs, "compiled", compiled)
    words = ["--topology=v5e:4x4", "--batch=1024", "--search=3"]
    status, out, _ = run(folder, capsys, *words)
    assert status == 1
    assert "1024 images a step do not fit: RESOURCE_EXHAUSTED" in out
    assert "largest batch: 384 fits (compiled), 512 does not" in out


def test_a_network_over_time(folder, capsys):
    output = folder / "windows.json"
    temporal = {"kind": "attention", "window": 16, "width": 32, "layers": 1}
    words = [f"--config.temporal.{name}={value}" for name, value in temporal.items()]
    words += ["--config.augmentation.mixup_alpha=0", "--topology=local", "--batch=8"]
    status, out, err = run(folder, capsys, *words, f"--output={output}")
    assert (status, err) == (0, "")
    assert "compiling a step of 8 windows for local" in out
    assert "8 windows a step, 1 a chip, float32" in out
    assert "arithmetic and memory traffic, a window" in out
    found = json.loads(output.read_text())
    width = config_lib.load(folder / "small.py", reads_data=False).model.embed_dim
    answers = 2 + 12 + 8
    read = 3 * width * 2 + 4 + 4 * answers  # tokens in float16, gaps, the answers of frames
    assert found["memory"]["batch"] == 16 * (read + 4 * answers + 4 * (1 + 12 + 1))
    # Of the features three tokens, the answers and a distance; eight squares in the layer.
    products = 16 * 32 * (3 * width + answers + 1 + 8 * 32 + 2 * 16 + answers)
    assert found["arithmetic"]["analytical_flops_per_image"] == 3 * 2 * products
    assert 1 < found["arithmetic"]["ratio"] < 2  # a small network: the optimizer counts
    status, _, err = run(folder, capsys, *words, "--input_rate=1000")
    assert status == 2
    assert "reads windows, and --input_rate is of images" in err


@pytest.mark.slow
@pytest.mark.skipif(LIBTPU is None, reason="no libtpu; docs/scaling.md says how to get it")
def test_a_slice_of_tpus(folder, capsys, monkeypatch):
    """With the TPU's compiler, if it is here: the exchanges of a pod slice."""
    monkeypatch.setenv(programs.FOLDER, str(LIBTPU.parents[1]))
    output = folder / "tpu.json"
    words = ["--topology=v5e:4x4", "--batch=64", "--effort=low", "--search=0"]
    frozen = "--config.model.backbone.batch_norm=frozen"
    status, _, err = run(folder, capsys, *words, frozen, f"--output={output}")
    assert (status, err) == (0, "")
    found = json.loads(output.read_text())
    assert (found["chips"], found["hosts"]) == (16, 4)
    assert found["forward"]["count"] == 0
    # The biases of `bn3` and `proj_bn` are added to one map: one sum is the gradient of both.
    assert found["gradients"]["missing_elements"] == 8 * 2
    assert found["gradients"]["dtypes"] == ["f32"]
    assert found["roofline"]["images_per_second"] > 0


@pytest.mark.slow
@pytest.mark.skipif(PLUGIN is None, reason="no CUDA plugin; docs/scaling.md says how to get it")
def test_two_gpus(folder, capsys, monkeypatch):
    """With the GPU's compiler, if it is here: exchanges, library calls and peak of two GPUs."""
    monkeypatch.setenv(programs.GPU_FOLDER, str(PLUGIN.parents[2]))
    output = folder / "gpus.json"
    narrow = "--config.model.compute_dtype=bfloat16"
    words = ["--topology=h100:2", "--batch=16", "--search=0", f"--output={output}"]
    status, _, err = run(folder, capsys, *words, narrow)
    assert (status, err) == (0, "")
    found = json.loads(output.read_text())
    assert (found["chips"], found["hosts"], found["fits"]) == (2, 1, True)
    assert found["gradients"]["bytes"] == found["gradients"]["expected_bytes"]
    assert found["gradients"]["dtypes"] == ["f32"]
    assert found["forward"]["count"] > 0
    program = found["program"]
    convolutions = [row for row in program["libraries"] if row["library"] == "cuDNN"]
    assert {row["dtype"] for row in convolutions} == {"bf16"}
    assert {"convForward", "convBackwardFilter"} <= {row["target"] for row in convolutions}
    assert program["scatters"]["count"] == 0
    flops = sum(row["flops"] for row in program["libraries"])
    closed_form = 8 * found["arithmetic"]["analytical_flops_per_image"]
    assert 1 <= flops / closed_form < 1.2  # a few channels are padded
    assert 0 < found["memory"]["needed"] < found["memory"]["total"] + 1


def test_closed_form_is_that_of_the_config(folder):
    settings = config_lib.load(folder / "small.py", reads_data=False)
    parts = flops.by_part(settings.model)
    assert set(parts) == {"stem", "stage1", "projection", "encoder", "decoder", "heads"}
    assert parts["projection"].forward == 2 * 8 * 8 * 16 * 16
    assert jax.device_count() == 8


MEASURED = {
    "cores": 2,
    "images_per_second": {
        "112": {
            "bare decode loop": 9000.0,
            "ours, from files": 5000.5,
            "ours, from shards (tfrecord)": 6000.0,
            "ours, from shards (array_record)": 6100.0,
            "ours, from memory": 90000.0,
        },
        "224": {"ours, from files": 1500.0},
    },
}


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "input.json"
    path.write_text(json.dumps(MEASURED))
    return path


def rate(text, size, source):
    data = {"image_size": size}
    data |= {"shards": "/shards"} if source == "shards" else {"source": source}
    config = config_lib.Config()
    config = dataclasses.replace(config, data=dataclasses.replace(config.data, **data))
    return plan.measured_input(config, text)


def test_a_number():
    assert rate("1500.5", 112, "files") == 1500.5


@pytest.mark.parametrize(
    ("size", "source", "expected"),
    [
        (112, "files", 5000.5),
        (112, "shards", 6100.0),
        (112, "memory", 90000.0),
        (224, "files", 1500.0),
    ],
)
def test_a_file(file, size, source, expected):
    assert rate(str(file), size, source) == expected


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ([], 5000.5),
        (["data.source=memory"], 90000.0),
        (["data.shards=/shards"], 6100.0),
        (["data.shards=/shards", "data.source=memory"], 6100.0),
    ],
)
def test_the_way_of_reading_that_the_settings_name(file, folder, monkeypatch, settings, expected):
    """As the command line loads them, with what `plan` presets."""
    found, measure = [], plan.measured_input

    def compiled(*words, **named):
        raise ConfigError("nothing is compiled")

    monkeypatch.setattr(plan, "measured_input", lambda *words: found.append(measure(*words)))
    monkeypatch.setattr(programs, "compiled", compiled)
    overrides = [f"--config.{setting}" for setting in ["data.image_size=112", *settings]]
    words = [f"--config={folder / 'small.py'}", "--topology=local", f"--input_rate={file}"]
    assert main.main(["plan", *words, *overrides]) == 2
    assert found == [expected]


@pytest.mark.parametrize("text", ["0", "-3", "nan", "inf"])
def test_no_rate(text):
    with pytest.raises(ConfigError, match=f"--input_rate={text} is no rate"):
        rate(text, 112, "files")


def test_what_the_file_lacks(file):
    with pytest.raises(ConfigError, match=r"images of 112, 224 pixels, data\.image_size is 96"):
        rate(str(file), 96, "files")
    with pytest.raises(ConfigError, match="no rate of this program's input from shards"):
        rate(str(file), 224, "shards")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"{", "is no JSON"),
        (b"\xff\xfe", "is no JSON"),
        (b"[" * 100_000, "is no JSON"),
        (b"[]", "holds no measured rates"),
        (b'{"images_per_second": {"112": 3}}', "holds no measured rates"),
    ],
)
def test_another_file(tmp_path, content, words):
    path = tmp_path / "input.json"
    path.write_bytes(content)
    with pytest.raises(ConfigError, match=words):
        rate(str(path), 112, "files")


def test_no_file(tmp_path):
    with pytest.raises(ConfigError, match="is no number and cannot be read"):
        rate(str(tmp_path / "input.json"), 112, "files")
