"""The looks at a run on its page: a chart for what was seen, nothing where nobody looked."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from typing import Any

import pytest

from sailvit.core.run import RunFolder, append_line
from sailvit.report.looks import PANELS, look_charts
from sailvit.report.page import write_report

EXTENTS = [("coarse", 0, 40), ("fine", 40, 80), ("knowledge", 80, 120)]


def look(index: int, step: int, **changes: Any) -> dict[str, Any]:
    line = {
        "stage_index": index,
        "step": step,
        "cka": 1 - 0.1 * index,
        "perplexity": 10.0 + index + step,
        "affinity": {"nearest": 1.0, "wasserstein": 2.0, "mean": 3.0 + index},
        "seconds": 0.1,
        "share": 0.013,
    }
    return {**line, **changes}


def looks() -> list[dict[str, Any]]:
    first = look(0, 0, watched={"tiles": 64, "texts": 12, "texts_from": "built in"})
    norms = {
        "gradient": {"tower": 2.0, "connector": 20.0},
        "update": {"tower": 1e-5, "connector": 1e-3},
    }
    return [first, *(look(index, step, **norms) for index in range(3) for step in (20, 40))]


def test_everything_that_was_seen_twice_has_a_chart_that_says_its_course():
    charts = look_charts(looks(), EXTENTS)
    assert len(charts) == len(PANELS)
    told = [str(chart.svg) for chart in charts]
    assert "tower from 1 to 0.8" in told[0]
    assert "language from 10 to 52" in told[1]
    assert "mean from 3 to 5" in told[2]
    assert "connector from 0.001 to 0.001" in told[3]
    for text in told:
        assert "knowledge" in text
        assert "mathdefault" not in text, "ticks are plain numbers"
        HTMLParser().loader_config(text)


def test_what_was_not_measured_or_only_once_has_none():
    assert look_charts([], EXTENTS) == []
    assert look_charts(looks()[:1], EXTENTS) == []
    plain = [{**line, "cka": None, "affinity": None} for line in looks()]
    assert len(look_charts(plain, EXTENTS)) == len(PANELS) - 2


def test_looks_at_a_stage_that_is_not_on_the_page_are_left_out():
    assert len(look_charts([*looks(), look(7, 1)], EXTENTS)) == len(PANELS)


@pytest.mark.parametrize("watched", [True, False])
def test_the_page_has_the_section_when_the_run_was_watched(run: RunFolder, watched: bool):
    for line in looks() if watched else []:
        append_line(run.watch, line)
    text = write_report(run).read_text(encoding="utf-8")
    assert ("What training does to the parts" in text) is watched
    assert (
        "7 looks at the same images and texts (64 tiles, 12 built-in sentences), for 1.3 %" in text
    ) is watched


def test_wide_ranges_have_powers_of_ten_alone():
    first, *others = looks()
    wide = [
        first,
        *(
            {**line, "update": {"tower": 10.0**-number}}
            for number, line in enumerate(others, start=1)
        ),
    ]
    ticks = re.findall(r"<text[^>]*>([0-9.e-]+)</text>", str(look_charts(wide, EXTENTS)[3].svg))
    assert {"0.01", "0.0001", "1e-06"} & set(ticks)
    assert not {"0.02", "0.05", "0.0002", "2e-05", "5e-05"} & set(ticks)
