"""The training state: what a checkpoint of a stage holds, and how a job goes on from it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from sailvit.checkpoint.store import Saved
from sailvit.core.recipe import PARTS
from sailvit.training.callbacks.search import restore_search, search_tensors, search_values
from sailvit.training.optim.optimizer import load_moments, named_moments
from sailvit.training.stages.stage_run import Evidence, StageRun

_PLACE = ("step", "samples", "tokens", "seconds", "cursor", "skipped", "skipped_in_row")
"""Fields of a job that say where it stands."""


def stage_values(run: StageRun) -> dict[str, Any]:
    """Where a stage stands beside its tensors, as JSON; steps to come do not change what was given."""
    evidence = {**vars(run.evidence), "highest": dict(run.evidence.highest)}
    return {
        **{name: getattr(run, name) for name in _PLACE},
        "evidence": {**evidence, "astray": dict(run.evidence.astray)},
        "search": search_values(run),
    }


def changed_weights(run: StageRun) -> dict[str, torch.Tensor]:
    """The weights of every part that some stage so far has trained or replaced; others are what the recipe names."""
    changed = {
        part
        for known in run.recipe.stages[: run.index + 1]
        for part in (*known.train, *known.start_from)
    }
    return {
        f"weight/{part}/{n}": p
        for part in PARTS
        if part in changed
        for n, p in _parameters(run, part)
    }


def stage_tensors(run: StageRun) -> dict[str, torch.Tensor]:
    """What a stage holds beside the model: objectives' own parameters, the optimizer's moments, a trial's way back."""
    tensors = {f"moment/{n}": t for n, t in named_moments(run.optimizer, trained_names(run))}
    tensors |= {f"trial/{n}": t for n, t in search_tensors(run, trained_names(run)).items()}
    return tensors | _objective_tensors(run)


def restore_weights(run: StageRun, saved: Saved) -> None:
    """Give the model the weights of a checkpoint; parts that it does not hold stay as they are."""
    held = saved.shapes()
    live = {f"weight/{part}/{n}": p.detach() for part in PARTS for n, p in _parameters(run, part)}
    saved.read({name: tensor for name, tensor in live.items() if name in held})


def restore_stage(run: StageRun, saved: Saved) -> None:
    """Give the optimizer, the objectives and the search what a checkpoint of this stage holds of them."""
    names = trained_names(run)
    owners = {name: parameter for parameter, name in names.items()}
    found = {
        name: _blank(name, shape, owners)
        for name, shape in saved.shapes().items()
        if _is_stage_state(name)
    }
    objectives = _objective_tensors(run)
    saved.read(found | objectives)
    load_moments(run.optimizer, names, _under(found, "moment/"))
    restore_search(run, saved.values["search"], _under(found, "trial/"), names)


def restore_place(run: StageRun, values: Mapping[str, Any]) -> None:
    """Put the job and its loader where a checkpoint of this stage stood."""
    for name in _PLACE:
        # States of older versions lack what they did not know.
        setattr(run, name, values.get(name, getattr(run, name)))
    run.evidence = Evidence(**values["evidence"])
    run.loader.load(run.cursor)


def trained_names(run: StageRun) -> dict[torch.Tensor, str]:
    """A stable name for every parameter that the stage's optimizer may hold."""
    named: dict[torch.Tensor, str] = {
        p: f"{part}/{name}" for part in PARTS for name, p in _parameters(run, part)
    }
    for owner, objective in run.objectives.items():
        named |= {p: f"objective.{owner}/{name}" for name, p in objective.named_parameters()}
    return named


def _parameters(run: StageRun, part: Any) -> list[tuple[str, torch.nn.Parameter]]:
    return list(run.model.part(part).named_parameters())


def _objective_tensors(run: StageRun) -> dict[str, torch.Tensor]:
    """The objectives' own parameters, live, so that reading into them restores them."""
    states = {name: objective.state_dict() for name, objective in run.objectives.items()}
    return {
        f"objective/{name}/{key}": tensor
        for name, state in states.items()
        for key, tensor in state.items()
    }


def _is_stage_state(name: str) -> bool:
    return name.startswith(("moment/", "trial/"))


def _blank(name: str, shape: torch.Size, owners: Mapping[str, torch.Tensor]) -> torch.Tensor:
    """Room for a saved tensor, sharded like the parameter `<kind>/<key>/<owner>` that it belongs to."""
    owner = owners[name.split("/", 2)[2]].detach()
    return (
        torch.zeros_like(owner) if owner.shape == shape else torch.zeros(shape, device=owner.device)
    )


def _under(tensors: Mapping[str, torch.Tensor], prefix: str) -> dict[str, torch.Tensor]:
    return {
        name.removeprefix(prefix): value
        for name, value in tensors.items()
        if name.startswith(prefix)
    }
