"""The page of packs: complete, escaped, and free of scripts and addresses."""

from __future__ import annotations

import re

from sailvit.report.packs import render_packs, visible

PIXEL = "data:image/png;base64,AAAA"
CHIP = {"text": "<b>hi</b>\n", "trained": False, "special": False, "at": 0, "ids": [7]}
SAMPLE = {
    "id": "src/<script>",
    "kind": "chat",
    "position": 3,
    "pair": True,
    "start": 0,
    "tokens": 20,
    "cut_from": 5120,
    "images": 1,
    "tiles": 3,
    "image_tokens": 12,
    "trained": 2,
    "problems": ["nothing is trained on"],
    "stretches": [
        {"kind": "image", "at": 0, "tokens": 12},
        {"kind": "trained", "at": 12, "tokens": 8},
    ],
    "pieces": [
        {
            "columns": 2,
            "cells": [PIXEL, None],
            "whole": [PIXEL],
            "grid": None,
            "at": 0,
            "tokens": 12,
        },
        {
            "chips": [
                CHIP,
                {**CHIP, "text": "yes", "trained": True, "at": 9},
                {**CHIP, "special": True, "trained": True},
            ]
        },
    ],
}
PACK = {
    "step": 4,
    "tokens": 20,
    "padding": 12,
    "tiles": 3,
    "image_tokens": 12,
    "trained": 2,
    "problems": 1,
    "samples": [SAMPLE],
    "bad": [{"source": "src", "position": 9, "id": "nine", "kind": "crc", "reason": "torn & lost"}],
}
VALUES = {
    "title": "recipe demo, stage fine",
    "sources": {"src": 10},
    "faults": [
        {"shard": "0.tar", "offset": 5, "kind": "link", "reason": "left out", "count": 1234}
    ],
    "stage": "fine",
    "seed": 0,
    "sequence": 32,
    "tile_budget": 6,
    "tile_size": 448,
    "native": False,
    "tokens_per_tile": 4,
    "left_out": 1,
    "packs": [PACK],
}


def test_everything_is_shown():
    page = render_packs(VALUES)
    for expected in (
        "recipe demo, stage fine · seed 0 · packs of 32 tokens and at most 6 tiles",
        "62.5 %",
        "✗ nothing is trained on",
        "cut from 5,120 tokens",
        "torn &amp; lost",
        "&lt;b&gt;hi&lt;/b&gt;↵\n</i>",
        '<i class="t" title="9 · 7">yes</i>',
        '<i class="t s"',
        "3 tiles · 12 tokens",
        'style="--columns: 2"',
        "1,234",
        "1 tile had no room in this page",
        '<rect class="image" x="0" width="12"',
    ):
        assert expected in page, expected


def test_nothing_of_the_data_runs_or_leads_elsewhere():
    page = render_packs(VALUES)
    assert "<script" not in page
    assert "src/&lt;script&gt;" in page
    assert not re.search(r"https?://", page)
    assert "default-src 'none'" in page


def test_a_page_without_packs_says_so():
    page = render_packs({**VALUES, "packs": [], "faults": [], "left_out": 0})
    assert "There are no packs" in page
    assert "had no room" not in page


def test_blanks_are_made_visible():
    assert [visible(text) for text in ("a\n\n", "\t", "", " b")] == ["a↵\n↵\n", "⇥\t", "∅", " b"]
