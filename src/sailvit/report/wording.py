"""Numbers and small values as a reader wants them; each is a filter of the template."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

MISSING = "\N{EM DASH}"
"""Shown where there is no value."""


def count(value: float) -> str:
    """Whole number with thousands separated: 46,000."""
    return f"{value:,.0f}"


def short(value: float) -> str:
    """Count in three digits: 1.23 M; below 10,000 all of them."""
    for size, unit in ((1e12, "T"), (1e9, "B"), (1e6, "M"), (1e3, "k")):
        if value >= 10_000 and value >= 0.9995 * size:
            return f"{value / size:.3g} {unit}"
    return count(value)


def duration(seconds: float) -> str:
    """Time in its two largest units: 4 min 24 s."""
    if seconds < 60:
        return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest} s"
    hours, minutes = divmod(minutes, 60)
    if hours < 24:
        return f"{hours} h {minutes} min"
    return f"{hours // 24} d {hours % 24} h"


def percent(share: float) -> str:
    """Share as a percentage: 3.1 %."""
    return MISSING if math.isnan(share) else f"{100 * share:.1f} %"


def score(value: float) -> str:
    """Share of right answers, three decimals: 0.477."""
    return f"{value:.3f}"


def points(difference: float) -> str:
    """Difference of two shares in points, always signed: +12.9."""
    return f"{100 * difference:+.1f}".replace("-", "\N{MINUS SIGN}")


def rate(value: float) -> str:
    """Speed in about three digits: 167, 12.4."""
    if math.isnan(value):
        return MISSING
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def plain(value: Any) -> str:
    """A stored value in one line: `key: value` pairs for a mapping, commas for a list."""
    if isinstance(value, Mapping):
        return ", ".join(f"{key}: {plain(inner)}" for key, inner in value.items())
    if isinstance(value, list | tuple):
        return ", ".join(plain(inner) for inner in value)
    return MISSING if value is None or value == "" else str(value)


def clipped(text: str, most: int = 280) -> str:
    """Text of at most `most` characters; a model stuck in a loop should not fill the page."""
    return text if len(text) <= most else text[: most - 1].rstrip() + "\N{HORIZONTAL ELLIPSIS}"


FILTERS = {
    f.__name__: f for f in (count, short, duration, percent, score, points, rate, plain, clipped)
}
"""By the name the template uses."""
