"""The planner: the packs of every step, and the cursor from which they continue."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from sailvit.core.errors import DataError
from sailvit.data.lengths.costs import Costs
from sailvit.data.sampling.draws import Drawn, Draws
from sailvit.data.sampling.loader_config import LoaderConfig
from sailvit.data.sampling.packer import Packer

_COUNTS = ("steps", "packs", "samples", "tokens", "tiles")
"""Counts in a cursor: sums over all steps up to its own, without padding."""


@dataclass(frozen=True)
class PlannedStep:
    """The packs of one global step; the same whatever the number of ranks."""

    packs: tuple[tuple[Drawn, ...], ...]
    """`global_batch` packs; fewer in the last step, where the data end."""
    cursor: dict[str, Any]
    """JSON state after this step; `PackPlan.steps` continues from it with the next one."""


class PackPlan:
    """Which records make which pack of which step: a function of the loader config and of the
    records' costs.

    It does not depend on ranks, workers and micro-batches, so these may change when a cursor is
    loaded. The global batch changes only how packs are grouped into steps.
    """

    def __init__(self, loader_config: LoaderConfig, costs: Mapping[str, Costs]) -> None:
        self._loader_config = loader_config
        self._draws = Draws(loader_config, costs)
        self._identity = _identity(loader_config, costs)

    def steps(self, cursor: Mapping[str, Any] | None = None) -> Iterator[PlannedStep]:
        """The steps after the one with this cursor; None: all steps. A cursor of another loader
        config is refused.
        """
        if cursor is None:
            cursor = {
                **dict.fromkeys(_COUNTS, 0),
                "drawn": dict.fromkeys(self._loader_config.shares, 0),
                "pending": {},
            }
        else:
            self._check(cursor)
        return self._after(cursor)

    def coming(self, source: str, nth: int) -> tuple[list[int], int]:
        """The shards that a source's draws from `nth` on need, and the draw at which to ask
        again; for a loader config with a window.
        """
        return self._draws.coming(source, nth)

    def _after(self, cursor: Mapping[str, Any]) -> Iterator[PlannedStep]:
        counts, drawn = {name: cursor[name] for name in _COUNTS}, dict(cursor["drawn"])
        packer = Packer(
            self._loader_config.sequence,
            self._loader_config.tiles,
            self._draws.again(cursor["pending"]),
        )
        draws = self._counted(drawn)
        while packs := self._packs(packer, draws):
            samples = [draw for pack in packs for draw in pack]
            counts["steps"] += 1
            counts["packs"] += len(packs)
            counts["samples"] += len(samples)
            counts["tokens"] += sum(draw.tokens for draw in samples)
            counts["tiles"] += sum(draw.tiles for draw in samples)
            yield PlannedStep(
                packs, {**self._identity, **counts, "drawn": dict(drawn), "pending": packer.pending}
            )

    def _packs(self, packer: Packer, draws: Iterator[Drawn]) -> tuple[tuple[Drawn, ...], ...]:
        packs = (packer.take(draws) for _ in range(self._loader_config.global_batch))
        return tuple(pack for pack in packs if pack)

    def _counted(self, drawn: dict[str, int]) -> Iterator[Drawn]:
        """The draws after `drawn`, in which each one is counted as it is taken."""
        for draw in self._draws.after(drawn):
            # Taken and not yet packed counts too: the packer's pending draws stand in the
            # cursor.
            drawn[draw.source] = draw.nth + 1
            yield draw

    def _check(self, cursor: Mapping[str, Any]) -> None:
        for name, expected in self._identity.items():
            if (found := cursor.get(name)) != expected:
                raise DataError(
                    f"the cursor was written with {name} {found}; expected {expected}, as in"
                    " this recipe: resume with the recipe and the data that wrote it, or start"
                    " the stage anew"
                )


def _identity(loader_config: LoaderConfig, costs: Mapping[str, Costs]) -> dict[str, Any]:
    """The values that must be the same when a cursor is continued; all others may change."""
    # Without a window shards do not order anything, and data may be sharded anew.
    windowed = loader_config.shares if loader_config.window is not None else ()
    return {
        "name": loader_config.name,
        "seed": loader_config.seed,
        "sequence": loader_config.sequence,
        "shares": dict(loader_config.shares),
        "caps": dict(loader_config.caps),
        "pack_tiles": loader_config.tiles,
        "window": loader_config.window,
        "records": {source: len(costs[source]) for source in loader_config.shares},
        "shards": {source: len(costs[source].shards) for source in windowed},
    }
