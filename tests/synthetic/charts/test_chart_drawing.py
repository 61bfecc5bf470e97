"""Charts are read back from their pixels."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from dataclasses import replace
from typing import get_args

import matplotlib as mpl
import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_rgb
from matplotlib.legend import Legend
from matplotlib.text import Text

from sailvit.core.seeding import numpy_generator
from sailvit.synthetic.charts.colours import NAMED, Colours
from sailvit.synthetic.charts.figure import ChartDrawing
from sailvit.synthetic.charts.source import KINDS, ChartsOptions, ChartsSource, draw_chart
from sailvit.synthetic.charts.styles import some_style
from sailvit.synthetic.charts.tables import TableKind, draw_table

PRINT = """
import hashlib
from sailvit.synthetic.charts.source import ChartsOptions, ChartsSource
source = ChartsSource(ChartsOptions(size=6, seed=5, kinds=["line", "pie", "heatmap"]))
print(hashlib.sha256(b"".join(source[n].images[0].pixels().tobytes() for n in range(6))).hexdigest())
"""


def drawing(kind: str, seed: int = 0, **changes) -> ChartDrawing:
    rng = numpy_generator(seed, kind)
    chart = draw_chart(rng, kind)
    return ChartDrawing(chart, replace(some_style(rng, (400, 700), (320, 560)), **changes))


def mask(pixels: np.ndarray, colour: str) -> np.ndarray:
    """bool[H, W]: pixels of exactly this colour, or off by rounding."""
    wanted = np.array(to_rgb(colour)) * 255
    return (np.abs(pixels.astype(float) - wanted) <= 2).all(axis=2)


@pytest.mark.parametrize("kind", KINDS)
def test_pixels_have_the_promised_size_and_never_change(kind):
    made = drawing(kind)
    first, second = made.pixels(), made.pixels()
    assert first.dtype == np.uint8
    assert first.shape == (made.size[1], made.size[0], 3)
    assert np.array_equal(first, second)
    assert first.std() > 5


def test_another_process_with_other_settings_draws_the_same_bytes(tmp_path):
    (tmp_path / "matplotlibrc").write_text("lines.linewidth: 9\nfont.size: 20\naxes.grid: True\n")
    environment = {**os.environ, "MATPLOTLIBRC": str(tmp_path), "MPLCONFIGDIR": str(tmp_path)}
    there = subprocess.run(
        [sys.executable, "-c", PRINT], env=environment, capture_output=True, text=True, check=True
    )
    source = ChartsSource(ChartsOptions(size=6, seed=5, kinds=["line", "pie", "heatmap"]))
    here = hashlib.sha256(
        b"".join(source[n].images[0].pixels().tobytes() for n in range(6))
    ).hexdigest()
    assert there.stdout.strip() == here


def test_drawing_leaves_the_settings_as_they_were():
    with mpl.rc_context({"font.size": 17}):
        drawing("bar").pixels()
        assert mpl.rcParams["font.size"] == 17


@pytest.mark.parametrize("seed", range(4))
def test_bars_are_as_high_as_their_values(seed):
    made = drawing("bar", seed, edges=False, hole=0.0)
    chart = replace(made.chart, printed=False, colours=Colours((NAMED["red"],), ("red",)))
    found = mask(replace(made, chart=chart).pixels(), NAMED["red"])
    columns = np.flatnonzero(found.any(axis=0))
    bars = np.split(columns, np.flatnonzero(np.diff(columns) > 1) + 1)
    heights = np.array([found[:, bar[len(bar) // 2]].sum() for bar in bars], dtype=float)
    values = np.array(chart.values[0], dtype=float)
    assert len(bars) == len(values)
    unit = heights.sum() / values.sum()
    assert np.abs(heights - unit * values).max() <= 1.5


@pytest.mark.parametrize("seed", range(3))
def test_slices_are_as_large_as_their_shares(seed):
    rng = numpy_generator(seed, "slices")
    table = draw_table(rng, "pie")
    names = tuple(NAMED)[: len(table.labels)]
    table = replace(table, colours=Colours(tuple(NAMED[name] for name in names), names))
    style = replace(some_style(rng, (700, 700), (500, 500)), hole=0.0)
    pixels = ChartDrawing(table, style).pixels()
    areas = np.array([mask(pixels, code).sum() for code in table.colours.codes], dtype=float)
    # The printed percentages take a little of each slice.
    assert 100 * areas / areas.sum() == pytest.approx(np.array(table.values[0]), abs=2)


@pytest.mark.parametrize("kind", ["grouped", "stacked", "line", "area", "pie", "scatter"])
def test_every_colour_of_the_legend_is_seen(kind):
    for seed in range(3):
        made = drawing(kind, seed)
        pixels = made.pixels()
        assert all(mask(pixels, code).sum() >= 12 for code in made.chart.colours.codes), (
            kind,
            seed,
        )


@pytest.mark.parametrize("kind", KINDS)
def test_no_text_is_cut_off_and_no_number_covers_another(kind):
    for seed in range(5):
        made = drawing(kind, seed)
        with mpl.rc_context():
            mpl.rcdefaults()
            figure = made.figure()
            canvas = FigureCanvasAgg(figure)
            canvas.draw()
            texts = [
                text for text in figure.findobj(Text) if text.get_visible() and text.get_text()
            ]
            boxes = [text.get_window_extent(canvas.get_renderer()) for text in texts]
            boxes += [found.get_window_extent() for found in figure.findobj(Legend)]
            texts += [Text(text="legend")] * (len(boxes) - len(texts))
        width, height = made.size
        for text, box in zip(texts, boxes, strict=True):
            inside = box.x0 >= -1 and box.y0 >= -1 and box.x1 <= width + 1 and box.y1 <= height + 1
            assert inside, (kind, seed, text.get_text(), box)
        boxes = [box for text, box in zip(texts, boxes, strict=True) if text.get_text() != "legend"]
        for index, one in enumerate(boxes):
            touching = [other for other in boxes[index + 1 :] if _overlap(one, other) > 0.15]
            assert not touching, (kind, seed, texts[index].get_text())


def test_a_tall_pie_keeps_its_title():
    made = drawing("pie")
    tall = replace(
        made, style=replace(made.style, width=420, height=900, legend_right=False, type=11.0)
    )
    text = replace(tall, chart=replace(made.chart, title="A title of two lines, " * 2)).pixels()
    assert (text[:2] == text[0, 0]).all()


def _overlap(one, other) -> float:
    """Shared area of two boxes as a part of the smaller one."""
    wide = min(one.x1, other.x1) - max(one.x0, other.x0)
    high = min(one.y1, other.y1) - max(one.y0, other.y0)
    smaller = min(one.width * one.height, other.width * other.height)
    return max(wide, 0) * max(high, 0) / smaller if smaller else 0.0


def test_tables_name_every_kind_that_can_be_drawn():
    assert set(KINDS) == {*get_args(TableKind), "scatter"}
