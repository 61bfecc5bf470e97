"""Norms of one step by part: of its gradients, and of what it changed."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch

from sailvit.distributed.processes import sum_values
from sailvit.distributed.sharding import square_sum
from sailvit.training.optim.eight_bit import moment

Squares = Mapping[str, list[torch.Tensor]]
"""This process's share of squared norms, by part, tensor by tensor."""


def gradient_norms(optimizer: torch.optim.Optimizer, device: torch.device) -> dict[str, float]:
    """Norm of the gradients before the optimizer's step, by part; all processes call it."""
    squares: dict[str, list[torch.Tensor]] = {}
    for group in optimizer.param_groups:
        held = [square_sum(p.grad) for p in group["params"] if p.grad is not None]
        squares.setdefault(group["part"], []).extend(held)
    return {part: math.sqrt(total) for part, total in _totals(squares, device).items()}


@torch.no_grad()
def update_norms(optimizer: torch.optim.AdamW, device: torch.device) -> dict[str, float]:
    """Norm of the last step's change of the weights, relative to the norm of the weights, by
    part; every process must call it.

    AdamW's change follows from its moments, so no copy of the weights before the step is
    needed, only memory for the largest of them. Moments of 8 bits were rounded since, so their
    norms are near.
    """
    changes: dict[str, list[torch.Tensor]] = {}
    weights: dict[str, list[torch.Tensor]] = {}
    for group in optimizer.param_groups:
        held = [p for p in group["params"] if optimizer.state.get(p)]
        changes.setdefault(group["part"], []).extend(
            square_sum(_change(group, p, optimizer.state[p])) for p in held
        )
        weights.setdefault(group["part"], []).extend(square_sum(p) for p in group["params"])
    changed, whole = _totals(changes, device), _totals(weights, device)
    return {part: math.sqrt(changed[part] / max(whole[part], 1e-30)) for part in whole}


def _change(
    group: Mapping[str, Any], parameter: torch.Tensor, state: Mapping[str, torch.Tensor]
) -> torch.Tensor:
    """What AdamW's last step subtracted from each weight; sharded like the parameter."""
    (first, second), rate = group["betas"], group["lr"]
    steps = float(state["step"])
    mean, square = (moment(parameter, state, key) for key in ("exp_avg", "exp_avg_sq"))
    spread = (square / (1 - second**steps)).sqrt_().add_(group["eps"])
    moved: torch.Tensor = (mean / (1 - first**steps)).div_(spread).mul_(rate)
    # torch's AdamW: after = (1 - fade) * before - moved, solved here for before - after.
    fade = rate * group["weight_decay"]
    return moved.add_(parameter.detach() + moved, alpha=fade / (1 - fade))


def _totals(squares: Squares, device: torch.device) -> dict[str, float]:
    """The sums over all tensors and processes."""
    # Stacked first: one copy from the device instead of one per tensor.
    empty = torch.zeros((), device=device)
    sums = [
        torch.stack([empty, *(part.to(device) for part in parts)]).double().sum()
        for parts in squares.values()
    ]
    return dict(zip(squares, sum_values(torch.stack(sums).tolist(), device), strict=True))
