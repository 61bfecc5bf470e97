"""AdamW over parts: what trains, in which group and at which rate."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import torch
from torch import nn

from sailvit.core.errors import RecipeError
from sailvit.core.recipe import PARTS, OptimConfig, Part, Stage, TrainConfig
from sailvit.models.structure.mllm import MLLM
from sailvit.models.structure.parallel import note_trained
from sailvit.training.objectives.objective import Objective
from sailvit.training.optim.eight_bit import AdamW8bit, blank_state
from sailvit.training.optim.layer_decay import from_block, layer_shares


def planned_names(model: MLLM, part: Part, train: TrainConfig) -> list[str]:
    """Names, within the part's model, of the parameters that a stage plans to train.

    Weights that the features do not depend on (pooling heads, mask tokens, blocks after the
    feature layer), and those of the language that no gradient reaches, are never planned: they
    would get decay alone. Of a language with adapters these alone are planned.

    Raises:
        RecipeError: the part has fewer blocks than `last_blocks`, or nothing that could train.
    """
    if train.lr == 0:
        return []
    module = model.part(part)
    never = {"tower": model.tower.idle, "language": model.unreached}
    idle = never.get(part, frozenset())
    names = [name for name, _ in module.named_parameters() if name not in idle]
    if part == "language" and model.adapters is not None:
        names = [name for name in names if name in model.adapters.names]
    if train.last_blocks is not None:
        names = from_block(module, names, train.last_blocks)
    if not names:
        raise RecipeError(
            f"`train` lists the {part}, but no weight of it bears on the features; leave it out of `train`"
        )
    return names


def planned_shares(model: MLLM, part: Part, train: TrainConfig) -> dict[str, float]:
    """Share of the stage's learning rate for every parameter that it plans to train, by name
    within the part.
    """
    names = planned_names(model, part, train)
    if train.layer_decay is None or not names:
        return dict.fromkeys(names, train.lr)
    layers = layer_shares(model.part(part), names, train.layer_decay)
    return {name: train.lr * share for name, share in layers.items()}


def freeze(model: MLLM, stage: Stage) -> None:
    """Set what trains in `stage`; everything else is in no graph, and frozen parts have no
    dropout.
    """
    for part in PARTS:
        planned = planned_shares(model, part, stage.train.get(part, TrainConfig(lr=0.0)))
        for name, parameter in model.part(part).named_parameters():
            parameter.requires_grad_(name in planned)
            # One left from the stage before would be clipped and summed with this one's.
            parameter.grad = None
        # Of the tower not its model alone: the tower knows whether that stays in evaluation mode.
        (model.tower if part == "tower" else model.part(part)).train(bool(planned))
    note_trained(model)


def make_optimizer(model: MLLM, objectives: Iterable[Objective], stage: Stage) -> torch.optim.AdamW:
    """AdamW with a group for each part, share of the rate and weight decay; a group holds its
    part's name and share.
    """
    groups = []
    for part in PARTS:
        shares = planned_shares(model, part, stage.train.get(part, TrainConfig(lr=0.0)))
        trained: dict[float, list[nn.Parameter]] = {}
        for name, parameter in model.part(part).named_parameters():
            if parameter.requires_grad:
                trained.setdefault(shares.get(name, 0.0), []).append(parameter)
        for share, parameters in trained.items():
            groups += _groups(part, share, parameters, stage.optim.weight_decay)
    groups += _groups(
        "objectives", 1.0, [p for objective in objectives for p in objective.parameters()], 0.0
    )
    if not groups:
        raise RecipeError(
            f"stage {stage.name} trains nothing: give at least one part a share above 0 in `train`"
        )
    return _adamw(groups, stage.optim)


def set_rate(optimizer: torch.optim.Optimizer, rate: float) -> dict[str, float]:
    """Give every group its share of `rate` for this step; returns the rates in force by part,
    the highest of each.
    """
    highest: dict[str, float] = {}
    for group in optimizer.param_groups:
        group["lr"] = rate * group["share"]
        highest[group["part"]] = max(highest.get(group["part"], 0.0), group["lr"])
    return highest


def named_moments(
    optimizer: torch.optim.Optimizer, names: dict[torch.Tensor, str]
) -> Iterator[tuple[str, torch.Tensor]]:
    """The optimizer's state as named tensors, for a checkpoint."""
    for parameter, state in optimizer.state.items():
        for key, value in state.items():
            yield f"{key}/{names[parameter]}", value


def load_moments(
    optimizer: torch.optim.Optimizer,
    names: dict[torch.Tensor, str],
    tensors: dict[str, torch.Tensor],
) -> None:
    """Load the state that `named_moments` gave."""
    owners = {name: parameter for parameter, name in names.items()}
    for name, value in tensors.items():
        key, _, owner = name.partition("/")
        parameter = owners[owner]
        # Adam's step count stays on the CPU unless the fused kernel keeps it on the device.
        optimizer.state[parameter][key] = value.to(parameter.device)


def blank_moment(
    optimizer: torch.optim.Optimizer, parameter: torch.Tensor, key: str
) -> torch.Tensor | None:
    """An empty tensor to read `key` of a parameter's saved state into, where it is unlike the
    parameter; else None.
    """
    # A step count is a scalar, and lies where `load_moments` puts it.
    if not isinstance(optimizer, AdamW8bit) or not key.startswith("exp_avg"):
        return None
    return blank_state(parameter, key)


def _groups(
    part: str, share: float, trained: list[nn.Parameter], decay: float
) -> list[dict[str, object]]:
    matrices = [p for p in trained if p.ndim >= 2]
    vectors = [p for p in trained if p.ndim < 2]
    # Decay would pull the scales of norms towards 0.
    kinds = ((matrices, decay), (vectors, 0.0))
    return [{"part": part, "share": share, "params": p, "weight_decay": d} for p, d in kinds if p]


def _adamw(groups: list[dict[str, object]], config: OptimConfig) -> torch.optim.AdamW:
    if config.state == "8bit":
        return AdamW8bit(groups, lr=config.lr, betas=config.betas, eps=config.eps)
    # Of torch's three implementations the fastest, by its documentation: one pass over weights,
    # gradients and moments.
    return torch.optim.AdamW(groups, lr=config.lr, betas=config.betas, eps=config.eps, fused=True)
