"""Templates that cannot be trained on are refused, and nothing is rendered twice."""

from __future__ import annotations

import pytest
from small_tokenizers import CHATML, THINKING, byte_tokenizer

from sailvit.core.errors import DataError
from sailvit.data.processing.chat_template import Template

PAIR = (("user", "\0"), ("assistant", "\0"))


def test_a_shape_is_rendered_once(monkeypatch):
    template = Template(byte_tokenizer(CHATML))
    first = template.skeleton(PAIR)
    monkeypatch.setattr(template, "render", None)
    assert template.skeleton(PAIR) is first


def test_slots_carry_the_text_between_turns():
    skeleton = Template(byte_tokenizer(CHATML)).skeleton(PAIR)
    assert [slot.literal for slot in skeleton.slots] == [
        "<|im_start|>user\n",
        "<|im_end|>\n<|im_start|>assistant\n",
    ]
    assert skeleton.end == "<|im_end|>\n"
    assert [(slot.opens, slot.closes) for slot in skeleton.slots] == [
        (None, None),
        (0, len("<|im_end|>")),
    ]


def test_texts_are_split_where_the_template_looks():
    template = Template(byte_tokenizer(THINKING))
    assert template.split("plain words in a row") == ("\0", ["plain words in a row"])
    assert template.split("</think>") == ("\0", ["</think>"])
    assert template.split("<think>\na b\n</think>\n\nc") == (
        "<think>\n\0\n</think>\n\n\0",
        ["a b", "c"],
    )


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (
            "{% for m in messages %}{{ m.content }}{{ m.content }}{% endfor %}",
            "turn 1 of user, assistant 2 times",
        ),
        ("{{ messages[0].content }}", "turn 2 of user, assistant 0 times"),
        ("{{ messages[1].content }}{{ messages[0].content }}", "out of order"),
        ("{% for m in messages %}{{ m.content | upper }}{% endfor %}", "0 times"),
        (
            "{{ raise_exception('system first') }}",
            "refuses a conversation of user, assistant .system first.",
        ),
    ],
)
def test_templates_that_hide_or_double_turns_are_refused(source, message):
    with pytest.raises(DataError, match=message):
        Template(byte_tokenizer(source)).skeleton(PAIR)


def test_a_tokenizer_without_template_needs_an_end_of_text_token():
    tokenizer = byte_tokenizer()
    assert (
        Template(tokenizer).render(("user", "assistant"), ("a", "b"))
        == "USER: a\nASSISTANT: b<|im_end|>"
    )
    tokenizer.eos_token = None
    with pytest.raises(DataError, match="neither a chat template nor an end-of-text token"):
        Template(tokenizer).skeleton(PAIR)
