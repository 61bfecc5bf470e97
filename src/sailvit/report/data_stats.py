"""One page about data sets: charts of what they hold, and pictures; opens from disk and runs no
script.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.ticker import MaxNLocator

from sailvit.core import formatting
from sailvit.report.curves import Series
from sailvit.report.drawing import FAINT, REFINED, WIDTH, Chart, canvas, label, to_svg
from sailvit.report.templates import template

CHARTS = (
    ("width", "Image width", "pixels"),
    ("height", "Image height", "pixels"),
    ("aspect", "Shape of images", "width divided by height"),
    ("bytes", "Size of image files", "bytes"),
    ("images_per_record", "Images per record", "images"),
    ("answer_characters", "Length of answers", "characters"),
    ("tokens", "Length of records", "tokens, those of images included"),
    ("tiles", "Tiles per record", "tiles"),
    ("turns", "Turns per record", "turns"),
)
"""What is drawn: measure, title, axis."""
_BARS = 12
"""Most bars of a ranking."""
_TICKS = 5


def render_stats(
    values: Mapping[str, Any],
    pictures: Sequence[Mapping[str, Any]],
    pairs: Sequence[Mapping[str, Any]],
) -> str:
    """The page as HTML, from figures, sample pictures and pairs of copies, which the data side
    gives as JSON values.
    """
    measures = values["measures"]
    return template("data_stats.html").render(
        values=values,
        total=sum(source["records"] for source in values["sources"]),
        charts=[
            histogram(name, title, axis, measures[name])
            for name, title, axis in CHARTS
            if measures[name]
        ],
        languages=ranking("Languages", values["languages"]["counts"], values["records"]),
        kinds=ranking("Kinds of records", values["kinds"], values["records"]),
        phrases=ranking(
            "Records with a phrase",
            phrase_counts(values["ngrams"]),
            max(values["ngrams"]["texts"], 1),
        ),
        pictures=pictures,
        pairs=pairs,
    )


def histogram(name: str, title: str, axis: str, found: Mapping[str, Any]) -> Chart:
    """A histogram of a measure, with a logarithmic axis unless its values are small whole
    numbers.
    """
    with canvas() as (figure, axes):
        lows, highs, counts = np.array(found["bins"], dtype=np.float64).T
        if not found["whole"] and highs[-1] > 0:
            lows, highs, counts = _grouped(lows, highs, counts)
            axes.set_xscale("log")
            ticks = _log_ticks(lows[0], highs[-1])
            axes.set_xticks(ticks, [_tick(tick) for tick in ticks])
            axes.set_xticks([], minor=True)
        else:
            # Bins are [n, n + 1): bars of width 0.8 around each whole number.
            lows, highs = lows - 0.4, highs - 0.6
            axes.set_xlim(lows[0] - 0.6, highs[-1] + 0.6)
            axes.xaxis.set_major_locator(MaxNLocator(5, integer=True, min_n_ticks=1))
        axes.bar(lows, counts, width=highs - lows, align="edge", color=REFINED, edgecolor="none")
        axes.yaxis.set_major_formatter(lambda value, _: formatting.short(value))
        axes.grid(visible=False, axis="x")
        label(
            axes,
            title,
            axis,
            "images" if name in ("width", "height", "aspect", "bytes") else "records",
        )
        middle, most = formatting.rate(found["median"]), formatting.rate(found["max"])
        text = f"median {middle}, 95 % up to {formatting.rate(found['p95'])}, largest {most}"
        return Chart(
            to_svg(figure, f"histogram-{name}", f"{title}: {text}."),
            f"{text[0].upper()}{text[1:]}.",
        )


def _grouped(lows: Series, highs: Series, counts: Series) -> tuple[Series, Series, Series]:
    """Bins above zero in groups of a quarter of an octave, which is as fine as a chart can show."""
    above = lows > 0
    # 1.0001 keeps edges that are powers of two, less a rounding error, in their own group.
    groups, where = np.unique(np.floor(4 * np.log2(lows[above] * 1.0001)), return_inverse=True)
    return (
        2 ** (groups / 4),
        2 ** ((groups + 1) / 4),
        np.bincount(where, weights=counts[above]).astype(np.float64),
    )


def ranking(title: str, counts: Mapping[str, int], total: int) -> Chart | None:
    """The most frequent names as bars; None: there are no names."""
    rows = list(counts.items())[:_BARS]
    if not rows:
        return None
    with canvas(WIDTH, 70 + 22 * len(rows)) as (figure, axes):
        # Downwards: matplotlib counts upwards, and the most frequent stands first.
        places = range(len(rows), 0, -1)
        shares = [count / total for _, count in rows]
        axes.barh(list(places), shares, height=0.62, color=REFINED)
        for place, share in zip(places, shares, strict=True):
            axes.annotate(
                formatting.percent(share),
                (share, place),
                (4, 0),
                textcoords="offset points",
                va="center",
                color=FAINT,
            )
        axes.set_yticks(list(places), [formatting.clipped(str(name), 34) for name, _ in rows])
        # Room for the percentage behind the longest bar.
        axes.set_xlim(0, 1.25 * max(shares))
        axes.set_xticks([])
        axes.grid(visible=False)
        axes.spines["bottom"].set_visible(False)
        label(axes, title, "", "")
        named = ", ".join(
            f"{name} {formatting.percent(share)}"
            for (name, _), share in zip(rows, shares, strict=True)
        )
        rest = len(counts) - len(rows)
        caption = f"And {rest} more." if rest else ""
        return Chart(to_svg(figure, f"ranking-{title}", f"{title}: {named}."), caption)


def phrase_counts(ngrams: Mapping[str, Any]) -> dict[str, int]:
    """Records by phrase, the most frequent first."""
    return {row["words"]: row["texts"] for row in ngrams["top"]}


def _log_ticks(low: float, high: float) -> list[float]:
    """Round numbers in a range: powers of ten times 1, 2 and 5, or fewer of them if these are
    too many to read.
    """
    powers = range(int(np.floor(np.log10(low))), int(np.ceil(np.log10(high))) + 1)
    for steps in ((1, 2, 5), (1, 3), (1,)):
        ticks = [step * 10.0**power for power in powers for step in steps]
        inside = [tick for tick in ticks if low <= tick <= high]
        if len(inside) <= _TICKS:
            return inside or [float(f"{np.sqrt(low * high):.2g}")]
    return inside[:: -(-len(inside) // _TICKS)]


def _tick(value: float) -> str:
    """A tick's number: 0.5, 200, 20 k."""
    for size, unit in ((1e6, " M"), (1e3, " k")):
        if value >= size:
            return f"{value / size:g}{unit}"
    return f"{value:g}"
