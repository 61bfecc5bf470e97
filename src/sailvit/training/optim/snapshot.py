"""A copy of everything that trains, to return to bit for bit."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Literal

import torch

from sailvit.distributed.sharding import local


class Snapshot:
    """Copies of an optimizer's parameters and of its state: 12 bytes per parameter that trains,
    with AdamW in fp32.
    """

    def __init__(
        self,
        weights: dict[torch.Tensor, torch.Tensor],
        moments: dict[torch.Tensor, dict[str, torch.Tensor]],
    ) -> None:
        self.weights = weights
        self.moments = moments

    @classmethod
    def take(cls, optimizer: torch.optim.Optimizer, keep: Literal["cpu", "device"]) -> Snapshot:
        """The present values, kept on the CPU or beside the originals."""
        held = [p for group in optimizer.param_groups for p in group["params"]]
        states = {p: state for p in held if (state := optimizer.state.get(p))}
        moments = {
            p: {key: _copy(t, keep) for key, t in state.items()} for p, state in states.items()
        }
        return cls({p: _copy(p, keep) for p in held}, moments)

    @torch.no_grad()
    def restore(self, optimizer: torch.optim.Optimizer) -> None:
        """Restore parameters and state; a parameter that had no state then has none again."""
        for parameter, kept in self.weights.items():
            local(parameter).copy_(local(kept))
            if parameter not in self.moments:
                optimizer.state.pop(parameter, None)
        for parameter, moments in self.moments.items():
            for key, kept in moments.items():
                local(optimizer.state[parameter][key]).copy_(local(kept))

    def tensors(self, names: Mapping[torch.Tensor, str]) -> Iterator[tuple[str, torch.Tensor]]:
        """Everything as named tensors, for a checkpoint."""
        for parameter, kept in self.weights.items():
            yield f"weight/{names[parameter]}", kept
        for parameter, moments in self.moments.items():
            for key, kept in moments.items():
                yield f"{key}/{names[parameter]}", kept

    @classmethod
    def load(
        cls,
        tensors: Mapping[str, torch.Tensor],
        names: Mapping[torch.Tensor, str],
        keep: Literal["cpu", "device"],
    ) -> Snapshot:
        """The snapshot whose `tensors` these are, under the same names."""
        owners = {name: parameter for parameter, name in names.items()}
        made = cls({}, {})
        for name, tensor in tensors.items():
            key, _, owner = name.partition("/")
            parameter = owners[owner]
            kept = tensor.to("cpu" if keep == "cpu" else parameter.device)
            if key == "weight":
                made.weights[parameter] = kept
            else:
                made.moments.setdefault(parameter, {})[key] = kept
        return made


def _copy(tensor: torch.Tensor, keep: Literal["cpu", "device"]) -> torch.Tensor:
    # copy=True, as a tensor that is there already would otherwise be returned itself.
    return tensor.detach().to("cpu" if keep == "cpu" else tensor.device, copy=True)
