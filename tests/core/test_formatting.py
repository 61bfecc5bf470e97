"""Numbers as terminal, page and messages write them."""

import math

import pytest

from sailvit.core import formatting


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, formatting.MISSING),
        (0, "0"),
        (0.5, "0.5"),
        (9_999, "9,999"),
        (48_000, "48 k"),
        (999_600, "1 M"),
        (1_234_567, "1.23 M"),
        (121e9, "121 B"),
    ],
)
def test_short_counts(value, text):
    assert formatting.short(value) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (None, formatting.MISSING),
        (0.25, "0.2 s"),
        (42, "42 s"),
        (264.2, "4 min 24 s"),
        (119.7, "2 min 0 s"),
        (7_500, "2 h 5 min"),
        (180_000, "2 d 2 h"),
    ],
)
def test_durations(seconds, text):
    assert formatting.duration(seconds) == text


@pytest.mark.parametrize(
    ("seconds", "text"), [(7, "0:07"), (754, "12:34"), (3720, "1h02"), (51 * 3600, "2d03h")]
)
def test_clocks_take_few_columns(seconds, text):
    assert formatting.clock(seconds) == text


def test_sizes_and_speeds_of_devices():
    assert [formatting.size(b) for b in (3.5 * 2**30, 20 * 2**20)] == ["3.5 GiB", "20 MiB"]
    assert formatting.flop_rate(98.94e12) == "98.9 TFLOP/s"


def test_nouns_follow_their_number():
    told = [formatting.counted(n, "pack") for n in (0, 1, 1200)]
    assert told == ["0 packs", "1 pack", "1,200 packs"]
    assert formatting.counted(2, "query", "queries") == "2 queries"


def test_shares_and_points():
    assert formatting.percent(0.0312) == "3.1 %"
    assert formatting.percent(0.98, 0) == "98 %"
    assert formatting.percent(math.nan) == formatting.MISSING
    assert formatting.points(0.129) == "+12.9"
    assert formatting.points(-0.01) == "\N{MINUS SIGN}1.0"
    assert formatting.score(0.4766) == "0.477"


def test_rates_keep_three_digits():
    assert [formatting.rate(v) for v in (12.345, 167.4, 4750.2, math.nan)] == [
        "12.3",
        "167",
        "4,750",
        formatting.MISSING,
    ]


def test_stored_values_become_one_line():
    assert (
        formatting.plain({"cpu": "2 cores", "gpus": ["a", "b"], "none": None})
        == "cpu: 2 cores, gpus: a, b, none: —"
    )
    assert formatting.plain([]) == ""


def test_long_text_is_clipped():
    assert formatting.clipped("word " * 100, 12) == "word word w…"
    assert formatting.clipped("short") == "short"
