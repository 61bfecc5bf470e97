"""Callbacks on their own: signals, metrics, and a base that does nothing."""

from __future__ import annotations

import dataclasses
import os
import signal
from pathlib import Path

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from sailvit.training.callbacks.metrics import MetricsCallback
from sailvit.training.callbacks.signals import StopOnSignal
from sailvit.training.output.loggers import Loggers
from sailvit.training.stages.callback import Callback
from sailvit.training.stages.stage_run import StageRun, StepRecord
from tiny_parts import Parts
from tiny_runs import lines, stage, stage_run


@pytest.fixture
def made(parts: Parts, tmp_path: Path) -> StageRun:
    return stage_run(parts.build(), stage("fine"), tmp_path)


def record(**changes: object) -> StepRecord:
    values = {field.name: 1.0 for field in dataclasses.fields(StepRecord)}
    values |= {
        "stage": "fine",
        "lr": {"tower": 0.5},
        "loss": {"next_token": 2.0, "contrastive": 3.0},
        "samples": 7,
    }
    return StepRecord(**{**values, **changes})


def test_the_base_does_nothing(made: StageRun):
    callback, before = Callback(), dataclasses.replace(made)
    callback.stage_started(made)
    callback.step_ended(made, record())
    callback.stage_ended(made)
    callback.close()
    assert made == before


def test_metrics_go_to_lines_and_to_tensorboard(made: StageRun, tmp_path: Path):
    callback = MetricsCallback(Loggers(made.recipe, made.folder))
    callback.close()
    callback.stage_started(made)
    callback.stage_started(made)
    for step in (1, 2):
        made.step, made.samples = step, 7 * step
        callback.step_ended(made, record(step=step, samples=7 * step, grad_norm=0.25 * step))
    callback.close()
    assert [
        (line["step"], line["loss"]["contrastive"]) for line in lines(tmp_path / "metrics.jsonl")
    ] == [
        (1, 3.0),
        (2, 3.0),
    ]
    curves = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    assert set(curves.Tags()["scalars"]) == {
        f"fine/{name}"
        for name in (
            "loss/next_token",
            "loss/contrastive",
            "lr/tower",
            "grad_norm",
            "padding",
            "samples_per_s",
            "wait",
            "mfu",
        )
    }
    assert [(event.step, event.value) for event in curves.Scalars("fine/grad_norm")] == [
        (7, 0.25),
        (14, 0.5),
    ]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_stops_after_the_step_in_progress(made: StageRun, number: signal.Signals):
    before = signal.getsignal(number)
    callback = StopOnSignal()
    callback.stage_started(made)
    callback.step_ended(made, record())
    assert not made.stop
    os.kill(os.getpid(), number)
    assert callback.received == number.name
    assert not made.stop
    assert signal.getsignal(number) == before, "a second one is not held back"
    callback.step_ended(made, record())
    assert made.stop


def test_signals_are_given_back(made: StageRun):
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    callback = StopOnSignal()
    callback.stage_started(made)
    callback.stage_started(made)
    assert signal.getsignal(signal.SIGINT) != before[0]
    callback.close()
    callback.close()
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before


def test_another_hooks_wish_to_stop_is_kept(made: StageRun):
    made.stop = True
    StopOnSignal().step_ended(made, record())
    assert made.stop
