"""Labels fall on answers and nothing else, for templates of every habit."""

from __future__ import annotations

import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from small_tokenizers import TEMPLATES, byte_tokenizer, layout_for
from tokenizers.processors import TemplateProcessing

from sailvit.core.errors import DataError
from sailvit.core.records import Record, Turn
from sailvit.data.processing.text import TextEncoder

TALK = (
    Turn("system", "be brief"),
    Turn("user", "<image>\nwhat colour?"),
    Turn("assistant", "red"),
    Turn("user", "and the square?"),
    Turn("assistant", "blue 🟦 one"),
)


def record(*turns: Turn, images: int = 0) -> Record:
    return Record("r", turns, (b"",) * images)


def encoder_for(template: str | None, **settings) -> tuple[TextEncoder, object]:
    tokenizer = byte_tokenizer(TEMPLATES[template] if template else None)
    return TextEncoder(tokenizer, layout_for(tokenizer, **settings)), tokenizer


def learnt(tokenizer, text) -> str:
    return tokenizer.decode(text.labels[text.labels >= 0])


@pytest.mark.parametrize(
    ("template", "expected"),
    [
        ("chatml", "red<|im_end|>blue 🟦 one<|im_end|>"),
        ("spaced", " red <|im_end|> blue 🟦 one <|im_end|>"),
        ("thinking", "red<|im_end|>blue 🟦 one<|im_end|>"),
        (None, " red<|im_end|> blue 🟦 one<|im_end|>"),
    ],
)
def test_loss_is_on_answers_and_their_end_of_turn(template, expected):
    encoder, tokenizer = encoder_for(template)
    assert learnt(tokenizer, encoder.encode(record(*TALK, images=1), [1])) == expected


@pytest.mark.parametrize("template", TEMPLATES)
@pytest.mark.parametrize("turns", [TALK, TALK[1:], TALK[1:3], TALK[3:]])
def test_text_equals_what_the_template_renders(template, turns):
    encoder, tokenizer = encoder_for(template)
    images = sum("<image>" in turn.text for turn in turns)
    turns = tuple(Turn(turn.role, f" {turn.text}\n") for turn in turns)
    text, spans = encoder.render(record(*turns, images=images))
    messages = [
        {"role": t.role, "content": t.text.strip().replace("<image>", "<|image_pad|>")}
        for t in turns
    ]
    assert text == tokenizer.apply_chat_template(messages, tokenize=False)
    answers = [turn.text.strip() for turn in turns if turn.role == "assistant"]
    assert [text[slice(*span)].replace("<|im_end|>", "").strip() for span in spans] == answers


def test_tokens_equal_those_of_the_whole_text():
    encoder, tokenizer = encoder_for("chatml")
    tokens = encoder.encode(record(*TALK[3:]), []).tokens
    messages = [{"role": turn.role, "content": turn.text} for turn in TALK[3:]]
    assert tokens.tolist() == tokenizer.apply_chat_template(
        messages, tokenize=True, return_dict=False
    )


def test_thinking_is_kept_in_the_last_answer_and_dropped_from_history_as_the_template_does():
    encoder, tokenizer = encoder_for("thinking")
    turns = (
        Turn("user", "first?"),
        Turn("assistant", "<think>\nold thought\n</think>\n\nold answer"),
        Turn("user", "second?"),
        Turn("assistant", "<think>\nnew thought\n</think>\n\nnew answer"),
    )
    text, spans = encoder.render(record(*turns))
    messages = [{"role": turn.role, "content": turn.text} for turn in turns]
    assert text == tokenizer.apply_chat_template(messages, tokenize=False)
    assert [text[slice(*span)] for span in spans] == [
        "old answer<|im_end|>",
        "<think>\nnew thought\n</think>\n\nnew answer<|im_end|>",
    ]


def test_labels_are_the_next_tokens():
    encoder, _ = encoder_for("chatml")
    text = encoder.encode(record(*TALK, images=1), [3])
    at = np.flatnonzero(text.labels >= 0)
    assert (text.labels[at] == text.tokens[at + 1]).all()
    assert text.labels[-1] == -100


def test_an_image_becomes_one_run_of_placeholders_per_tile():
    encoder, _ = encoder_for("chatml", tokens_per_tile=3)
    turns = (Turn("user", "<image> and <image>"), Turn("assistant", "yes"))
    text = encoder.encode(record(*turns, images=2), [1, 4])
    pad = encoder.layout.placeholder_id
    assert [end - start for start, end in text.runs] == [3, 12]
    assert sorted(np.flatnonzero(text.tokens == pad)) == [
        t for run in text.runs for t in range(*run)
    ]
    assert not (text.labels == pad).any()


@pytest.mark.parametrize("template", [*TEMPLATES, None])
def test_a_prompt_is_a_prefix_of_the_training_tokens_up_to_the_last_answer(template):
    encoder, tokenizer = encoder_for(template)
    whole = encoder.encode(record(*TALK, images=1), [1])
    prompt = encoder.encode_prompt(record(*TALK, images=1), [1])
    open_ended = encoder.encode_prompt(record(*TALK[:-1], images=1), [1])
    assert (
        prompt.tokens.tolist() == whole.tokens[: len(prompt)].tolist() == open_ended.tokens.tolist()
    )
    rest = tokenizer.decode(whole.tokens[len(prompt) :]).strip()
    assert rest.startswith("blue")
    assert (prompt.labels == -100).all()


def test_the_template_writes_the_first_token_and_the_tokenizer_does_not_double_it():
    tokenizer = byte_tokenizer(TEMPLATES["spaced"])
    bos = tokenizer.bos_token_id
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
        single="<|bos|> $A", special_tokens=[("<|bos|>", bos)]
    )
    text = TextEncoder(tokenizer, layout_for(tokenizer)).encode(record(*TALK[3:]), [])
    assert text.tokens[:2].tolist().count(bos) == 1
    tokenizer.chat_template = None
    text = TextEncoder(tokenizer, layout_for(tokenizer)).encode(record(*TALK[3:]), [])
    assert text.tokens.tolist().count(bos) == 1
    assert text.tokens[0] == bos


def test_truncation_and_padding_of_the_shared_tokenizer_have_no_effect():
    encoder, tokenizer = encoder_for("chatml")
    expected = len(encoder.encode(record(*TALK, images=1), [1]))
    tokenizer.backend_tokenizer.enable_truncation(5)
    tokenizer.backend_tokenizer.enable_padding(length=500)
    again = TextEncoder(tokenizer, layout_for(tokenizer))
    assert len(again.encode(record(*TALK, images=1), [1])) == expected


@pytest.mark.parametrize(
    ("turns", "images", "message"),
    [
        ((Turn("user", "hi"),), 0, "no assistant turn"),
        ((Turn("user", "<image> hi"), Turn("assistant", "a")), 0, "1 <image> marks for 0 images"),
        ((Turn("user", "hi"), Turn("assistant", "a")), 1, "0 <image> marks for 1 images"),
        (
            (Turn("user", "<|image_pad|>"), Turn("assistant", "a")),
            0,
            "contains the placeholder token",
        ),
    ],
)
def test_records_that_do_not_hold_together_are_refused(turns, images, message):
    encoder, _ = encoder_for("chatml")
    with pytest.raises(DataError, match=message.replace("|", r"\|")):
        encoder.encode(record(*turns, images=images), [1] * images)


def test_a_placeholder_that_is_not_one_token_is_refused():
    tokenizer = byte_tokenizer(TEMPLATES["chatml"])
    with pytest.raises(DataError, match="expected the one id 7"):
        TextEncoder(tokenizer, layout_for(tokenizer, placeholder="red circle", placeholder_id=7))


def test_tokenizing_a_short_record_takes_well_below_a_millisecond():
    encoder, _ = encoder_for("thinking")
    talk = record(*TALK, images=1)
    encoder.encode(talk, [1])
    spent = min(_seconds(lambda: encoder.encode(talk, [1])) for _ in range(50))
    assert spent < 1e-3


def _seconds(action) -> float:
    start = time.perf_counter()
    action()
    return time.perf_counter() - start


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.tuples(st.text(max_size=12), st.text(min_size=1, max_size=20).filter(str.strip)),
        min_size=1,
        max_size=4,
    ).filter(lambda pairs: all("\0" not in q + a and "<" not in q + a for q, a in pairs)),
    st.sampled_from([*TEMPLATES, None]),
)
def test_labels_are_the_tokens_that_reach_into_an_answer(pairs, template):
    encoder, tokenizer = encoder_for(template)
    turns = [
        turn
        for question, answer in pairs
        for turn in (Turn("user", question), Turn("assistant", answer))
    ]
    text, spans = encoder.render(record(*turns))
    found = encoder.encode(record(*turns), [])
    offsets = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)[
        "offset_mapping"
    ]
    reaching = [
        any(end > first and start < last for first, last in spans) for start, end in offsets
    ]
    expected = [
        token if inside else -100 for token, inside in zip(found.tokens, reaching, strict=True)
    ]
    assert found.labels.tolist() == [*expected[1:], -100]


def test_turns_that_are_not_to_be_learnt_are_shown_and_not_trained_on():
    encoder, tokenizer = encoder_for("chatml")
    flagged = (*TALK[1:2], Turn("assistant", "red", learnt=False), *TALK[3:])
    whole = encoder.encode(record(*TALK[1:], images=1), [1])
    text = encoder.encode(record(*flagged, images=1), [1])
    assert text.tokens.tolist() == whole.tokens.tolist()
    assert learnt(tokenizer, text) == "blue 🟦 one<|im_end|>"
    with pytest.raises(DataError, match="every answer is marked as not to be learnt"):
        encoder.encode(record(Turn("user", "a"), Turn("assistant", "b", learnt=False)), [])


def test_reasoning_is_rendered_as_the_template_does_or_refused():
    turns = (Turn("user", "a"), Turn("assistant", "b", reasoning="hm"))
    knows = TEMPLATES["thinking"].replace(
        "{%- if '</think>' in content -%}",
        "{%- if message.reasoning_content is string -%}"
        "{%- set thoughts = message.reasoning_content -%}"
        "{%- elif '</think>' in content -%}",
    )
    tokenizer = byte_tokenizer(knows)
    encoder = TextEncoder(tokenizer, layout_for(tokenizer))
    messages = [
        {"role": "user", "content": "a"},
        {"role": "assistant", "content": "b", "reasoning_content": "hm"},
    ]
    assert encoder.render(record(*turns))[0] == tokenizer.apply_chat_template(
        messages, tokenize=False
    )
    assert "hm" in learnt(tokenizer, encoder.encode(record(*turns), []))
    for template in ("chatml", "thinking", None):
        with pytest.raises(DataError, match=r"`reasoning_content`.*does not show"):
            encoder_for(template)[0].encode(record(*turns), [])
