"""One page about packs as the model sees them; opens from disk, needs no network and runs no
script.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib.resources import files
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from sailvit.report import wording

_STYLES = ("report.css", "packs.css")


def render_packs(values: Mapping[str, Any]) -> str:
    """The page as HTML, from what `data.view.packs.view_packs` gives."""
    # Texts and names come from strangers' data: everything is escaped except our own CSS.
    environment = Environment(
        loader=PackageLoader("sailvit", "report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(wording.FILTERS)
    environment.filters["visible"] = visible
    styles = [
        files("sailvit.report").joinpath(name).read_text(encoding="utf-8") for name in _STYLES
    ]
    packs = values["packs"]
    return environment.get_template("packs.html").render(
        values=values,
        packs=packs,
        css=Markup("\n".join(styles)),
        totals={
            name: sum(pack[name] for pack in packs)
            for name in ("tokens", "padding", "tiles", "image_tokens", "trained", "problems")
        },
    )


def visible(text: str) -> str:
    """A token's text with line ends, tabs and emptiness made visible."""
    return text.replace("\n", "↵\n").replace("\t", "⇥\t") or "∅"
