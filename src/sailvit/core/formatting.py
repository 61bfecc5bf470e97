"""Words that depend on a number, for messages of every layer."""

from __future__ import annotations


def counted(count: int, noun: str, plural: str | None = None) -> str:
    """A number and its noun in the right form: 1 pack, 1,200 packs, 0 packs."""
    return f"{count:,} {noun if count == 1 else plural or noun + 's'}"


def clock(seconds: float) -> str:
    """A duration in at most five columns or so: 0:07, 12:34, 1h02, 2d03h."""
    whole = max(0, round(seconds))
    if whole < 3600:
        return f"{whole // 60}:{whole % 60:02}"
    hours, minutes = divmod(round(whole / 60), 60)
    return f"{hours}h{minutes:02}" if hours < 48 else f"{hours // 24}d{hours % 24:02}h"
