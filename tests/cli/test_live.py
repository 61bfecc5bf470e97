"""What a training shows on a terminal: two lines that fit, the important first; and what it says at its start."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from sailvit.cli.live import LiveLines, fitting
from sailvit.cli.progress import announcement, measuring, opening
from sailvit.core.formatting import clock, counted
from sailvit.core.remaining import seconds_ahead
from sailvit.recipes.loader import load_recipe

FACTS = [
    "step 98", "next_token 1.426", "contrastive 2.310", "12,345 answer tokens/s", "167 samples/s",
    "MFU 23 %", "padding 2.1 %",
]  # fmt: skip


def drawn(thing: Any, width: int) -> list[str]:
    console = Console(width=width, record=True, file=io.StringIO(), force_terminal=True)
    console.print(thing)
    return console.export_text().splitlines()


@pytest.mark.parametrize("width", [60, 80, 130])
@pytest.mark.parametrize("name", ["fine", "a-stage-with-quite-a-long-name-of-its-own"])
def test_two_lines_at_any_width(width: int, name: str):
    lines = LiveLines(
        f"stage 1/3 {name}", done=0.459, seconds=5000, left=7000, run_left=90000, facts=FACTS
    )
    shown = drawn(lines, width)
    assert len(shown) == 2
    assert max(map(len, shown)) <= width
    for text in ("stage 1/3 ", "━━━", " 45 %", "1h23", "ETA 1h57", "run 25h00"):
        assert text in shown[0], text
    assert shown[1].startswith("step 98  next_token 1.426  contrastive 2.310")


def test_the_least_important_is_dropped_first():
    assert [drawn(LiveLines("x", facts=FACTS), width)[1].rstrip() for width in (60, 80, 130)] == [
        "step 98  next_token 1.426  contrastive 2.310",
        "step 98  next_token 1.426  contrastive 2.310  12,345 answer tokens/s",
        "  ".join(FACTS),
    ]
    assert fitting(["longer than that"], 5) == "longer than that"


def test_the_clock_goes_on_between_steps(monkeypatch: pytest.MonkeyPatch):
    lines = LiveLines("x", seconds=10, left=20, at=100.0)
    monkeypatch.setattr("sailvit.cli.live.time.monotonic", lambda: 105.0)
    assert "0:15  ETA 0:15" in drawn(lines, 80)[0]


def test_the_time_of_later_stages_follows_the_pace_of_this_one():
    done = {"samples": 100, "tokens": 5000, "seconds": 50.0}
    assert seconds_ahead([{"samples": 400}, {"tokens": 1000}], **done) == 200 + 10
    assert seconds_ahead([], **done) == 0
    assert seconds_ahead([{"samples": 400}, {"epochs": 1.0}], **done) is None
    assert seconds_ahead([{"samples": 4}], samples=0, tokens=0, seconds=0.0) is None


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (6.6, "0:07"),
        (754, "12:34"),
        (3599.4, "59:59"),
        (3723, "1h02"),
        (184000, "2d03h"),
        (-3, "0:00"),
    ],
)
def test_clocks(seconds: float, text: str):
    assert clock(seconds) == text


def test_numbers_and_their_nouns():
    assert [counted(n, "pack") for n in (0, 1, 2, 1200)] == [
        "0 packs",
        "1 pack",
        "2 packs",
        "1,200 packs",
    ]
    assert counted(2, "loss", "losses") == "2 losses"


ROW = {"in_optimizer": 5, "moved": 776_000, "frozen_identical": 5, "lr": 1e-3, "verdict": "as planned"}  # fmt: skip
PROOF = {
    "stage": "fine",
    "step": 10,
    "ok": True,
    "rows": [
        {"part": "tower", "planned": 776_000, "frozen": 0, **ROW},
        {"part": "language", "planned": 0, "frozen": 2_000_000, **ROW},
    ],
}


def test_a_proof_that_holds_is_one_line():
    (line,) = drawn(announcement(PROOF), 80)
    assert line == "  proof of stage fine after step 10 holds: 1.55 M moved, 2 M frozen"


def test_the_table_is_for_the_curious_and_for_what_fails():
    assert "optimizer" in "".join(drawn(announcement(PROOF, verbose=True), 120))
    assert "optimizer" in "".join(drawn(announcement({**PROOF, "ok": False}), 120))


def test_the_start_says_where_on_what_and_which_parts():
    text = opening(load_recipe("demo"), Path("runs/x"))
    assert text.startswith("writes to runs/x, trains on ")
    assert "loads tower sailvit:world/tower, connector merge_mlp, merge 2, language" in text


def test_measuring_a_large_source_is_said_once_in_plain_output():
    console = Console(width=80, record=True, file=io.StringIO())
    with measuring(console) as measured:
        measured("small", 1, 100)
        for done in (1024, 2048, 50_000):
            measured("web", done, 50_000)
    assert console.export_text() == "measuring 50,000 records of web\n"


def test_nothing_is_shown_of_what_is_not_known():
    (bar, facts) = drawn(LiveLines("stage 1/1 x", left=None), 60)
    assert "ETA" not in bar
    assert "run" not in bar
    assert facts.strip() == ""
