"""Tokens and line breaks around images: their places, lengths, cuts and prompts."""

from __future__ import annotations

import numpy as np
import pytest
from small_tokenizers import CHATML, byte_tokenizer, layout_for

from sailvit.core.errors import DataError
from sailvit.core.layout import VisualLayout
from sailvit.core.records import Record, Turn
from sailvit.data.lengths.fingerprints import digest, layout_fingerprint
from sailvit.data.processing.processor import Processor
from sailvit.data.processing.text import TextEncoder

WRAP = ("<img>", "</img>")
PAD = "<|image_pad|>"


def processor(longest: int = 500, **settings) -> Processor:
    tokenizer = byte_tokenizer(CHATML)
    tokenizer.add_tokens(list(WRAP), special_tokens=True)
    return Processor(tokenizer, layout_for(tokenizer, **settings), longest)


def record(*texts: str, images: int) -> Record:
    roles = ("user", "assistant") * len(texts)
    turns = tuple(Turn(role, text) for role, text in zip(roles, texts, strict=False))
    return Record("r", turns, tuple(np.full((8, 8, 3), n, np.uint8) for n in range(images)))


def read(made: Processor, given: Record) -> str:
    return made.tokenizer.decode(made("s", given).tokens)


@pytest.mark.parametrize(
    ("question", "newline", "shown"),
    [
        ("<image>\nwhat?", False, "<img>||</img>\nwhat?"),
        ("<image>\nwhat?", True, "<img>||</img>\nwhat?"),
        ("<image>what?", False, "<img>||</img>what?"),
        ("<image>what?", True, "<img>||</img>\nwhat?"),
        ("<image><image> what?", True, "<img>||</img>\n<img>||</img>\n what?"),
        ("what is <image>", True, "what is <img>||</img>"),
        ("<image>", True, "<img>||</img>"),
    ],
)
def test_images_are_wrapped_and_parted_from_what_follows(question: str, newline: bool, shown: str):
    made = processor(wrap=WRAP, newline=newline)
    text = read(made, record(question, "red", images=question.count("<image>")))
    expected = f"<|im_start|>user\n{shown.replace('|', PAD)}<|im_end|>\n<|im_start|>assistant\nred"
    assert text.startswith(expected)


def test_a_line_break_needs_no_wrap():
    text = read(processor(newline=True), record("<image>what?", "red", images=1))
    assert f"user\n{PAD}{PAD}\nwhat?" in text


def test_lengths_and_runs_count_the_wrap_and_prompts_equal_training():
    plain, made = processor(), processor(wrap=WRAP)
    given = record("<image><image>what?", "red", "and <image>?", "blue", images=3)
    assert made.cost(given)[0] == plain.cost(given)[0] + 6 == len(made("s", given).tokens)
    text = made.draft("s", given).text
    before, after = made.tokenizer.convert_tokens_to_ids(list(WRAP))
    assert [(int(text.tokens[start - 1]), int(text.tokens[end])) for start, end in text.runs] == [
        (before, after)
    ] * 3
    prompt = made.prompt("s", given).tokens
    assert prompt.equal(made("s", given).tokens[: len(prompt)])


def test_an_image_in_an_answer_is_given_with_its_wrap():
    made = processor(wrap=WRAP)
    sample = made("s", record("draw it", "here: <image> done", images=1))
    learnt = made.tokenizer.decode(sample.labels[sample.labels >= 0])
    assert learnt == "here:  done<|im_end|>"


@pytest.mark.parametrize("longest", range(24, 90))
def test_a_cut_keeps_an_image_with_its_wrap_or_neither(longest: int):
    made = processor(longest, wrap=WRAP, tokens_per_tile=10)
    given = record("a?", "b", "<image>", "c", "<image>x", "d" * 20, images=2)
    sample = made("s", given)
    ids = sample.tokens.tolist()
    before, after = made.tokenizer.convert_tokens_to_ids(list(WRAP))
    assert len(ids) <= longest
    assert ids.count(before) == ids.count(after) == len(sample.tiles)
    assert ids.count(made.layout.placeholder_id) == 10 * len(sample.tiles)
    limited = made.draft("s", given, most_tiles=1)
    assert np.count_nonzero(limited.text.tokens == before) == min(1, len(sample.tiles))


def test_a_wrap_that_is_no_token_is_refused():
    tokenizer = byte_tokenizer(CHATML)
    with pytest.raises(DataError, match=r"turns '<img>' of model.image.wrap into \[.*, .*\]"):
        TextEncoder(tokenizer, layout_for(tokenizer, wrap=WRAP))


def test_counts_made_before_images_could_be_wrapped_stay_good():
    old = {
        "tile_size": 8,
        "tokens_per_tile": 2,
        "placeholder_id": 3,
        "placeholder": PAD,
        "max_tiles": 1,
        "thumbnail": True,
    }
    prints = [
        layout_fingerprint(VisualLayout(**old, **more))
        for more in ({}, {"wrap": WRAP}, {"newline": True})
    ]
    assert prints[0] == digest(old)
    assert len(set(prints)) == 3
