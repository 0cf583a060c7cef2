"""Cadence, progress, stopping and refusing, on a step that only counts."""

import dataclasses
import gc
import itertools
import re
import signal
import threading

import jax
import jax.numpy as jnp
import pytest

from mtl_face.training import loop
from mtl_face.training.history import History, read
from mtl_face.training.stop import StopRequest


@dataclasses.dataclass
class CountingState:
    step: jax.Array


class FakeCheckpoints:
    """Notes what it is asked to save."""

    def __init__(self):
        self.saved = []
        self.waited = False

    def save(self, step, state, *, score=None):
        assert int(state.step) == step
        self.saved.append((step, score))

    def wait(self):
        self.waited = True


class Run:
    """A run of the loop with everything it did."""

    def __init__(self, path, **options):
        self.lines, self.scalars, self.batches_taken = [], [], 0
        self.checkpoints, self.stop, self.path = FakeCheckpoints(), StopRequest(), path
        self.on_step = options.pop("on_step", lambda run, step: None)
        self.on_evaluate = options.pop("on_evaluate", lambda run, step: None)
        start = options.pop("start", 0)
        cadence = {
            "total_steps": 10,
            "steps_per_epoch": 5,
            "examples_per_step": 4,
            "log_every": 2,
            "evaluate_every": 5,
            "checkpoint_every": 3,
        }
        cadence = {name: options.pop(name, value) for name, value in cadence.items()}
        self.last = loop.Loop(
            **{
                "cadence": loop.Cadence(**cadence),
                "train_step": self.step,
                "batches": self.batches(start),
                "evaluate": self.evaluate,
                "learning_rates": {"rest": lambda step: 0.5 * step},
                "checkpoints": self.checkpoints,
                "history": History(path, after_step=start),
                "write_scalars": lambda step, numbers: self.scalars.append((step, numbers)),
                "say": self.lines.append,
                "stop": self.stop,
                **options,
            },
        ).run(CountingState(jnp.int32(start)))

    def batches(self, start):
        for index in itertools.count(start):
            self.batches_taken += 1
            yield {"index": index}

    def step(self, state, batch):
        # The transfers of this stand-in are its own business.
        with jax.transfer_guard("allow"):
            step = int(state.step)
            assert batch["index"] == step
            self.on_step(self, step + 1)
            numbers = {
                "loss": jnp.float32(step + 1),
                "gradient_norm": jnp.float32(1.0),
            }
            return CountingState(state.step + 1), numbers

    def evaluate(self, state):
        step = int(state.step)
        self.on_evaluate(self, step)
        return {"score": step / 100, "va": 0.25}

    @property
    def saved_steps(self):
        return [step for step, _ in self.checkpoints.saved]

    def rows(self, name):
        return {row["step"]: row[name] for row in read(self.path) if name in row}


@pytest.fixture
def path(tmp_path):
    return tmp_path / "history.jsonl"


def test_cadence(path):
    run = Run(path)
    assert int(run.last.step) == 10
    assert run.batches_taken == 10
    # checkpoints every 3, evaluations every 5, and both at the end
    assert run.checkpoints.saved == [(3, None), (5, 0.05), (6, None), (9, None), (10, 0.1)]
    assert run.checkpoints.waited
    assert run.rows("validation/score") == {5: 0.05, 10: 0.1}
    # progress every 2, and at each checkpoint; a row is the mean since the row before
    assert run.rows("train/loss") == {
        2: 1.5,
        3: 3.0,
        4: 4.0,
        5: 5.0,
        6: 6.0,
        8: 7.5,
        9: 9.0,
        10: 10,
    }
    assert run.rows("epoch")[8] == 1.6
    assert run.rows("learning_rate/rest")[8] == 3.5  # the rate that step 8 used, the eighth from 0


@pytest.mark.parametrize("log_every", [1, 2])
def test_laps_of_the_first_step_alone(path, log_every):
    parts = []
    Run(path, start=4, log_every=log_every, lap=parts.append)
    assert parts == ["input", "compile", loop.FIRST_STEP]


def test_the_collector_rests_in_the_first_step_alone(path):
    seen = []
    Run(path, start=4, on_step=lambda run, step: seen.append(gc.isenabled()))
    assert seen == [False] + [True] * 5


def test_last_step_is_evaluated_whatever_the_cadence(path):
    run = Run(path, evaluate_every=100, checkpoint_every=100, log_every=100)
    assert run.checkpoints.saved == [(10, 0.1)]
    assert run.rows("train/loss") == {10: 5.5}


def test_what_goes_to_the_writer_is_what_goes_to_the_file(path):
    run = Run(path)
    rows = read(path)
    assert len(rows) == len(run.scalars)
    for row, (step, numbers) in zip(rows, run.scalars, strict=True):
        assert row["step"] == step
        assert {name: row[name] for name in numbers} == numbers


def stop_at(step):
    """A signal that arrives while a step runs."""

    def callback(run, current):
        if current == step:
            run.stop.signal = signal.SIGTERM

    return callback


def test_lines_of_progress(path):
    run = Run(path, total_steps=7200, on_step=stop_at(4))
    line = run.lines[-1]
    assert re.fullmatch(
        r"step 4/7200 \(epoch 0\.80\) loss 4\.0000 \| "
        r"[\d.]+ steps/s, \d+ images/s, ETA (\d+:)?\d{1,2}:\d\d",
        line,
    ), line
    per_second, images = run.rows("speed/steps_per_second"), run.rows("speed/images_per_second")
    assert per_second.keys() == images.keys() == {2, 3, 4}
    for step, speed in per_second.items():
        assert speed > 0
        assert images[step] == pytest.approx(4 * speed)


def test_evaluations_are_reported(path):
    run = Run(path)
    total = "the sum of va, since P is not defined"
    assert f"step 5: validation score 0.0500 ({total}) va 0.2500" in run.lines
    whole = {"score": 0.6, "p": 0.6, "va": 0.1, "au": 0.2, "expr": 0.3}
    path.unlink()
    run = Run(path, evaluate=lambda state: whole)
    words = "score 0.6000 p 0.6000 va 0.1000 au 0.2000 expr 0.3000"
    assert f"step 10: validation {words}" in run.lines


def test_time_left():
    assert [loop._clock(seconds) for seconds in (0.4, 59.6, 3599, 3600, 90061)] == [
        "0:00",
        "1:00",
        "59:59",
        "1:00:00",
        "25:01:01",
    ]


class Clock:
    """Time that passes where the test says so."""

    def __init__(self, monkeypatch):
        self.now = 100.0
        monkeypatch.setattr(loop.time, "perf_counter", lambda: self.now)

    def pass_seconds(self, seconds):
        self.now += seconds


def test_speed_counts_neither_compiling_nor_evaluating(path, monkeypatch):
    clock = Clock(monkeypatch)

    def on_step(run, step):
        clock.pass_seconds(30.0 if step == 1 else 0.5)

    run = Run(
        path,
        total_steps=20,
        log_every=4,
        checkpoint_every=100,
        on_step=on_step,
        on_evaluate=lambda run, step: clock.pass_seconds(7.0),
    )
    speeds = run.rows("speed/steps_per_second")
    assert set(speeds) == {4, 5, 8, 10, 12, 15, 16, 20}
    for step, speed in speeds.items():
        assert speed == pytest.approx(2.0), step
    assert "2.00 steps/s, 8 images/s, ETA 0:08" in run.lines[0]


def test_stop_request_saves_and_leaves(path):
    run = Run(path, on_step=stop_at(7))
    assert int(run.last.step) == 7
    assert run.batches_taken == 7
    assert run.checkpoints.saved[-1] == (7, None)
    assert run.checkpoints.waited
    assert run.rows("train/loss")[7] == 7.0


def test_stop_request_at_an_evaluation(path):
    run = Run(path, on_step=stop_at(5))
    assert run.checkpoints.saved[-1] == (5, 0.05)


def test_stop_request_during_an_evaluation_takes_one_more_step_and_saves(path):
    """Leaving without a save would lose what was done since the last one."""
    run = Run(path, on_evaluate=stop_at(5), checkpoint_every=100)
    assert int(run.last.step) == 6
    assert run.saved_steps == [5, 6]


def test_stop_request_during_the_last_evaluation(path):
    run = Run(path, on_evaluate=stop_at(10))
    assert run.checkpoints.saved[-1] == (10, 0.1)


def test_stop_request_before_the_first_step(path):
    stop = StopRequest()
    stop.signal = signal.SIGTERM
    run = Run(path, stop=stop, start=3)
    assert int(run.last.step) == 3
    assert run.checkpoints.saved == []


def test_going_on_writes_the_rows_of_an_undisturbed_run(path, tmp_path):
    """From any checkpoint of the run, though the logging interval does not divide it."""
    whole = Run(tmp_path / "whole.jsonl", log_every=4)
    expected = [without_speed(row) for row in read(tmp_path / "whole.jsonl")]
    for start in (0, *whole.saved_steps):
        Run(path, log_every=4, total_steps=min(start + 1, 10))  # dies a step later
        Run(path, log_every=4, start=start)
        assert [without_speed(row) for row in read(path)] == expected


def without_speed(row):
    return {name: value for name, value in row.items() if not name.startswith("speed/")}


class TestStopRequest:
    @pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
    def test_notes_a_signal_and_gives_the_handlers_back(self, number):
        before = {n: signal.getsignal(n) for n in (signal.SIGTERM, signal.SIGINT)}
        with StopRequest() as stop:
            assert not stop.requested
            signal.raise_signal(number)
            assert stop.requested
            assert stop.signal == number
        assert {n: signal.getsignal(n) for n in (signal.SIGTERM, signal.SIGINT)} == before

    def test_a_second_interrupt_leaves_at_once(self):
        with StopRequest() as stop:
            signal.raise_signal(signal.SIGINT)
            with pytest.raises(KeyboardInterrupt):
                signal.raise_signal(signal.SIGINT)
        assert stop.signal == signal.SIGINT

    def test_a_second_termination_waits_for_the_save(self):
        with StopRequest() as stop:
            signal.raise_signal(signal.SIGTERM)
            signal.raise_signal(signal.SIGTERM)
        assert stop.signal == signal.SIGTERM

    def test_outside_of_the_main_thread_there_are_no_signals(self):
        """As where a notebook trains in the background."""
        handler, seen = signal.getsignal(signal.SIGTERM), []

        def train():
            with StopRequest() as stop:
                seen.append(stop.requested)

        thread = threading.Thread(target=train)
        thread.start()
        thread.join()
        assert seen == [False]
        assert signal.getsignal(signal.SIGTERM) is handler
