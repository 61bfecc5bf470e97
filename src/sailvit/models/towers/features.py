"""The patch tokens in what a vision model returns."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch

from sailvit.core.errors import ModelError
from sailvit.models.guards.errors import describe


def as_they_are(states: torch.Tensor) -> torch.Tensor:
    """States float[I, N, D] that are tokens in order."""
    return states


def last_tokens(
    returned: Any,
    patches: int,
    name: str,
    ordered: Callable[[torch.Tensor], torch.Tensor] = as_they_are,
) -> torch.Tensor:
    """The last layer's tokens float[I, N, D] in what a vision model (`name`) returned.

    Transformers calls them `last_hidden_state`; code beside weights also returns them under
    other names or in a tuple. A map float[I, D, rows, columns] of all patches becomes tokens
    row by row. `ordered` makes tokens of what is called `last_hidden_state`.

    Raises:
        ModelError: nothing that it returned is tokens, or several tensors may be.
    """
    states = getattr(returned, "last_hidden_state", None)
    if states is not None:
        given, fewest = (
            [ordered(states)],
            0,
        )  # who counts the tokens says what is wrong with their number
    elif isinstance(returned, Mapping):
        given, fewest = list(returned.values()), patches
    else:
        given, fewest = list(returned) if isinstance(returned, tuple) else [returned], patches
    found = [_rows(value, patches) for value in given if isinstance(value, torch.Tensor)]
    tokens = [value for value in found if value.ndim == 3 and value.shape[1] >= fewest]
    if len(tokens) == 1:
        return tokens[0]
    raise ModelError(
        f"{name} gives {', '.join(map(describe, given))} for a tile, neither tokens float[1, N, D]"
        f" nor a map of its {patches} patches; expected a ViT, which keeps one token per patch to"
        " the end: choose another tower"
    )


def _rows(states: torch.Tensor, patches: int) -> torch.Tensor:
    """Tokens float[I, P, D] of a map float[I, D, rows, columns] of the patches; other tensors
    as they are.
    """
    is_map = states.ndim == 4 and states.shape[2] * states.shape[3] == patches
    return states.flatten(2).transpose(1, 2) if is_map else states
