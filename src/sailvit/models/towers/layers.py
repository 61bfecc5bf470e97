"""Features from other layers than the last: the states of chosen blocks, read while the model
runs.

Blocks behind the last one that is needed pass their input on, so they cost nothing. The model
itself stays as it was: both only hold during the tower's own call.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import nn

from sailvit.core.errors import ModelError
from sailvit.core.recipe import FeatureJoin, ModelConfig
from sailvit.models.blocks import find_blocks
from sailvit.models.towers.features import as_they_are, last_tokens


@dataclass(frozen=True)
class FeatureChoice:
    """Which states of a tower are its features."""

    layers: tuple[int, ...] = (-1,)
    """States of the blocks: 0 is what enters the first, k what leaves the k-th, -1 the last."""
    join: FeatureJoin = "concat"
    """How several states become one."""
    norm: bool | None = None
    """Whether states are taken after the model's final norm; None: the last one only."""

    @staticmethod
    def of(config: ModelConfig) -> FeatureChoice:
        """The choice that a recipe's model section makes."""
        layers = config.feature_layer
        layers = (layers,) if isinstance(layers, int) else layers
        return FeatureChoice(layers, config.feature_join, config.feature_norm)

    @property
    def plain(self) -> bool:
        """Whether features are what the model returns."""
        return self.layers == (-1,) and self.norm is None


class LayerReader:
    """The states of chosen blocks of one vision model."""

    def __init__(self, model: nn.Module, choice: FeatureChoice, name: str) -> None:
        self._choice, self._name = choice, name
        self._blocks = find_blocks(model)[1]
        count = len(self._blocks)
        for layer in choice.layers:
            _check(layer, count, name)
        self._indices = [layer if layer >= 0 else count + 1 + layer for layer in choice.layers]
        self._kept: dict[int, torch.Tensor] = {}
        self._norm: nn.Module | None = None
        self._open = self._in_tuples = False
        self._end = max(*self._indices, 1)
        # What leaves the last one that runs is seen in any case: it tells the blocks' form.
        for index in {*self._indices, self._end} - {0}:
            self._blocks[index - 1].register_forward_hook(partial(self._leaves, index))
        if 0 in self._indices:
            self._blocks[0].register_forward_pre_hook(self._enters, with_kwargs=True)

    def norm_of(self, model: nn.Module) -> str | None:
        """The name, within the model, of the norm that states go through; None without one."""
        found = (name for name, part in model.named_modules() if part is self._norm)
        return None if self._norm is None else next(found, None)

    @property
    def wants_norm(self) -> bool:
        """Whether states go through the model's final norm."""
        return bool(self._choice.norm)

    def find_norm(self, model: nn.Module, run: Callable[[], Any]) -> None:
        """Find the model's final norm: what makes its last tokens of the last block's state.

        Args:
            model: The vision model.
            run: Runs it once and gives what it returns.

        Raises:
            ModelError: no module does so.
        """
        seen: list[tuple[nn.Module, Any, Any]] = []
        hooks = [
            part.register_forward_hook(lambda part, given, made: seen.append((part, given, made)))
            for part in model.modules()
        ]
        try:
            returned = run()
        finally:
            for hook in hooks:
                hook.remove()
        last = getattr(returned, "last_hidden_state", None)
        state = next((_state(made) for part, _, made in seen if part is self._blocks[-1]), None)
        self._norm = next(
            (
                part
                for part, given, made in seen
                if given
                and given[0] is state
                and made is last
                and state is not None
                # A norm that is switched off hands its input on.
                and made is not state
            ),
            None,
        )
        if self._norm is None:
            raise ModelError(
                f"feature_norm is true, but {self._name} has no norm between its last block and"
                " its patch tokens; leave feature_norm out, or set it to false"
            )

    def tokens(
        self,
        run: Callable[[], Any],
        patches: int,
        ordered: Callable[[torch.Tensor], torch.Tensor] = as_they_are,
    ) -> torch.Tensor:
        """The chosen states float[I, N, D] of one run, joined.

        Args:
            run: Runs the model and gives what it returns.
            patches: Patch tokens of each picture.
            ordered: Makes tokens float[I, N, D] of a block's state.
        """
        with self._reading():
            returned = run()
            kept = {index: ordered(state) for index, state in self._kept.items()}
        last = len(self._blocks)
        if last in kept and self._choice.norm is not False:
            # As the model returns it: behind its final norm, and by its patches alone.
            kept[last] = last_tokens(returned, patches, self._name, ordered)
        states = [self._checked(kept.get(index)) for index in self._indices]
        if len(states) == 1:
            return states[0]
        if self._choice.join == "concat":
            return torch.cat(states, dim=-1)
        return torch.stack(states).mean(dim=0)

    @contextmanager
    def _reading(self) -> Iterator[None]:
        """A context in which states are kept, and blocks behind them do nothing."""
        spared = self._blocks[self._end :]
        forwards = [block.__dict__.get("forward") for block in spared]
        for block in spared:
            block.forward = self._pass_on
        # The hooks stay, and the model also runs for others.
        self._open = True
        try:
            yield
        finally:
            self._open = False
            self._kept.clear()
            for block, forward in zip(spared, forwards, strict=True):
                if forward is None:
                    del block.forward
                else:
                    block.forward = forward

    def _leaves(self, index: int, block: nn.Module, given: Any, made: Any) -> None:
        del block, given
        if self._open:
            self._in_tuples = isinstance(made, tuple)
            self._keep(index, _state(made))

    def _enters(self, block: nn.Module, given: tuple[Any, ...], named: dict[str, Any]) -> None:
        del block
        if self._open:
            self._keep(0, _state(given or tuple(named.values())))

    def _keep(self, index: int, state: Any) -> None:
        # Here rather than after the run, while shards of the norm are gathered.
        normed = self._norm is not None and index < len(self._blocks)
        self._kept[index] = self._norm(state) if normed and self._norm is not None else state

    def _pass_on(self, *given: Any, **named: Any) -> Any:
        """A block's input as its output, in the form in which blocks give it."""
        state = _state(given or tuple(named.values()))
        return (state,) if self._in_tuples else state

    def _checked(self, state: torch.Tensor | None) -> torch.Tensor:
        if state is None or state.ndim != 3:
            shown = "nothing" if state is None else f"float{list(state.shape)}"
            raise ModelError(
                f"the blocks of {self._name} give {shown} for a tile, not tokens float[1, N, D],"
                " which feature_layer needs; leave feature_layer at -1, the last"
            )
        return state


def _state(made: Any) -> Any:
    """The tokens among what a block takes or gives."""
    return made[0] if isinstance(made, tuple | list) else made


def _check(layer: int, count: int, name: str) -> None:
    if not count:
        raise ModelError(
            f"{name} has no list of blocks, whose states feature_layer: {layer} needs; leave"
            " feature_layer at -1, the last"
        )
    if not -count - 1 <= layer <= count:
        raise ModelError(
            f"feature_layer is {layer}, but {name} has {count} blocks; expected {-count - 1} to"
            f" {count}, where 0 is what enters the first block and -1 the last layer"
        )
