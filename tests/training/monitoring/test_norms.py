"""Norms by part, against gradients and weights that are looked at directly."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch

from sailvit.core.batch import Step
from sailvit.data.processing.collate import collate
from sailvit.training.monitoring.norms import gradient_norms, update_norms
from sailvit.training.stages.loop import train_step
from sailvit.training.stages.stage_run import StageRun
from tiny_parts import Parts, mixed_records, samples
from tiny_runs import stage, stage_run

CPU = torch.device("cpu")


def made(parts: Parts, **optim: Any) -> StageRun:
    settings = stage(optim={"lr": 1e-2, "weight_decay": 0.1, **optim}, length={"samples": 10**3})
    settings["objectives"] = {"next_token": 1.0, "contrastive": 0.1}
    return stage_run(parts.build(), settings, Path())


def step(ready: StageRun) -> None:
    batch = collate([samples(ready.bundle, mixed_records())])
    train_step(ready, Step((batch,), {}), 0.0, 0.0)


def by_part(ready: StageRun) -> dict[str, list[torch.Tensor]]:
    held: dict[str, list[torch.Tensor]] = {}
    for group in ready.optimizer.param_groups:
        held.setdefault(group["part"], []).extend(group["params"])
    return held


def joint(tensors: list[torch.Tensor]) -> float:
    return math.sqrt(sum(float(tensor.detach().double().square().sum()) for tensor in tensors))


def test_updates_are_what_the_weights_did(parts: Parts):
    ready = made(parts)
    for _ in range(3):
        before = {part: [p.detach().clone() for p in held] for part, held in by_part(ready).items()}
        step(ready)
        found = update_norms(ready.optimizer, CPU)
        for part, held in by_part(ready).items():
            moved = [now.detach() - then for now, then in zip(held, before[part], strict=True)]
            assert found[part] == pytest.approx(joint(moved) / joint(held), rel=1e-3), part


def test_a_part_that_does_not_move_has_no_update(parts: Parts):
    ready = made(parts, weight_decay=0)
    assert update_norms(ready.optimizer, CPU) == dict.fromkeys(
        ("tower", "connector", "language", "objectives"), 0.0
    )


def test_gradients_are_those_that_the_optimizer_sees(parts: Parts):
    ready, seen = made(parts, clip=0.5), []

    def watch(*given: Any) -> None:
        norms = gradient_norms(ready.optimizer, CPU)
        seen.append(
            (
                norms,
                {
                    n: joint([p.grad for p in h if p.grad is not None])
                    for n, h in by_part(ready).items()
                },
            )
        )

    ready.optimizer.register_step_pre_hook(watch)
    step(ready)
    norms, expected = seen[0]
    assert norms == pytest.approx(expected)
    assert set(norms) == {"tower", "connector", "language", "objectives"}
    assert math.sqrt(sum(norm**2 for norm in norms.values())) == pytest.approx(0.5, rel=1e-4)


def test_without_gradients_norms_are_zero(parts: Parts):
    assert set(gradient_norms(made(parts).optimizer, CPU).values()) == {0.0}
