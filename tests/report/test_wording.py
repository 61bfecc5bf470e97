"""Numbers as the page writes them."""

import math

import pytest

from sailvit.report import wording


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0"),
        (9_999, "9,999"),
        (48_000, "48 k"),
        (999_600, "1 M"),
        (1_234_567, "1.23 M"),
        (121e9, "121 B"),
    ],
)
def test_short_counts(value, text):
    assert wording.short(value) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.25, "0.2 s"),
        (42, "42 s"),
        (264.2, "4 min 24 s"),
        (119.7, "2 min 0 s"),
        (7_500, "2 h 5 min"),
        (180_000, "2 d 2 h"),
    ],
)
def test_durations(seconds, text):
    assert wording.duration(seconds) == text


def test_shares_and_points():
    assert wording.percent(0.0312) == "3.1 %"
    assert wording.percent(math.nan) == wording.MISSING
    assert wording.points(0.129) == "+12.9"
    assert wording.points(-0.01) == "\N{MINUS SIGN}1.0"
    assert wording.score(0.4766) == "0.477"


def test_rates_keep_three_digits():
    assert [wording.rate(v) for v in (12.345, 167.4, 4750.2, math.nan)] == [
        "12.3",
        "167",
        "4,750",
        wording.MISSING,
    ]


def test_stored_values_become_one_line():
    assert (
        wording.plain({"cpu": "2 cores", "gpus": ["a", "b"], "none": None})
        == "cpu: 2 cores, gpus: a, b, none: —"
    )
    assert wording.plain([]) == ""


def test_long_text_is_clipped():
    assert wording.clipped("word " * 100, 12) == "word word w…"
    assert wording.clipped("short") == "short"
