"""Balance: a step's packs dealt to ranks, so that none waits long for another."""

from __future__ import annotations

from collections.abc import Sequence

from sailvit.data.plan.draws import Drawn

Pack = tuple[Drawn, ...]


def deal(packs: Sequence[Pack], world: int) -> list[list[Pack]]:
    """Each rank's packs: equally many, of about equally many tiles in sum, heaviest first; empty packs fill up.

    Longest processing time first, then swaps between the heaviest and the lightest rank while they bring both closer.
    Ranks run their packs side by side, so heaviest first also lets packs of like weight meet.
    """
    padded = [*packs, *[()] * (-len(packs) % world)]
    weights = [(sum(draw.tiles for draw in pack), sum(draw.tokens for draw in pack)) for pack in padded]
    ranks: list[list[int]] = [[] for _ in range(world)]
    loads = [(0, 0)] * world
    for index in sorted(range(len(padded)), key=lambda index: weights[index], reverse=True):
        open_ranks = [rank for rank in range(world) if len(ranks[rank]) < len(padded) // world]
        lightest = min(open_ranks, key=lambda rank: loads[rank])
        ranks[lightest].append(index)
        loads[lightest] = loads[lightest][0] + weights[index][0], loads[lightest][1] + weights[index][1]
    return [[padded[index] for index in rank] for rank in ranks]
