"""Pieces of a streamed answer joined are the answer, whatever its characters and stops."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from small_tokenizers import byte_tokenizer
from tokenizers import Tokenizer, decoders, models, normalizers
from transformers import PreTrainedTokenizerFast

from sailvit.inference.text_stream import TextStream, text_of

BYTES = byte_tokenizer()


def metaspace() -> PreTrainedTokenizerFast:
    """A tokenizer like Llama 2's: a blank is part of the next token, and missing at the start."""
    words = ["▁", "▁red", "▁blue", "red", ",", "▁,"]
    vocabulary = {"<unk>": 0} | {f"<0x{n:02X}>": n + 1 for n in range(256)}
    vocabulary |= {word: 257 + n for n, word in enumerate(words)}
    core = Tokenizer(models.BPE(vocabulary, [], unk_token="<unk>", byte_fallback=True))
    core.normalizer = normalizers.Sequence(
        [normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]
    )
    core.decoder = decoders.Sequence(
        [
            decoders.Replace("▁", " "),
            decoders.ByteFallback(),
            decoders.Fuse(),
            decoders.Strip(" ", 1, 0),
        ]
    )
    return PreTrainedTokenizerFast(tokenizer_object=core, unk_token="<unk>")


def streamed(tokenizer, tokens, ends=(), stops=()) -> list[str]:
    stream = TextStream(tokenizer, ends, stops)
    return [*(stream.put(token) for token in tokens), stream.finish()]


@settings(max_examples=150, deadline=None)
@given(
    st.lists(
        st.sampled_from(["red", " ", "\n", "é", "\U0001f600", "中文", "👨‍👩‍👧", "END", "E", "."]),
        max_size=12,
    ),
    st.sampled_from([(), ("END",), ("\n", "END"), ("é", "E.")]),
)
def test_joined_pieces_are_the_whole_answer(words: list[str], stops: tuple[str, ...]):
    tokens = BYTES("".join(words)).input_ids
    text = "".join(words)
    found = [at for stop in stops if (at := text.find(stop)) >= 0]
    expected = text[: min(found, default=len(text))].strip()
    pieces = streamed(BYTES, tokens, (), stops)
    assert "".join(pieces) == expected
    assert not any("\N{REPLACEMENT CHARACTER}" in piece for piece in pieces)
    assert not any(stop in expected for stop in stops)


METASPACE = metaspace()


@settings(max_examples=100, deadline=None)
@given(
    st.lists(
        st.sampled_from(["red", " blue", " ,", ",", "é", "中文", "\U0001f600", " ", "\n"]),
        max_size=9,
    ),
    st.sampled_from([BYTES, METASPACE]),
    st.integers(0, 3),
)
def test_answers_are_the_text_that_was_tokenized_cut_at_any_byte(words, tokenizer, lost):
    tokens = tokenizer("".join(words)).input_ids
    tokens = tokens[: len(tokens) - lost]
    found = text_of(tokenizer, tokens, ())
    assert "".join(words).strip().startswith(found)
    if not lost:
        assert found == "".join(words).strip()


def test_characters_come_whole_and_as_soon_as_they_are():
    tokens = BYTES("\U0001f600!").input_ids
    assert len(tokens) == 5
    assert streamed(BYTES, tokens) == ["", "", "", "\U0001f600", "!", ""]


def test_nothing_follows_an_end_or_a_stop():
    tokens = BYTES("red blue").input_ids
    end = BYTES.eos_token_id
    stream = TextStream(BYTES, [end])
    assert "".join(stream.put(token) for token in [*tokens, end, *tokens]) == "red blue"
    assert stream.ended
    assert (stream.tokens, stream.finish()) == (len(tokens), "")
    assert "".join(streamed(BYTES, tokens, (), ["d b"])) == "re"


def test_a_beginning_of_a_stop_is_held_back_until_it_is_none():
    stream = TextStream(BYTES, (), ["###"])
    pieces = [stream.put(token) for token in BYTES("a##b").input_ids]
    assert pieces[0] == "a"
    assert "".join(pieces) == "a##b"


@pytest.mark.parametrize("text", ["  red\n", "\n\n", ""])
def test_blanks_around_an_answer_are_left_out(text: str):
    assert "".join(streamed(BYTES, BYTES(text).input_ids)) == text.strip()
