"""The sections of `benchmarks.gpu`, each run as a process: python -m benchmarks.gpu_sections JSON.

A section appends to `rows` (what `benchmarks.gpu` keeps as it is) and `groups` (times of several
ways), and writes all after each. PyTorch is imported in the one section that compares with it: its
CUDA libraries and JAX's can contradict each other, which must not cost the other sections.
"""

import contextlib
import dataclasses
import fcntl
import functools
import gc
import hashlib
import json
import math
import os
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from scipy import ndimage

import mtl_face
from benchmarks import comparison, jax_step
from mtl_face import files
from mtl_face.config import Config
from mtl_face.planner.compile_step import abstract_batch
from mtl_face.run import environment
from mtl_face.training.experiment import Experiment
from mtl_face.training.sharding import path_keys, replicated
from mtl_face.training.state import TrainState

PRECISIONS = {
    "bfloat16": ("bfloat16", "default"),
    "TF32": ("float32", "default"),
    "float32": ("float32", "highest"),
}
"""`model.compute_dtype` and JAX's matmul precision by name. On NVIDIA's cards JAX's default for
float32 is TF32: it is what a run of a float32 preset takes."""

TOLERANCES = {
    "float32": {"loss": 1e-5, "gradients": 2e-3, "parameters": 0.03, "statistics": 1e-5},
    "TF32": {"loss": 1e-3, "gradients": 0.1, "parameters": 0.6, "statistics": 1e-3},
    "bfloat16": {"loss": 5e-3, "gradients": 0.3, "parameters": 0.9, "statistics": 1e-2},
}
"""Largest differences from the CPU's float32, see `difference`.

Two to ten times what PyTorch's network of the tests gives on a CPU, with 8 such images of 112
pixels: float32 against float64 (gradients 2e-4, parameters 6e-3), factors rounded to TF32 (0.026,
0.19), and autocast to bfloat16 (0.09, 0.39). A wrong step differs by 1 and more in both.
"""

BRANCH_SCALE = 0.1
"""Of each residual branch's last norm, for parity. With the initial 1 rounding grows from block to
block: there float32 differs from float64 by 3 % in the gradients, and TF32 by 66 %."""

FIRST_COMPILE_SECONDS = 60.0
FIRST_GROUP_SECONDS = 20.0
"""What batches beside PyTorch take with and without its compiler, until one was measured."""

SECONDS_A_ROUND = 0.2

TINY = {
    "model.input_size": 32,
    "model.backbone.stage_sizes": (1,),
    "model.backbone.width": 8,
    "model.backbone.expansion": 2,
    "model.backbone.convolution": "xla",
    "model.embed_dim": 16,
    "model.num_heads": 4,
    "model.encoder_layers": 1,
    "model.decoder_modules": 1,
    "model.head_layers": 2,
    "model.head_width": 16,
    "data.image_size": 24,
}


class OutOfTimeError(Exception):
    """The time of the section is over."""


@dataclasses.dataclass
class Task:
    """A section at work: what was asked for, and what it has found.

    Attributes:
        asked: JSON values from `benchmarks.gpu`: its flags, `section`, `keep` (the file to write)
            and `until` (seconds since the epoch).
    """

    asked: dict[str, Any]
    rows: list[dict[str, Any]] = dataclasses.field(default_factory=list)
    groups: list[comparison.Group] = dataclasses.field(default_factory=list)
    status: str = "done"

    @property
    def middle(self) -> int:
        """The batch at which parts are measured."""
        sizes = sorted(self.asked["batch_sizes"])
        return sizes[len(sizes) // 2]

    def settings(self, compute_dtype: str, preset: str = "paper", **changes: Any) -> Config:
        """A preset, in tiny where asked for."""
        small = TINY if self.asked["tiny"] else {}
        fixed = {"data.root": ".", "model.compute_dtype": compute_dtype}
        return mtl_face.load_config(preset, **(fixed | small | changes))

    def add(self, row: dict[str, Any]) -> None:
        """Keeps and prints a row."""
        self.rows.append(row)
        words = (f"{name} {_short(value)}" for name, value in row.items() if value is not None)
        print("  " + ", ".join(words), flush=True)
        self.write()

    def compare(self, group: comparison.Group) -> None:
        """Keeps and prints times."""
        self.groups.append(group)
        comparison.show(group)
        self.write()

    def write(self) -> None:
        """All that is there, for `benchmarks.gpu`."""
        values = {"rows": self.rows, "status": self.status}
        groups = [dataclasses.asdict(group) for group in self.groups]
        files.write_json(self.asked["keep"], values | {"groups": groups})

    def check_time(self, needed: float = 0.0) -> None:
        """OutOfTimeError where so many seconds are no longer left."""
        if time.time() + needed > self.asked["until"]:
            raise OutOfTimeError


def main() -> int:
    """Runs the section that the argument names; what goes wrong ends in its status."""
    task = Task(json.loads(sys.argv[1]))
    try:
        SECTIONS[task.asked["section"]](task)
    except OutOfTimeError:
        task.status = "incomplete: its time was over"
    except Exception as error:
        traceback.print_exc()
        task.status = f"failed: {_reason(error)}"
    task.write()
    return int(task.status.startswith("failed"))


def device(task: Task) -> None:
    """The card, its driver and memory; fails where JAX finds no GPU."""
    first = jax.devices()[0]
    if task.asked["device"] == "gpu" and first.platform != "gpu":
        raise RuntimeError(f"JAX found only {first.platform}")
    row: dict[str, Any] = {"card": first.device_kind}
    with contextlib.suppress(OSError, subprocess.SubprocessError):
        query = ["nvidia-smi", "--query-gpu=driver_version,memory.total", "--format=csv,noheader"]
        found = subprocess.run(query, capture_output=True, text=True, check=True, timeout=20)
        driver, _, memory = found.stdout.splitlines()[0].partition(", ")
        row |= {"driver": driver, "memory": memory}
    task.add(row)


# Parity

_TRACING = threading.Lock()
"""Steps are compiled at the same time, but traced one after the other: two traces can disturb each
other (`dictionary changed size during iteration`)."""


def parity(task: Task) -> None:
    """One train step of the paper's preset, augmentation and dropout included, against the CPU."""
    count = min(task.asked["batch_sizes"][0], 8)
    settings = task.settings("float32")
    batch = jax_step.make_batch(settings.data.image_size, count)
    batch["image"] = _pictures(settings.data.image_size, count)
    start = _well_conditioned(Experiment(settings, devices=jax.devices("cpu")[:1]).make_state())
    before = _host_copy(start)

    def step_on(device: jax.Device, precision: str) -> dict[str, Any]:
        dtype, products = PRECISIONS[precision]
        with _TRACING, jax.default_matmul_precision(products):
            parts = Experiment(task.settings(dtype), devices=[device])
            # The step is given its state to keep: a copy for each.
            state = jax.device_put(start, parts.state_shardings, may_alias=False)
            held = jax.device_put(np.float32(0), replicated(parts.mesh))
            given = jax.device_put(batch, device)
            train_step: Any = parts.train_step()
            lowered = train_step.lower(state, given, held)
        state, numbers = lowered.compile()(state, given, held)
        return _host_copy(state) | {"loss": float(numbers["loss"])}

    with ThreadPoolExecutor() as pool:
        expected = pool.submit(step_on, jax.devices("cpu")[0], "float32")
        found = {
            precision: pool.submit(step_on, jax.devices()[0], precision)
            for precision in ("float32", "TF32", "bfloat16")
        }
        for precision, outcome in found.items():
            try:
                differences = difference(outcome.result(), expected.result(), before)
            except Exception as error:
                task.add({"precision": precision, "passed": False, "error": _reason(error)})
                continue
            for what, value in differences.items():
                limit = TOLERANCES[precision][what]
                task.add(
                    {
                        "precision": precision,
                        "of": what,
                        "difference": value if math.isfinite(value) else str(value),
                        "tolerance": limit,
                        "passed": value <= limit,
                    }
                )


def difference(found: dict, expected: dict, before: dict) -> dict[str, float]:
    """How far a step is from the expected one.

    The loss: relative. The gradients (AdamW's first moments, a tenth of them) and the batch norms'
    statistics: norm of the difference over the norm. The parameters: over the norm of their change
    by the step; AdamW's first step has the size of the learning rate whatever the gradient is, so
    that a gradient of rounding alone, as that of a key's bias, counts there like any other.
    """

    def norm(values: Any) -> float:
        return float(np.linalg.norm(values))

    change = norm(expected["parameters"] - before["parameters"])
    return {
        "loss": abs(found["loss"] - expected["loss"]) / abs(expected["loss"]),
        "gradients": norm(found["gradients"] - expected["gradients"]) / norm(expected["gradients"]),
        "parameters": norm(found["parameters"] - expected["parameters"]) / change,
        "statistics": norm(found["statistics"] - expected["statistics"])
        / norm(expected["statistics"]),
    }


def _pictures(size: int, count: int) -> np.ndarray:
    """Smooth random images of different contrast: of noise, all would look the same inside."""
    rng = np.random.default_rng(0)
    coarse = rng.integers(0, 256, (count, 4, 4, 3)) * rng.uniform(0.2, 1.0, (count, 1, 1, 1))
    return ndimage.zoom(coarse, (1, size / 4, size / 4, 1), order=1).astype(np.uint8)


def _well_conditioned(state: TrainState) -> TrainState:
    """The state with residual branches that add little, see `BRANCH_SCALE`."""

    def scaled(path: tuple[Any, ...], leaf: jax.Array) -> jax.Array:
        return leaf * BRANCH_SCALE if path_keys(path)[-2:] == ["bn3", "scale"] else leaf

    params = jax.tree_util.tree_map_with_path(scaled, state.params)
    return dataclasses.replace(state, params=params)


def _host_copy(state: TrainState) -> dict[str, Any]:
    """Parameters, first moments and statistics, each as one float64 vector."""
    moments = [
        leaf
        for path, leaf in jax.tree_util.tree_flatten_with_path(state.opt_state)[0]
        if "mu" in path_keys(path)
    ]
    trees = {"parameters": state.params, "gradients": moments, "statistics": state.batch_stats}
    return {
        name: np.concatenate([np.asarray(leaf, np.float64).ravel() for leaf in jax.tree.leaves(t)])
        for name, t in trees.items()
    }


# Memory


def memory(task: Task) -> None:
    """The step as the preset has it: the compiler's account, and the allocator's peak."""
    plan = task.asked["plan"]
    if plan is not None:
        known = ("topology", "device_kind", "batch_size", "compute_dtype", "fits")
        expected = plan.get("memory") or {}
        sizes = {f"plan {kind} MiB": _mib(expected.get(kind)) for kind in ("total", "needed")}
        task.add({f"plan {name}": plan.get(name) for name in known} | sizes)
    wanted = [
        (size, precision)
        for size in task.asked["batch_sizes"]
        for precision in ("bfloat16", "TF32")
    ]
    with ThreadPoolExecutor() as pool:
        programs = [pool.submit(_compiled_step, task, *each) for each in wanted]
    found = []
    for (size, precision), program in zip(wanted, programs, strict=True):
        row: dict[str, Any] = {"batch": size, "precision": precision}
        try:
            account = program.result().memory_analysis()
        except Exception as error:
            task.add(row | {"fits": False, "error": _reason(error)})
            continue
        kinds = ("argument", "output", "alias", "temp", "generated_code")
        bytes_of = {kind: getattr(account, f"{kind}_size_in_bytes") for kind in kinds}
        total = sum(bytes_of.values()) - 2 * bytes_of["alias"]
        row |= {f"{kind} MiB": _mib(value) for kind, value in bytes_of.items()}
        row |= {"total MiB": _mib(total), "needed MiB": _mib(account.peak_memory_in_bytes)}
        found.append((total, row, program.result()))
    _run_for_peaks(task, found)


def _compiled_step(task: Task, size: int, precision: str) -> Any:
    dtype, products = PRECISIONS[precision]
    settings = task.settings(dtype)
    with _TRACING, jax.default_matmul_precision(products):
        parts = Experiment(settings, devices=jax.devices()[:1])
        batch = abstract_batch(size, settings, mesh=parts.mesh)
        held = jax.ShapeDtypeStruct((), jnp.float32, sharding=replicated(parts.mesh))
        train_step: Any = parts.train_step()
        lowered = train_step.lower(parts.state_like, batch, held)
    return lowered.compile()


def _run_for_peaks(task: Task, found: list[tuple[int, dict[str, Any], Any]]) -> None:
    settings = task.settings("float32")
    first = jax.devices()[0]
    state = Experiment(settings, devices=[first]).make_state()
    held = jnp.float32(0)
    peak = 0
    # The allocator tells the peak of the process: the smaller steps have to come first.
    for _, row, program in sorted(found, key=lambda each: each[0]):
        task.check_time()
        batch = jax.device_put(jax_step.make_batch(settings.data.image_size, row["batch"]), first)
        try:
            for _ in range(2):
                state, _ = program(state, batch, held)
            jax.block_until_ready(state)
        except Exception as error:
            task.add(row | {"fits": False, "error": _reason(error)})
            return
        held_bytes = first.memory_stats() or {}
        reached = held_bytes.get("peak_bytes_in_use", 0)
        row["measured peak MiB"] = _mib(reached) if reached > peak else None
        row["limit MiB"] = _mib(held_bytes.get("bytes_limit"))
        peak = max(peak, reached)
        task.add(row | {"fits": True})


# Augmentation


def augmentation(task: Task) -> None:
    """What the geometry and MixUp take of a step without dropout."""
    for precision in ("bfloat16", "TF32"):
        task.check_time()
        dtype, products = PRECISIONS[precision]
        changes = {"model.dropout": 0.0}
        mixed = Experiment(
            task.settings(dtype, "paper_mixup", **changes), devices=jax.devices()[:1]
        )
        plain = Experiment(task.settings(dtype, **changes), devices=jax.devices()[:1])
        data, model = plain.config.data, plain.config.model
        stored = jax_step.make_batch(data.image_size, task.middle)
        resized = jax_step.make_batch(model.input_size, task.middle)
        variants = {
            "geometry and MixUp": (stored, mixed.augment),
            "geometry": (stored, plain.augment),
            "neither": (resized, jax_step.as_float),
        }
        ways = {
            label: _at(products, jax_step.train_way(plain, batch, augment))
            for label, (batch, augment) in variants.items()
        }
        with ThreadPoolExecutor() as pool:
            list(pool.map(lambda way: way(), ways.values()))
        times = _timed(task, ways, task.middle)
        title = f"train step, batch {task.middle}, {precision}"
        group = comparison.Group(title, "neither", "ms an image", times)
        task.compare(group)
        whole = times["geometry and MixUp"]
        shares = {}
        for name, without in (("MixUp", "geometry"), ("geometry and MixUp", "neither")):
            rounds = zip(whole, times[without], strict=True)
            shares[name] = comparison.spread([1 - rest / all_ for all_, rest in rounds])
        for name, share in shares.items():
            task.add(
                {"precision": precision, "share of": name, "of the step": dataclasses.asdict(share)}
            )


# Determinism


def determinism(task: Task) -> None:
    """Parameter bytes of two processes with the flags that promise them equal, and their cost."""
    pair = [_start_steps(task, f"gpu_deterministic {number}") for number in (1, 2)]
    deterministic = [_end_steps(task, *started) for started in pair]
    digests = [row["digest"] for row in deterministic]
    steps = deterministic[0]["steps"]
    task.add({"steps": steps, "digests": digests, "passed": digests[0] == digests[1]})
    free = _end_steps(task, *_start_steps(task, "none"))
    times = {"none": free["times"], "gpu_deterministic": deterministic[0]["times"]}
    title = f"training.xla_preset, train step, batch {task.middle}, TF32"
    task.compare(comparison.Group(title, "none", "ms an image", times))


def _start_steps(task: Task, name: str) -> tuple[subprocess.Popen, Path]:
    preset = name.partition(" ")[0]
    kept = Path(task.asked["keep"]).with_name(f"{name}.json")
    found = dict(os.environ)
    # Compiled anew by each process: bits that depend on the compiler's choices must show.
    cache = "workdir" if preset == "none" else "off"
    environment.prepare(preset=preset, compilation_cache=cache, environment=found)
    request = task.asked | {"section": "steps", "keep": str(kept)}
    words = [sys.executable, "-m", "benchmarks.gpu_sections", json.dumps(request)]
    return subprocess.Popen(words, env=found, stdout=subprocess.DEVNULL), kept


def _end_steps(task: Task, process: subprocess.Popen, kept: Path) -> dict[str, Any]:
    try:
        process.wait(timeout=max(task.asked["until"] - time.time(), 0.1))
    except subprocess.TimeoutExpired as error:
        process.kill()
        raise OutOfTimeError from error
    answer = json.loads(kept.read_text()) if kept.exists() else {"status": "it wrote nothing"}
    if process.returncode != 0:
        raise RuntimeError(f"{kept.stem}: {answer['status']} (exit {process.returncode})")
    return answer["rows"][0]


def steps(task: Task) -> None:
    """Some steps of the preset as it trains: a digest of the parameters, and times."""
    settings = task.settings("float32")
    parts = Experiment(settings, devices=jax.devices()[:1])
    state, held = parts.make_state(), jnp.float32(0)
    batch = jax.device_put(jax_step.make_batch(settings.data.image_size, task.middle))
    train_step = parts.train_step()
    count = 5
    for _ in range(count):
        state, numbers = train_step(state, batch, held)
    digest = hashlib.sha256()
    for path, leaf in jax.tree_util.tree_flatten_with_path(state.params)[0]:
        digest.update(jax.tree_util.keystr(path).encode())
        digest.update(np.asarray(leaf).tobytes())

    def train(calls: int = 1) -> None:
        nonlocal state
        for _ in range(calls):
            state, _ = train_step(state, batch, held)
        jax.block_until_ready(state)

    # One process at a time: they share the card.
    with Path(task.asked["keep"]).with_name("lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        times = _timed(task, {"steps": train}, task.middle)["steps"]
    row = {"steps": count, "digest": digest.hexdigest(), "loss": float(numbers["loss"])}
    task.add(row | {"times": times})


# Speed


def throughput(task: Task) -> None:
    """Train step and prediction beside PyTorch, the most telling first."""
    sizes = sorted(task.asked["batch_sizes"])
    order = [
        (size, precision)
        for size in [task.middle, *(size for size in reversed(sizes) if size != task.middle)]
        for precision in PRECISIONS
    ]
    compile_seconds, group_seconds = FIRST_COMPILE_SECONDS, FIRST_GROUP_SECONDS
    for index, (size, precision) in enumerate(order):
        left = task.asked["until"] - time.time()
        later = group_seconds if size == task.middle else group_seconds * (len(order) - index)
        compiled = left > compile_seconds + later
        if task.asked["tiny"] and index:
            compiled = False  # minutes of a C++ compiler, which has shown by then that it works
        if left < group_seconds and index:
            unfinished = [f"{size} {precision}" for size, precision in order[index:]]
            task.add({"without time for": unfinished})
            raise OutOfTimeError
        start = time.time()
        _compare_with_torch(task, size, precision, compiled=compiled)
        taken = time.time() - start
        if compiled:
            compile_seconds = taken
        else:
            group_seconds = taken


def _compare_with_torch(task: Task, size: int, precision: str, *, compiled: bool) -> None:
    from benchmarks import train_step

    torch = train_step.torch
    cuda = task.asked["device"] == "gpu"
    for part in (torch.backends.cuda.matmul, torch.backends.cudnn):
        part.allow_tf32 = precision != "float32"
    torch.backends.cudnn.benchmark = True
    if cuda:
        torch.cuda.set_per_process_memory_fraction(0.48)
    dtype, products = PRECISIONS[precision]
    settings = task.settings(dtype, **{"model.dropout": 0.0})
    batch = jax_step.make_batch(settings.model.input_size, size)

    def ours() -> dict[str, jax_step.Way]:
        pair = jax_step.ways(settings, batch)
        pair = {kind: _at(products, way) for kind, way in pair.items()}
        with ThreadPoolExecutor() as pool:
            list(pool.map(lambda way: way(), pair.values()))
        return pair

    def theirs(compiled: bool) -> dict[str, jax_step.Way]:
        pair = train_step.torch_ways(
            train_step.PaperNetwork(settings.model, attention=False),
            batch,
            compiled=compiled,
            layout=torch.channels_last,
            device="cuda" if cuda else "cpu",
            bfloat16=precision == "bfloat16",
        )
        for way in pair.values():
            way()
        return pair

    found: dict[str, dict[str, jax_step.Way]] = {}
    left_out: dict[str, str] = {}

    def keep(label: str, make: Callable[[], dict[str, jax_step.Way]]) -> None:
        try:
            found[label] = make()
        except Exception as error:
            left_out[label] = _reason(error)

    with ThreadPoolExecutor(1) as pool:
        # JAX compiles while PyTorch does.
        waiting = pool.submit(keep, "mtl_face", ours)
        keep("PyTorch, channels-last", functools.partial(theirs, False))
        label = "PyTorch, compiled, channels-last"
        if compiled:
            keep(label, functools.partial(theirs, True))
        else:
            left_out[label] = "not compiled, to save time"
        waiting.result()
    if left_out:
        task.add({"batch": size, "precision": precision, "left out": left_out})
    for kind in ("train step", "forward"):
        ways = {label: pair[kind] for label, pair in found.items()}
        if not ways:
            continue
        times = _timed(task, ways, size)
        others = len(ways) > 1 and "mtl_face" in ways
        reference = train_step.best_of_torch(times) if others else next(iter(ways))
        title = f"{kind}, batch {size}, {precision}"
        task.compare(comparison.Group(title, reference, "ms an image", times))
        medians = {label: comparison.spread(values).median for label, values in times.items()}
        task.add(
            {"batch": size, "precision": precision, "of": kind}
            | {f"images/s, {label}": 1e3 / median for label, median in medians.items()}
        )
    found.clear()
    torch._dynamo.reset()  # else it gives up compiling what it has compiled eight times
    gc.collect()
    if cuda:
        torch.cuda.empty_cache()


def _timed(task: Task, ways: dict[str, jax_step.Way], images: int) -> dict[str, list[float]]:
    """Milliseconds an image of ways that have been called before, in turn."""
    calls = {}
    for label, way in ways.items():
        start = time.perf_counter()
        way(2)
        calls[label] = max(1, round(SECONDS_A_ROUND * 2 / (time.perf_counter() - start)))
    seconds = comparison.time_in_turn(
        {label: functools.partial(way, calls[label]) for label, way in ways.items()},
        rounds=task.asked["rounds"],
    )
    return {
        label: [1e3 * value / calls[label] / images for value in values]
        for label, values in seconds.items()
    }


def _at(products: str, way: jax_step.Way) -> jax_step.Way:
    """The way with JAX's matmul precision set."""

    def call(calls: int = 1) -> None:
        with jax.default_matmul_precision(products):
            way(calls)

    return call


def _reason(error: Exception) -> str:
    text = str(error).strip()
    return f"{type(error).__name__}: {text.splitlines()[0][:300]}" if text else repr(error)


def _mib(size: int | None) -> int | None:
    return None if size is None else round(size / 2**20)


def _short(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)


SECTIONS = {
    each.__name__: each
    for each in (device, parity, memory, augmentation, determinism, steps, throughput)
}


if __name__ == "__main__":
    sys.exit(main())
