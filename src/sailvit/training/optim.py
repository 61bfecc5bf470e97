"""AdamW over parts: what trains, in which group, at which rate."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator

import torch
from torch import nn

from sailvit.core.errors import RecipeError
from sailvit.core.recipe import PARTS, OptimConfig, Part, ScheduleConfig, Stage, TrainConfig
from sailvit.models.blocks import find_blocks
from sailvit.models.mllm import MLLM
from sailvit.training.objectives import Objective


def planned_names(model: MLLM, part: Part, train: TrainConfig) -> list[str]:
    """Names, within the part's model, of the parameters that a stage means to train.

    Weights that the features do not depend on (pooling heads, mask tokens, blocks after the chosen layer) are never
    planned: they would get no gradient, only decay.

    Raises:
        RecipeError: the part has fewer blocks than `last_blocks`, or nothing that could train.
    """
    if train.lr == 0:
        return []
    module = model.part(part)
    idle = model.tower.idle if part == "tower" else frozenset()
    names = [name for name, _ in module.named_parameters() if name not in idle]
    if train.last_blocks is not None:
        names = _from_block(module, names, train.last_blocks)
    if not names:
        raise RecipeError(
            f"`train` lists the {part}, but no weight of it bears on the features; leave it out of `train`"
        )
    return names


def freeze(model: MLLM, stage: Stage) -> None:
    """Set what trains in `stage`; everything else takes part in no graph, and a frozen part drops nothing out."""
    for part in PARTS:
        planned = set(planned_names(model, part, stage.train.get(part, TrainConfig(lr=0.0))))
        for name, parameter in model.part(part).named_parameters():
            parameter.requires_grad_(name in planned)
            parameter.grad = None
        model.part(part).train(bool(planned))


def make_optimizer(model: MLLM, objectives: Iterable[Objective], stage: Stage) -> torch.optim.AdamW:
    """AdamW with one group per part and decay; each group carries its part's name and share of the rate."""
    groups = []
    for part in PARTS:
        trained = [p for p in model.part(part).parameters() if p.requires_grad]
        groups += _groups(part, stage.share(part), trained, stage.optim.weight_decay)
    groups += _groups("objectives", 1.0, [p for objective in objectives for p in objective.parameters()], 0.0)
    if not groups:
        raise RecipeError(f"stage {stage.name} trains nothing: give at least one part a share above 0 in `train`")
    return _adamw(groups, stage.optim)


def rate(schedule: ScheduleConfig, done: float) -> float:
    """Factor on the peak learning rate when the share `done` (0..1) of the stage lies behind."""
    done = min(max(done, 0.0), 1.0)
    if done < schedule.warmup:
        return done / schedule.warmup
    left = (1.0 - done) / max(1.0 - schedule.warmup, 1e-12)
    shapes = {"cosine": 0.5 - 0.5 * math.cos(math.pi * left), "linear": left, "constant": 1.0}
    return schedule.final + (1.0 - schedule.final) * shapes[schedule.name]


def set_rate(optimizer: torch.optim.Optimizer, stage: Stage, done: float) -> dict[str, float]:
    """Set every group's learning rate for this step; returns the rates in force by part."""
    factor = stage.optim.lr * rate(stage.schedule, done)
    for group in optimizer.param_groups:
        group["lr"] = factor * group["share"]
    return {group["part"]: group["lr"] for group in optimizer.param_groups}


def named_moments(
    optimizer: torch.optim.Optimizer, names: dict[torch.Tensor, str]
) -> Iterator[tuple[str, torch.Tensor]]:
    """The optimizer's state as named tensors, for a checkpoint."""
    for parameter, state in optimizer.state.items():
        for key, value in state.items():
            yield f"{key}/{names[parameter]}", value


def load_moments(
    optimizer: torch.optim.Optimizer, names: dict[torch.Tensor, str], tensors: dict[str, torch.Tensor]
) -> None:
    """Restore what `named_moments` gave."""
    for name, value in tensors.items():
        key, _, owner = name.partition("/")
        parameter = next(p for p, n in names.items() if n == owner)
        # Adam's step count stays on the CPU unless the fused kernel keeps it on the device.
        optimizer.state[parameter][key] = value.to(parameter.device)


def _from_block(module: nn.Module, names: list[str], blocks: int) -> list[str]:
    """Of `names`, those from the k-th last block on that has any: those blocks, and norms and heads after them."""
    prefix, stack = find_blocks(module)
    if not stack:
        raise RecipeError(f"last_blocks needs a part made of blocks; {type(module).__name__} has no list of blocks")
    starts = [f"{prefix}.{index}." for index in range(len(stack))]
    used = [start for start in starts if any(name.startswith(start) for name in names)]
    if blocks > len(used):
        idle = f", of which the last {len(stack) - len(used)} lie after feature_layer" if len(used) < len(stack) else ""
        raise RecipeError(f"last_blocks is {blocks}, but {type(module).__name__} has {len(stack)} blocks{idle}")
    first = next(index for index, name in enumerate(names) if name.startswith(used[-blocks]))
    return names[first:]


def _groups(part: str, share: float, trained: list[nn.Parameter], decay: float) -> list[dict[str, object]]:
    matrices = [p for p in trained if p.ndim >= 2]
    vectors = [p for p in trained if p.ndim < 2]
    kinds = ((matrices, decay), (vectors, 0.0))
    return [{"part": part, "share": share, "params": p, "weight_decay": d} for p, d in kinds if p]


def _adamw(groups: list[dict[str, object]], config: OptimConfig) -> torch.optim.AdamW:
    return torch.optim.AdamW(groups, lr=config.lr, betas=config.betas, eps=config.eps, fused=True)
