"""Chips: they join to the decoded text, and none mixes learnt tokens with others."""

from __future__ import annotations

import pytest
from small_tokenizers import byte_tokenizer

from sailvit.dataprep.inspect.tokens import chips
from sailvit.models.loading.world_tokenizer import build_tokenizer


def encoded(tokenizer, text):
    return tokenizer.backend_tokenizer.encode(text, add_special_tokens=False).ids


@pytest.mark.parametrize(
    "text", ["what colour?", "a \u2013 猫 🐈 é\n\tz", "<|im_start|>user\nred<|im_end|>", "🐈🐈"]
)
def test_chips_join_to_the_text(text):
    tokenizer = byte_tokenizer()
    ids = encoded(tokenizer, text)
    made = chips(tokenizer, ids, [False] * len(ids), start=5)
    assert "".join(chip["text"] for chip in made) == text
    assert [token for chip in made for token in chip["ids"]] == ids
    assert [chip["at"] for chip in made] == [
        5 + sum(len(c["ids"]) for c in made[:n]) for n in range(len(made))
    ]


def test_a_character_of_several_tokens_is_one_chip():
    tokenizer = byte_tokenizer()
    ids = encoded(tokenizer, "🐈.")
    made = chips(tokenizer, ids, [True] * len(ids), start=0)
    assert [chip["text"] for chip in made] == ["🐈", "."]
    assert len(made[0]["ids"]) == 4


def test_a_chip_never_mixes_learnt_tokens_with_others():
    tokenizer = byte_tokenizer()
    ids = encoded(tokenizer, "🐈")
    made = chips(tokenizer, ids, [False, False, True, True], start=0)
    assert [(len(chip["ids"]), chip["trained"]) for chip in made] == [(2, False), (2, True)]


def test_bytes_that_are_no_text_end_somewhere():
    tokenizer = byte_tokenizer()
    broken = encoded(tokenizer, "🐈")[:1] * 20
    assert [len(chip["ids"]) for chip in chips(tokenizer, broken, [False] * 20, start=0)] == [
        8,
        8,
        4,
    ]


def test_special_tokens_and_words_of_a_tokenizer_without_blanks():
    tokenizer = build_tokenizer()
    ids = encoded(tokenizer, "<|user|> what is it ? <|end|>")
    made = chips(tokenizer, ids, [False] * len(ids), start=0)
    assert [chip["special"] for chip in made] == [True, False, False, False, False, True]
    assert [chip["text"].strip() for chip in made] == [
        "<|user|>",
        "what",
        "is",
        "it",
        "?",
        "<|end|>",
    ]
