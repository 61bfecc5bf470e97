"""How long a run should still take, judged by the stage that is in progress."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any


def seconds_ahead(
    lengths: Iterable[Mapping[str, Any]], *, samples: int, tokens: int, seconds: float
) -> float | None:
    """Seconds for stages of these lengths at the pace of one that took `seconds` for `samples`
    and `tokens`.

    None where a length is in neither samples nor tokens, or nothing is done yet. It is a first
    guess: stages that train other parts run at another pace, mostly within a factor of two. The
    stage in progress is not among `lengths`; the caller adds it.
    """
    total = 0.0
    for length in lengths:
        done = {"samples": samples, "tokens": tokens}
        known = [length[unit] / done[unit] for unit in done if length.get(unit) and done[unit]]
        if not known:
            return None
        total += seconds * known[0]
    return total
