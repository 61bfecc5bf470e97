"""The page about data: whole, safe, and with what it is given."""

from __future__ import annotations

import re

import pytest
from test_page import Outline

from sailvit.report.data_stats import histogram, ranking, render_stats


def measure(bins: list, *, whole: bool = False) -> dict:
    figures = dict.fromkeys(("min", "max", "mean", "p5", "median", "p95"), 3.0)
    return {"count": sum(count for *_, count in bins), **figures, "whole": whole, "bins": bins}


def values(**changes: object) -> dict:
    names = (
        "width",
        "height",
        "aspect",
        "bytes",
        "answer_characters",
        "characters",
        "tokens",
        "tiles",
        "turns",
    )
    measures = dict.fromkeys((*names, "images_per_record"))
    measures["width"] = measure([[64.0, 66.8, 3], [128.0, 133.7, 5]])
    measures["turns"] = measure([[2, 3, 8]], whole=True)
    copies = {name: {"count": 2, "examples": []} for name in ("text", "image", "picture")}
    ngrams = {
        "n": 4,
        "texts": 8,
        "total": 80,
        "distinct": 60,
        "distinct_share": 0.75,
        "entropy": 5.5,
    }
    ngrams |= {
        "top10_share": 0.2,
        "top100_share": 0.9,
        "top": [{"words": "a <b> c d", "texts": 4, "share": 0.5}],
    }
    given = {
        "sources": [{"name": "set <one>", "records": 9, "fingerprint": "abc"}],
        "read": 9,
        "records": 8,
        "images": 8,
        "unreadable": {"image": 1},
        "damage": [
            {"kind": "image", "source": "set <one>", "position": 3, "error": "cut <script>"}
        ],
        "kinds": {"caption": 8},
        "languages": {"by": "script", "counts": {"script:latin": 8}},
        "measures": measures,
        "copies": copies,
        "distance": 6,
        "ngrams": ngrams,
    }
    return {**given, **changes}


def shown(**changes: object) -> dict:
    given = {
        "source": "s",
        "position": 1,
        "id": "<r1>",
        "kind": "caption",
        "text": "<script>alert(1)</script>",
    }
    return {
        **given,
        "image": "data:image/jpeg;base64,AAAA",
        "size": "3 x 4 px",
        "images": 2,
        **changes,
    }


@pytest.fixture(scope="module")
def html() -> str:
    pair = {"first": shown(), "again": shown(position=5)}
    return render_stats(values(), [shown(), shown(image=None, size=None)], [pair])


def test_the_page_is_whole_and_needs_nothing_else(html: str):
    outline = Outline(html)
    assert outline.open == []
    assert "script" not in outline.tags
    assert all(link.startswith(("#", "data:image/")) for link in outline.links)
    assert "default-src 'none'" in html
    assert all(image["alt"] for image in outline.images)


def test_it_shows_what_it_is_given(html: str):
    for text in (
        "75.0 %",
        "5.5",
        "by script alone",
        "first of 2 images",
        "looks like the first",
        "text only",
        "11.1 %",
    ):
        assert text in html
    assert html.count("<svg") == 5
    assert "&lt;script&gt;alert(1)" in html
    assert "set &lt;one&gt;" in html


def test_data_without_images_copies_or_damage():
    copies = {name: {"count": 0, "examples": []} for name in ("text", "image")}
    empty = {
        "n": 4,
        "texts": 0,
        "total": 0,
        "distinct_share": 0.0,
        "entropy": 0.0,
        "top100_share": 0.0,
        "top": [],
    }
    html = render_stats(values(damage=[], unreadable={}, copies=copies, ngrams=empty), [], [])
    assert Outline(html).open == []
    assert "Unreadable records" not in html
    assert "equal to an earlier one" in html


def ticks(svg: str) -> list[str]:
    return re.findall(r">([^<>]+)</text>", svg)


def test_histograms_have_round_ticks():
    wide = measure([[float(2**power), 2.0 ** (power + 0.25), 1] for power in range(4, 20)])
    drawn = ticks(histogram("bytes", "Size", "bytes", wide).svg)
    assert {"100", "1 k", "10 k", "100 k"} <= set(drawn)
    whole = ticks(histogram("turns", "Turns", "turns", measure([[2, 3, 8]], whole=True)).svg)
    assert "2" in whole
    assert not any("." in text for text in whole)


def test_a_measure_that_is_always_zero_is_drawn():
    assert "<svg" in histogram("characters", "Length", "characters", measure([[0.0, 0.0, 4]])).svg


def test_a_ranking_is_cut_and_says_so():
    chart = ranking("Languages", {f"l{i}": 20 - i for i in range(15)}, 100)
    assert chart.caption == "And 3 more."
    assert "20.0 %" in chart.svg
    assert ranking("Languages", {}, 1) is None
