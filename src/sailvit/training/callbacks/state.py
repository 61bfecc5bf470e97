"""The training state: what a checkpoint of a stage holds, and how a run resumes from it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch

from sailvit.checkpoint.store import Saved
from sailvit.core.recipe import PARTS
from sailvit.training.optim.optimizer import blank_moment, load_moments, named_moments
from sailvit.training.stages.callback import Callback
from sailvit.training.stages.stage_run import StageRun

_PLACE = ("step", "samples", "tokens", "seconds", "cursor", "skipped", "skipped_in_row")
"""Fields of a stage run that say where it stands."""


def stage_values(run: StageRun, callbacks: Sequence[Callback]) -> dict[str, Any]:
    """The state of a stage that is not tensors, as JSON; later steps do not change the returned
    value.
    """
    return {
        **{name: getattr(run, name) for name in _PLACE},
        "callbacks": callback_states(callbacks),
    }


def callback_states(callbacks: Sequence[Callback]) -> dict[str, Any]:
    """The state of every callback that has one, by the callback's name."""
    states = {name: callback.state_dict() for name, callback in _named(callbacks)}
    return {name: state for name, state in states.items() if state}


def changed_weights(run: StageRun) -> dict[str, torch.Tensor]:
    """The weights of every part that a stage so far has trained or replaced, of a language with
    adapters these alone; the others still are what the recipe names.
    """
    changed = {
        part
        for known in run.recipe.stages[: run.index + 1]
        for part in (*known.train, *known.start_from)
    }
    adapters = run.model.adapters
    return {
        f"weight/{part}/{n}": p
        for part in PARTS
        if part in changed
        for n, p in _parameters(run, part)
        if part != "language" or adapters is None or n in adapters.names
    }


def stage_tensors(run: StageRun, callbacks: Sequence[Callback]) -> dict[str, torch.Tensor]:
    """The tensors of a stage besides the model: objectives' parameters, moments, callbacks'."""
    tensors = {f"moment/{n}": t for n, t in named_moments(run.optimizer, trained_names(run))}
    for name, callback in _named(callbacks):
        held = callback.state_tensors(run)
        tensors |= {f"callback/{name}/{key}": tensor for key, tensor in held.items()}
    return tensors | _objective_tensors(run)


def restore_weights(run: StageRun, saved: Saved) -> None:
    """Give the model the weights of a checkpoint; parts that it does not hold stay as they are."""
    held = saved.shapes()
    # Read straight into the live tensors, so that the model is not in memory twice.
    live = {f"weight/{part}/{n}": p.detach() for part in PARTS for n, p in _parameters(run, part)}
    saved.read({name: tensor for name, tensor in live.items() if name in held})


def restore_stage(run: StageRun, callbacks: Sequence[Callback], saved: Saved) -> None:
    """Load optimizer, objectives and callbacks from a checkpoint of this stage."""
    for callback, state, tensors in _restored(run, callbacks, saved):
        callback.load_state_dict(run, state, tensors)


def roll_back(run: StageRun, callbacks: Sequence[Callback], saved: Saved) -> None:
    """Load weights, optimizer and objectives from a checkpoint; the data does not go back."""
    restore_weights(run, saved)
    for callback, state, tensors in _restored(run, callbacks, saved):
        callback.rolled_back(run, state, tensors)


def restore_callbacks(run: StageRun, callbacks: Sequence[Callback], saved: Saved) -> None:
    """Load callbacks from a checkpoint at the beginning of a stage, which has no tensors of
    theirs.
    """
    for callback, state in _states(callbacks, saved):
        callback.load_state_dict(run, state, {})


def _restored(
    run: StageRun, callbacks: Sequence[Callback], saved: Saved
) -> list[tuple[Callback, dict[str, Any], dict[str, torch.Tensor]]]:
    """Callbacks with their saved states; optimizer and objectives have theirs already."""
    names = trained_names(run)
    owners = {name: parameter for parameter, name in names.items()}
    # Only what this stage's state holds: weights were read before.
    found = {
        name: _blank(run, name, shape, owners)
        for name, shape in saved.shapes().items()
        if _is_stage_state(name)
    }
    objectives = _objective_tensors(run)
    saved.read(found | objectives)
    load_moments(run.optimizer, names, _under(found, "moment/"))
    tensors = {id(each): _under(found, f"callback/{name}/") for name, each in _named(callbacks)}
    return [(each, state, tensors[id(each)]) for each, state in _states(callbacks, saved)]


def _states(
    callbacks: Sequence[Callback], saved: Saved
) -> Iterator[tuple[Callback, dict[str, Any]]]:
    states = saved.values.get("callbacks", {})
    return ((each, states[name]) for name, each in _named(callbacks) if name in states)


def _named(callbacks: Sequence[Callback]) -> Iterator[tuple[str, Callback]]:
    """Every callback under the name of its class, numbered where several share one."""
    counts: dict[str, int] = {}
    for callback in callbacks:
        name = type(callback).__name__
        counts[name] = counts.get(name, 0) + 1
        yield (name if counts[name] == 1 else f"{name}-{counts[name]}"), callback


def restore_place(run: StageRun, values: Mapping[str, Any]) -> None:
    """Put the stage run and its loader where a checkpoint of this stage stood."""
    for name in _PLACE:
        # States of older versions lack the newer fields.
        setattr(run, name, values.get(name, getattr(run, name)))
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
    return name.startswith(("moment/", "callback/"))


def _blank(
    run: StageRun, name: str, shape: torch.Size, owners: Mapping[str, torch.Tensor]
) -> torch.Tensor:
    """An empty tensor to read a saved one into, sharded like the parameter it belongs to.

    Names are `moment/<key>/<parameter>` and `callback/<name>/<key>/<parameter>`.
    """
    *_, key, place = name.split("/", 2 if name.startswith("moment/") else 3)
    owner = owners.get(place)
    if owner is None:
        return torch.zeros(shape)
    owner = owner.detach()
    if (blank := blank_moment(run.optimizer, owner, key)) is not None:
        return blank
    # Adam's step count is a scalar, and never sharded.
    return (
        torch.zeros_like(owner) if owner.shape == shape else torch.zeros(shape, device=owner.device)
    )


def _under(tensors: Mapping[str, torch.Tensor], prefix: str) -> dict[str, torch.Tensor]:
    return {
        name.removeprefix(prefix): value
        for name, value in tensors.items()
        if name.startswith(prefix)
    }
