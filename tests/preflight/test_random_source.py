"""Invented records: of the wanted shape, the same each time, and readable like any others."""

from __future__ import annotations

import numpy as np
import pytest
from small_tokenizers import CHATML, byte_tokenizer, layout_for

from sailvit.core.batch import IGNORED
from sailvit.data.processing.processor import Processor
from sailvit.preflight.random_source import InventedSource


@pytest.mark.parametrize("most", [1, 6])
def test_tiles_are_half_of_what_is_allowed(most: int):
    layout = layout_for(byte_tokenizer(CHATML), max_tiles=most, thumbnail=False)
    source = InventedSource(layout, count=60, words=5)
    tiles = [
        Processor(byte_tokenizer(CHATML), layout, 4096).cost(source[at])[1]
        for at in range(len(source))
    ]
    assert np.mean(tiles) == pytest.approx((1 + most) / 2, abs=0.3)
    assert max(tiles) == most


def test_texts_have_the_length_asked_for_and_vary():
    source = InventedSource(layout_for(byte_tokenizer()), count=400, words=40)
    lengths = [len(source[at].turns[1].text.split()) for at in range(len(source))]
    assert np.mean(lengths) == pytest.approx(40, rel=0.1)
    assert np.std(lengths) > 10


def test_a_record_is_the_same_at_every_call_and_another_at_another_place():
    source = InventedSource(layout_for(byte_tokenizer()), count=9, words=10, kind="caption")
    assert source[3] == source[3]
    assert source[3].turns != source[4].turns
    assert source[3].kind == "caption"
    assert (
        source.fingerprint
        == InventedSource(
            layout_for(byte_tokenizer()), count=9, words=10, kind="caption"
        ).fingerprint
    )


def test_samples_are_made_of_it():
    tokenizer = byte_tokenizer(CHATML)
    layout = layout_for(tokenizer, max_tiles=4)
    made = Processor(tokenizer, layout, 2048)(
        "invented", InventedSource(layout, count=6, words=8)[5]
    )
    assert made.tiles.shape == (5, 3, 8, 8)
    assert (made.labels != IGNORED).any()
