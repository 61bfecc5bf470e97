"""Remarks on what is trained and asked in different forms."""

from __future__ import annotations

from chat_templates import PUBLISHED, chat_tokenizer
from small_tokenizers import layout_for

from sailvit.core.errors import DataError
from sailvit.core.records import Record, Turn
from sailvit.data.processing.text import TextEncoder
from sailvit.training.checks.problems import thinking_remarks


class Some:
    """Records of which every third thinks and one cannot be read."""

    fingerprint = "some"

    def __init__(self, thought: str) -> None:
        self.thought = thought
        self.read: list[int] = []

    def __len__(self) -> int:
        return 100

    def __getitem__(self, position: int) -> Record:
        self.read.append(position)
        if position == 3:
            raise DataError("damaged")
        said = "" if position % 3 else self.thought
        return Record("r", (Turn("user", "what?"), Turn("assistant", f"{said}red")))


def remarks(template: str, source: Some) -> list[str]:
    tokenizer = chat_tokenizer(PUBLISHED[template])
    return list(thinking_remarks({"some": source}, TextEncoder(tokenizer, layout_for(tokenizer))))


def test_data_with_thinking_that_is_asked_without_are_named():
    (told,) = remarks("qwen_3", Some("<think>\nhm\n</think>\n\n"))
    assert told.startswith("sources.some: answers begin with thinking (10 of the first 32)")
    assert r"prompts end with '<think>\n\n</think>'" in told
    assert remarks("qwen_3", Some("")) == []


def test_no_record_is_read_where_templates_ask_as_they_train():
    source = Some("<think>\nhm\n</think>\n\n")
    assert remarks("qwen_2", source) == remarks("deepseek", source) == source.read == []
