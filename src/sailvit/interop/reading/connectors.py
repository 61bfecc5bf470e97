"""The connector of a multimodal checkpoint, as one of ours."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch

from sailvit.core.recipe import ConnectorKind
from sailvit.interop.reading.languages import finish_config
from sailvit.interop.reading.plans import PartPlan, Planned, Refusal
from sailvit.interop.reading.stored import Names, Stored
from sailvit.models.structure.connector import CONNECTORS, MergeConnectorConfig


@dataclass(frozen=True)
class ConnectorFacts:
    """What a checkpoint's config says about its connector."""

    kind: ConnectorKind
    """Which of ours it is."""
    modules: Mapping[str, str]
    """Our names of its layers, by the checkpoint's, which follow `prefix`."""
    merge: int = 1
    """Patches merged per side."""
    settings: Mapping[str, Any] = field(default_factory=dict)
    """Activation, bias, eps and order of a `MergeConnectorConfig`."""


def plan_connector(
    names: Names, prefix: str, facts: ConnectorFacts, *, tower_width: int, language_width: int
) -> Planned:
    """The connector whose tensors follow `prefix` in a checkpoint."""
    found = _found(names, prefix, facts)
    if "down.weight" not in found:
        listed = ", ".join(sorted(name for name in names if name.startswith(prefix))[:4])
        return Refusal(
            f"expected the layers {', '.join(facts.modules)} under {prefix}, found"
            f" {listed or 'nothing'}; it is none of {', '.join(CONNECTORS)}"
        )
    made = CONNECTORS[facts.kind]
    config = MergeConnectorConfig(
        kind=facts.kind,
        tower_width=tower_width,
        language_width=language_width,
        merge=facts.merge,
        # Read off the tensors: some releases have another width than their config tells.
        hidden=found["down.weight"].shape[1],
        # A class's own facts, over the usual ones of the kind.
        **{**made.facts, "bias": "down.bias" in found, **facts.settings},
    )
    with torch.device("meta"):
        model = made(config)
    expected = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    given = {name: stored.shape for name, stored in found.items()}
    if wrong := sorted(n for n in expected | given if expected.get(n) != given.get(n)):
        return Refusal(
            f"its tensor {wrong[0]} is {_told(given.get(wrong[0]))}, and a {facts.kind} connector"
            f" of this tower and language has {_told(expected.get(wrong[0]))}"
        )
    pieces = tuple(stored.as_piece(name) for name, stored in found.items())
    finish_config(config, made, pieces)
    return PartPlan(config, pieces, {stored.name for stored in found.values()})


def _found(names: Names, prefix: str, facts: ConnectorFacts) -> dict[str, Stored]:
    """The connector's tensors by our names."""
    inside = {name.removeprefix(prefix): name for name in names if name.startswith(prefix)}
    parted = {inner: inner.rpartition(".") for inner in inside}
    return {
        f"{facts.modules[module]}.{kind}": names[inside[inner]]
        for inner, (module, _, kind) in parted.items()
        if module in facts.modules
    }


def _told(shape: tuple[int, ...] | None) -> str:
    return "none" if shape is None else str(list(shape))
