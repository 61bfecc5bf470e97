"""One page about packs as the model sees them; opens from disk, needs no network and runs no
script.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sailvit.report.templates import template

_STYLES = ("report.css", "packs.css")


def render_packs(values: Mapping[str, Any]) -> str:
    """The page as HTML, from what `dataprep.inspect.packs.view_packs` gives."""
    packs = values["packs"]
    return template("packs.html", _STYLES).render(
        values=values,
        visible=visible,
        packs=packs,
        totals={
            name: sum(pack[name] for pack in packs)
            for name in ("tokens", "padding", "tiles", "image_tokens", "trained", "problems")
        },
    )


def visible(text: str) -> str:
    """A token's text with line ends, tabs and emptiness made visible."""
    return text.replace("\n", "↵\n").replace("\t", "⇥\t") or "∅"
