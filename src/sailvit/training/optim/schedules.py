"""Schedules: the learning rate as a pure function of the share of a stage that is done."""

from __future__ import annotations

import math
from collections.abc import Callable

from sailvit.core.schedule import ScheduleConfig


def rate(schedule: ScheduleConfig, done: float) -> float:
    """Factor on the peak learning rate when the share `done` (0..1) of the stage is done."""
    done = min(max(done, 0.0), 1.0)
    if done < schedule.warmup:
        return done / schedule.warmup
    return schedule.final + (1.0 - schedule.final) * SHAPES[schedule.shape](schedule, done)


def _cosine(schedule: ScheduleConfig, done: float) -> float:
    return 0.5 - 0.5 * math.cos(math.pi * _left(schedule.warmup, done))


def _linear(schedule: ScheduleConfig, done: float) -> float:
    return _left(schedule.warmup, done)


def _constant(schedule: ScheduleConfig, done: float) -> float:
    del schedule, done
    return 1.0


def _wsd(schedule: ScheduleConfig, done: float) -> float:
    """Stable, then a decay over the last share: for runs whose length may still change
    (arXiv 2404.06395).
    """
    assert schedule.decay is not None
    begins = 1.0 - schedule.decay.share
    return FALLS[schedule.decay.shape](_left(begins, done)) if done > begins else 1.0


def _left(begins: float, done: float) -> float:
    """Share of the way from `begins` to the end that is left at `done`."""
    # Warm-up may take the whole stage: then nothing lies between.
    return (1.0 - done) / max(1.0 - begins, 1e-12)


SHAPES: dict[str, Callable[[ScheduleConfig, float], float]] = {
    "cosine": _cosine,
    "linear": _linear,
    "constant": _constant,
    "wsd": _wsd,
}
"""From 1 after warm-up to 0 at the end, by the name that recipes use."""

FALLS: dict[str, Callable[[float], float]] = {
    "linear": lambda left: left,
    "cosine": lambda left: 0.5 - 0.5 * math.cos(math.pi * left),
    "sqrt": lambda left: 1.0 - math.sqrt(1.0 - left),
}
"""From 1 to 0 by the share left of a decay; `sqrt` after arXiv 2405.18392."""
