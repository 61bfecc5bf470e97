"""The picture of docs/evidence.md as SVG that fits light and dark pages: `python
docs/pictures/evidence.py`.

Differences from the base with their 95 % intervals, from the committed cells of studies/demo.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from sailvit.core.study.folder import StudyFolder
from sailvit.evaluation.studies.results import results
from sailvit.recipes.studies import load_study

STUDY = Path(__file__).parents[2] / "studies" / "demo.yaml"
INKS = {
    "ink": ("#1f2937", "#e5e7eb"),
    "soft": ("#6b7280", "#9ca3af"),
    "mark": ("#0f766e", "#2dd4bf"),
    "line": ("#e5e7eb", "#374151"),
}
"""Colours by what they are for, on light and on dark pages."""
LEFT, WIDTH, ROW, TOP = 250, 880, 24, 34
"""Pixels: where the axis begins, of the picture, of a row, and above the first."""
STEP = 10
"""Points between two lines of the scale."""


def rows() -> list[tuple[str, Mapping[str, Any]]]:
    """Differences of the study's first measure that have an interval: arms, then other levels."""
    study = load_study(STUDY)
    found = results(study, StudyFolder(STUDY.with_suffix("")).read_cells())
    first, refined = next(iter(study.measures)), study.contrast.refined
    kept = [
        each
        for each in found["differences"]
        if each["measure"] == first and each["low"] is not None
    ]
    arms = [(each["better"], each) for each in kept if not each["changed"]]
    levels = [
        (", ".join(f"{factor} {level}" for factor, level in each["changed"].items()), each)
        for each in kept
        if each["changed"] and each["better"] == refined
    ]
    return arms + levels


def draw(shown: Sequence[tuple[str, Mapping[str, Any]]]) -> str:
    """The whole picture: a line per difference, filled where it is shown after Holm."""
    low = min([0.0, *(each["low"] for _, each in shown)])
    high = max([1.0, *(each["high"] for _, each in shown)])
    bottom = TOP + ROW * max(1, len(shown))
    parts = [_text(8, 20, "points above the base tower, 95 % over seeds", "soft")]

    def at(points: float) -> float:
        """The horizontal place of a difference."""
        return LEFT + (WIDTH - LEFT - 90) * (points - low) / (high - low)

    ticks = range(math.ceil(low / STEP) * STEP, math.floor(high) + 1, STEP) if shown else (0,)
    for points in ticks:
        parts.append(f"<path d='M{at(points):.1f} {TOP}V{bottom}' class='edge line'/>")
        told = f"{points:+d}" if points else "0"
        parts.append(_text(round(at(points)) - 4 * len(told), bottom + 16, told, "soft"))
    for place, (name, each) in enumerate(shown):
        y = TOP + ROW * place + ROW // 2
        filled = "mark" if each["word"] in ("improves", "worse") else "open"
        ends = f"M{at(each['low']):.1f} {y}H{at(each['high']):.1f}"
        parts.append(f"<path d='{ends}' class='edge'/>")
        centre = f"cx='{at(each['difference']):.1f}' cy='{y}'"
        parts.append(f"<circle {centre} r='4' class='edge {filled}'/>")
        parts.append(_text(8, y + 5, name, "ink"))
        parts.append(_text(WIDTH - 60, y + 5, f"{each['difference']:+.1f}", "ink"))
    if not shown:
        parts.append(_text(8, TOP + 17, "no two seeds are measured yet", "ink"))
    font = "font-family='system-ui, sans-serif' font-size='14'"
    size = f"width='{WIDTH}' height='{bottom + 24}' viewBox='0 0 {WIDTH} {bottom + 24}'"
    body = "".join(parts)
    return f"<svg xmlns='http://www.w3.org/2000/svg' {size} {font}>{_style()}{body}</svg>\n"


def _style() -> str:
    """Colours by class; the page's reader says which of them."""
    # In the picture itself: a page of the documentation cannot choose between two of them.
    light, dark = (_rules({name: pair[way] for name, pair in INKS.items()}) for way in (0, 1))
    return f"<style>{light}@media(prefers-color-scheme:dark){{{dark}}}</style>"


def _rules(colours: Mapping[str, str]) -> str:
    fills = "".join(f".{name}{{fill:{colour}}}" for name, colour in colours.items())
    edge = f".edge{{stroke:{colours['mark']};stroke-width:2}}.open{{fill:none}}"
    return f"{fills}{edge}.line{{stroke:{colours['line']}}}"


def _text(x: int, y: int, text: str, ink: str) -> str:
    return f"<text x='{x}' y='{y}' class='{ink}'>{text}</text>"


if __name__ == "__main__":
    Path(__file__).with_suffix(".svg").write_text(draw(rows()), encoding="utf-8")
