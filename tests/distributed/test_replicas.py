"""Replicas: sums over processes, weights that some or none use, and when what is sent."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import nn

from sailvit.distributed import replicas
from sailvit.distributed.replicas import Replicas

WORLD, WIDTH, LAYERS = 3, 600, 4
"""A layer has 1.4 MB, so that each is a bucket of its own where buckets hold 1 MiB."""


def joined_as(index: int, folder: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group(
        "gloo", init_method=f"file://{folder}/join", rank=index, world_size=WORLD
    )


def as_one_of_three(index: int, folder: str) -> None:
    """Two micro-batches: rank 1 alone uses `lone`, only in the first; rank 2 has no graph at all."""
    joined_as(index, folder)
    shared, lone, idle = (nn.Parameter(torch.full((2,), 3.0)) for _ in range(3))

    def loss(factor: float, first: bool) -> tuple[torch.Tensor, list[torch.Tensor]]:
        total = torch.zeros(())
        if index != 2:
            total = total + factor * shared.sum()
        if index == 1 and first:
            total = total + lone.sum()
        return total, [total.detach()]

    made, found = Replicas(loss, [shared, lone, idle]), []
    for _ in range(2):
        for first in (True, False):
            total, (plain,) = made(index + 1.0, first, last=not first)
            assert plain == total.detach()
            if total.requires_grad:
                total.backward()
            if first:
                found.append(None if shared.grad is None else shared.grad.tolist())
        grads = [p.grad for p in (shared, lone, idle)]
        found.append([None if grad is None else grad.tolist() for grad in grads])
        for parameter in (shared, lone, idle):
            parameter.grad = None
    torch.save(found, f"{folder}/{index}.pt")
    dist.destroy_process_group()


def in_processes(work: Any, folder: Path) -> list[Any]:
    """What each process left. Their engines outlive the group, whose end once waited for itself."""
    begun = torch.multiprocessing.start_processes(
        work, (str(folder),), nprocs=WORLD, start_method="fork", join=False
    )
    end = time.monotonic() + 60
    while not begun.join(timeout=1):
        if time.monotonic() > end:
            for process in begun.processes:
                process.kill()
            pytest.fail("a process hangs")
    return [torch.load(folder / f"{index}.pt") for index in range(WORLD)]


def test_gradients_are_sums_and_what_no_process_uses_has_none(tmp_path: Path):
    """In a first step and in a second; the sums of two micro-batches are 2 x (1 + 2)."""
    for index, (held, summed, again, twice) in enumerate(in_processes(as_one_of_three, tmp_path)):
        own = None if index == 2 else [index + 1.0] * 2
        assert held == again == own
        assert summed == twice == [[6.0, 6.0], [1.0, 1.0], None]


def as_sender(index: int, folder: str) -> None:
    """Notes, whenever something is sent, how many layers wait for their gradient."""
    joined_as(index, folder)
    layers = nn.ModuleList(nn.Linear(WIDTH, WIDTH, bias=False) for _ in range(LAYERS))
    waiting: list[tuple[int, int]] = []
    step, sound = 0, dist.all_reduce

    def noted(tensor: torch.Tensor, **options: Any) -> Any:
        waiting.append((step, sum(layer.weight.grad is None for layer in layers)))
        return sound(tensor, **options)

    def loss(given: torch.Tensor) -> tuple[torch.Tensor, list[torch.Tensor]]:
        for layer in layers:
            given = layer(given)
        return given.sum(), []

    replicas.dist.all_reduce = noted
    made = Replicas(loss, layers.parameters(), bucket_mib=1)
    for step in range(3):
        made(torch.ones(1, WIDTH), last=step != 1)[0].backward()
        if step != 1:
            layers.zero_grad(set_to_none=True)
    torch.save(waiting, f"{folder}/{index}.pt")
    dist.destroy_process_group()


def test_buckets_are_sent_during_the_last_backward_pass_and_never_before(tmp_path: Path):
    for waiting in in_processes(as_sender, tmp_path):
        assert {step for step, _ in waiting} == {0, 2}
        first = [layers for step, layers in waiting if step == 0]
        assert len(first) >= LAYERS
        assert first[0] >= LAYERS - 1
        assert first == sorted(first, reverse=True)
