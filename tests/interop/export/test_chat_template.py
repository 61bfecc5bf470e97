"""Prompts of exported chat templates are training's, for published templates and made ones."""

from __future__ import annotations

from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Any

import pytest
from chat_templates import PUBLISHED, chat_tokenizer
from small_tokenizers import TEMPLATES, byte_tokenizer, layout_for
from transformers import PreTrainedTokenizerFast

from sailvit.core.errors import DataError
from sailvit.data.processing.processor import Processor
from sailvit.inference.processor import ChatProcessor
from sailvit.interop.export.chat_template import export_template

DAY = date(2026, 1, 31)
IMAGE, TEXT = {"type": "image"}, {"type": "text", "text": "what is  red?\n"}


def said(role: str, *pieces: Any) -> dict[str, Any]:
    return {"role": role, "content": list(pieces)}


CONVERSATIONS = {
    "text": [{"role": "user", "content": " what is red? "}],
    "system": [{"role": "system", "content": "be brief"}, said("user", IMAGE, TEXT)],
    "images first": [said("user", IMAGE, IMAGE, TEXT)],
    "image last": [said("user", TEXT, IMAGE)],
    "between": [said("user", TEXT, IMAGE, TEXT, IMAGE, {"type": "text", "text": " blank"})],
    "own line": [said("user", IMAGE, {"type": "text", "text": "\nwhat?"})],
    "turns": [
        said("user", IMAGE, TEXT),
        said("assistant", {"type": "text", "text": "a red one"}),
        said("user", {"type": "text", "text": "and"}, IMAGE, {"type": "text", "text": "this?"}),
    ],
}


def prompts(tokenizer: PreTrainedTokenizerFast, **settings: Any) -> int:
    """Compare all conversations that training takes; how many they were."""
    tokenizer.add_tokens(["<img>", "</img>"], special_tokens=True)
    layout = replace(layout_for(tokenizer), **settings)
    ours = ChatProcessor(Processor(tokenizer, layout, 4096, day=DAY))
    template = export_template(tokenizer, layout, DAY, wrapped=True)
    compared = 0
    for messages in CONVERSATIONS.values():
        shown = sum(
            piece["type"] == "image"
            for message in messages
            for piece in message["content"]
            if isinstance(piece, dict)
        )
        images = [Path("a.png")] * shown
        try:
            expected = ours.apply_chat_template(messages, images, tokenize=False)
        except DataError:
            continue
        found = tokenizer.apply_chat_template(
            messages, tokenize=False, add_generation_prompt=True, chat_template=template
        )
        assert found == expected
        compared += 1
    return compared


SETTINGS: dict[str, dict[str, Any]] = {
    "bare": {},
    "wrapped": {"wrap": ("<img>", "</img>")},
    "lines": {"wrap": ("<img>", "</img>"), "newline": True},
}


@pytest.mark.parametrize("settings", SETTINGS)
@pytest.mark.parametrize("name", [*TEMPLATES, "plain"])
def test_made_templates(name: str, settings: str):
    assert prompts(byte_tokenizer(TEMPLATES.get(name)), **SETTINGS[settings]) >= 5


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_templates(name: str):
    assert prompts(chat_tokenizer(PUBLISHED[name]), newline=True) >= 4


def test_whole_conversations_are_written_too():
    tokenizer = byte_tokenizer(TEMPLATES["chatml"])
    template = export_template(tokenizer, layout_for(tokenizer), DAY)
    messages = [said("user", IMAGE, TEXT), {"role": "assistant", "content": "a red one "}]
    found = tokenizer.apply_chat_template(messages, tokenize=False, chat_template=template)
    assert found == (
        "<|im_start|>user\n<|image_pad|>\nwhat is  red?<|im_end|>\n"
        "<|im_start|>assistant\na red one<|im_end|>\n"
    )


def test_the_date_is_training_s():
    source = "{{ strftime_now('%d %B %Y') }}" + TEMPLATES["chatml"]
    assert prompts(byte_tokenizer(source)) >= 5
    tokenizer = byte_tokenizer(source)
    template = export_template(tokenizer, layout_for(tokenizer), DAY)
    told = tokenizer.apply_chat_template(
        [{"role": "user", "content": "a"}], tokenize=False, chat_template=template
    )
    assert told.startswith("31 January 2026")
