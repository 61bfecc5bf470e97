"""Colours of bars, lines and slices: some have names, for questions about them, others come
from a colour map.
"""

from __future__ import annotations

from dataclasses import dataclass

import matplotlib as mpl
import numpy as np
from matplotlib.colors import to_hex

NAMED = {
    "blue": "#2f6fd6",
    "orange": "#f28e1c",
    "green": "#2f9e44",
    "red": "#d62f2f",
    "purple": "#8a3fb8",
    "grey": "#8c8c8c",
    "yellow": "#f2cd2e",
    "brown": "#7a4a28",
    "pink": "#f48fb8",
    "black": "#222222",
}
"""Colours of which everybody gives the same name."""
_MAPS = ("tab10", "Set2", "Dark2", "Accent", "Paired", "tab20b")
_RAMPS = ("viridis", "plasma", "cividis", "Blues", "Greens", "magma")


@dataclass(frozen=True)
class Colours:
    """One colour for each series or slice."""

    codes: tuple[str, ...]
    """Colours as `#rrggbb`."""
    names: tuple[str, ...] = ()
    """Their names; empty where they have no certain ones."""


def some_colours(rng: np.random.Generator, count: int) -> Colours:
    """`count` different colours; half of the time all of them have names."""
    if rng.random() < 0.5:
        names = [list(NAMED)[index] for index in rng.permutation(len(NAMED))[:count].tolist()]
        return Colours(tuple(NAMED[name] for name in names), tuple(names))
    if rng.random() < 0.6:
        chosen = mpl.colormaps[_MAPS[rng.integers(len(_MAPS))]]
        return Colours(tuple(to_hex(chosen(index)) for index in range(count)))
    ramp = mpl.colormaps[_RAMPS[rng.integers(len(_RAMPS))]]
    # Without the ends of the ramp, which are close to the colour of paper or of ink.
    return Colours(tuple(to_hex(ramp(place)) for place in np.linspace(0.25, 0.8, count)))
