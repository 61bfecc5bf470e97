"""Monitoring points on a run's page: a chart for what was measured, nothing where nothing was."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from typing import Any

import pytest

from sailvit.core.run import RunFolder, append_line
from sailvit.report.monitoring import PANELS, monitoring_charts
from sailvit.report.page import write_report

EXTENTS = [("coarse", 0, 40), ("fine", 40, 80), ("knowledge", 80, 120)]


def point(index: int, step: int, **changes: Any) -> dict[str, Any]:
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


def points() -> list[dict[str, Any]]:
    first = point(0, 0, monitored={"tiles": 64, "texts": 12, "texts_from": "built in"})
    norms = {
        "gradient": {"tower": 2.0, "connector": 20.0},
        "update": {"tower": 1e-5, "connector": 1e-3},
    }
    return [first, *(point(index, step, **norms) for index in range(3) for step in (20, 40))]


def test_everything_that_was_seen_twice_has_a_chart_that_says_its_course():
    charts = monitoring_charts(points(), EXTENTS)
    assert len(charts) == len(PANELS)
    told = [str(chart.svg) for chart in charts]
    assert "tower from 1 to 0.8" in told[0]
    assert "language from 10 to 52" in told[1]
    assert "mean from 3 to 5" in told[2]
    assert "connector from 0.001 to 0.001" in told[3]
    for text in told:
        assert "knowledge" in text
        assert "mathdefault" not in text, "ticks are plain numbers"
        HTMLParser().feed(text)


def test_what_was_not_measured_or_only_once_has_none():
    assert monitoring_charts([], EXTENTS) == []
    assert monitoring_charts(points()[:1], EXTENTS) == []
    plain = [{**line, "cka": None, "affinity": None} for line in points()]
    assert len(monitoring_charts(plain, EXTENTS)) == len(PANELS) - 2


def test_points_of_a_stage_that_is_not_on_the_page_are_left_out():
    assert len(monitoring_charts([*points(), point(7, 1)], EXTENTS)) == len(PANELS)


@pytest.mark.parametrize("monitored", [True, False])
def test_the_page_has_the_section_when_the_run_was_monitored(run: RunFolder, monitored: bool):
    for line in points() if monitored else []:
        append_line(run.monitoring, line)
    text = write_report(run).read_text(encoding="utf-8")
    assert ("What training does to the parts" in text) is monitored
    assert (
        "7 monitoring points on the same images and texts (64 tiles, 12 built-in sentences), for 1.3 %"
        in text
    ) is monitored


def test_a_run_of_an_earlier_version_still_reads(run: RunFolder):
    old = run.path / "watch.jsonl"
    for line in points():
        old_line = {"watched" if key == "monitored" else key: v for key, v in line.items()}
        append_line(old, old_line)
    assert "7 monitoring points" in write_report(run).read_text(encoding="utf-8")


def test_wide_ranges_have_powers_of_ten_alone():
    first, *others = points()
    wide = [
        first,
        *(
            {**line, "update": {"tower": 10.0**-number}}
            for number, line in enumerate(others, start=1)
        ),
    ]
    ticks = re.findall(
        r"<text[^>]*>([0-9.e-]+)</text>", str(monitoring_charts(wide, EXTENTS)[3].svg)
    )
    assert {"0.01", "0.0001", "1e-06"} & set(ticks)
    assert not {"0.02", "0.05", "0.0002", "2e-05", "5e-05"} & set(ticks)
