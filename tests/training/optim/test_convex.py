"""The search where the best rate is known: noisy regression, from ten times too low and ten times too high."""

from __future__ import annotations

import statistics
from functools import lru_cache

import pytest
import torch

from sailvit.core.schedule import ScheduleConfig
from sailvit.training.optim.adalrs import RateSearch
from sailvit.training.optim.schedules import rate
from sailvit.training.optim.snapshot import Snapshot

STEPS, BATCH, WIDTH, NOISE, SEEDS = 1500, 256, 30, 0.1, 5
RATES = [1e-3 * 10 ** (step / 3) for step in range(7)]
"""The sweep: 1e-3 to 1e-1, three rates per factor of ten."""
FIXED = ScheduleConfig(name="constant")
SEARCHED = ScheduleConfig(name="adalrs", search={"base": "constant", "window": 20, "until": 0.8})


def descend(peak: float, schedule: ScheduleConfig, seed: int = 0) -> tuple[float, float]:
    """Excess loss after AdamW on least squares whose inputs differ 100 times in strength; and the factor found."""
    generator = torch.Generator().manual_seed(seed)
    strength = torch.logspace(0, -2, WIDTH)
    truth, found = torch.full((WIDTH,), 3.0), torch.zeros(WIDTH, requires_grad=True)
    optimizer = torch.optim.AdamW([found], lr=peak, betas=(0.9, 0.95), weight_decay=0.0)
    search = None if schedule.search is None else RateSearch(schedule.search)
    snapshot = None
    for step in range(STEPS):
        inputs = torch.randn(BATCH, WIDTH, generator=generator) * strength.sqrt()
        noise = NOISE * torch.randn(BATCH, generator=generator)
        factor = 1.0 if search is None else search.factor
        optimizer.param_groups[0]["lr"] = peak * factor * rate(schedule, (step + 0.5) / STEPS)
        loss = (inputs @ (found - truth) - noise).square().mean() / 2
        found.grad = torch.autograd.grad(loss, found)[0]
        optimizer.step()
        if search is None or (step + 1) / STEPS <= schedule.warmup:
            continue
        for event in search.observe((step + 1) / STEPS, float(loss.detach())):
            if event.kind == "raised":
                snapshot = Snapshot.take(optimizer, "device")
            elif event.kind == "taken back":
                assert snapshot is not None
                snapshot.restore(optimizer)
    excess = float((strength * (found.detach() - truth).square()).sum()) / 2
    return excess, 1.0 if search is None else search.factor


@lru_cache
def sweep() -> dict[float, float]:
    """Excess loss by fixed rate."""
    return {peak: descend(peak, FIXED)[0] for peak in RATES}


def best() -> float:
    return min(sweep(), key=lambda peak: sweep()[peak])


def test_the_sweep_has_its_best_inside():
    assert RATES[0] < best() < RATES[-2]
    assert sweep()[best()] < sweep()[RATES[-1]] / 5 < sweep()[RATES[0]]


@pytest.mark.slow
@pytest.mark.parametrize("times", [0.1, 10.0])
def test_the_neighbourhood_of_the_best_rate_is_reached(times: float):
    """By the median of five seeds."""
    start = times * best()
    runs = [descend(start, SEARCHED, seed) for seed in range(SEEDS)]
    excess, factor = (statistics.median(values) for values in zip(*runs, strict=True))
    assert 1 / 3 < times * factor < 3
    fixed, _ = descend(start, FIXED)
    assert excess < fixed / 2
