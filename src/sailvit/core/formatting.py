"""Numbers, durations, sizes and small values as a reader wants them: one set for terminal, page
and messages.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

MISSING = "\N{EM DASH}"
"""Shown where there is no value."""


def counted(count: int, noun: str, plural: str | None = None) -> str:
    """A number and its noun in the right form: 1 pack, 1,200 packs, 0 packs."""
    return f"{count:,} {noun if count == 1 else plural or noun + 's'}"


def count(value: float) -> str:
    """Whole number with thousands separated: 46,000."""
    return f"{value:,.0f}"


def short(value: float | None) -> str:
    """Count in three digits: 1.23 M; below 10,000 all of them, and below ten its decimals."""
    if value is None:
        return MISSING
    for unit_size, unit in ((1e12, "T"), (1e9, "B"), (1e6, "M"), (1e3, "k")):
        # From here on three digits round up to 1.00 of the unit.
        if value >= 10_000 and value >= 0.9995 * unit_size:
            return f"{value / unit_size:.3g} {unit}"
    return count(value) if value >= 10 else f"{value:.3g}"


def size(count: float) -> str:
    """Bytes in GiB, or in MiB when that is less than one: 1.5 GiB, 20 MiB."""
    return f"{count / 2**30:,.1f} GiB" if count >= 2**30 else f"{count / 2**20:.0f} MiB"


def flop_rate(value: float) -> str:
    """Speed of a device: 1.23 TFLOP/s."""
    return f"{value / 1e12:,.3g} TFLOP/s"


def duration(seconds: float | None) -> str:
    """Time in its two largest units: 4 min 24 s."""
    if seconds is None:
        return MISSING
    if seconds < 60:
        return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest} s"
    hours, minutes = divmod(minutes, 60)
    if hours < 24:
        return f"{hours} h {minutes} min"
    return f"{hours // 24} d {hours % 24} h"


def clock(seconds: float) -> str:
    """A duration in at most five columns or so: 0:07, 12:34, 1h02, 2d03h."""
    whole = max(0, round(seconds))
    if whole < 3600:
        return f"{whole // 60}:{whole % 60:02}"
    hours, minutes = divmod(round(whole / 60), 60)
    return f"{hours}h{minutes:02}" if hours < 48 else f"{hours // 24}d{hours % 24:02}h"


def percent(share: float, digits: int = 1) -> str:
    """Share as a percentage: 3.1 %."""
    return MISSING if math.isnan(share) else f"{100 * share:.{digits}f} %"


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
