"""Answers that end late leave their batch to those that ended, and say the same as alone."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from family_models import bundle_of
from transformers import GenerationConfig

from sailvit.core.records import Record, Turn
from sailvit.inference.generation import Options
from sailvit.inference.model import RunModel
from tiny_parts import Parts, picture

LONGEST, BATCH = 24, 4
WORDS = ("red", "blue circle", "left of a", "the large square", "what is it", "two", "top", "and")


def questions() -> list[Record]:
    """Sixteen questions of different lengths about different pictures."""
    return [
        Record(str(n), (Turn("user", f"<image>\n{word} {n}?"), Turn("assistant", "")), (image,))
        for n, word in enumerate(WORDS * 2)
        for image in [picture(n)]
    ]


def said(model: RunModel, records: list[Record], batch: int) -> list[list[int]]:
    """The tokens of each answer up to its first end."""
    prompts = [model.generation.prompt(record) for record in records]
    ends = model.generation.ends
    found: list[Any] = [None] * len(prompts)
    for index, (tokens,) in model.generation.tokens(prompts, Options(LONGEST), batch=batch):
        assert found[index] is None
        first = next((place for place, token in enumerate(tokens) if token in ends), len(tokens))
        found[index] = tokens[: first + 1]
    return found


def ending_early(model: RunModel, records: list[Record]) -> list[list[int]]:
    """Answers one by one, after the model was given ends that three quarters of them meet soon."""
    language = model.bundle.mllm.language
    language.generation_config = GenerationConfig(eos_token_id=None)
    free = said(model, records, 1)
    ends = sorted({tokens[:3][-1] for tokens in free[:12]})
    language.generation_config = GenerationConfig(eos_token_id=ends)
    return [said(model, [record], 1)[0] for record in records]


@pytest.mark.parametrize("family", ["llama", "gemma3_text", "lfm2", "gpt2"])
def test_what_goes_on_later_is_what_is_said_alone(parts: Parts, family: str):
    model, records = RunModel(bundle_of(parts, family)), questions()
    alone = ending_early(model, records)
    assert len({len(tokens) for tokens in alone}) > 1
    assert said(model, records, BATCH) == alone
    assert said(model, records, 16) == alone


def test_one_long_answer_does_not_keep_the_ended_ones(parts: Parts):
    model, records = RunModel(parts.build()), questions()
    alone = ending_early(model, records)
    steps = [len(tokens) for tokens in alone]
    rows = 0

    def count(module: torch.nn.Module, args: Any, kwargs: dict[str, Any]) -> None:
        nonlocal rows
        given = kwargs.get("inputs_embeds")
        rows += len(kwargs["input_ids"] if given is None else given)

    hook = model.language.register_forward_pre_hook(count, with_kwargs=True)
    said(model, records, 16)
    hook.remove()
    assert max(steps) == LONGEST > sorted(steps)[11]
    # Every row of one batch would be read until the last answer ends.
    assert rows < 16 * LONGEST / 2
    assert rows >= sum(steps)


@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_ends_that_a_caller_names_end_answers_in_batches_too(parts: Parts, family: str):
    model, records = RunModel(bundle_of(parts, family)), questions()
    ending_early(model, records)
    ends = model.generation.ends
    model.language.generation_config = GenerationConfig(eos_token_id=None)
    options = Options(LONGEST, {"eos_token_id": ends})
    alone = [model.answers([record], options, batch=1)[0] for record in records]
    assert model.answers(records, options, batch=BATCH) == alone
    assert model.answers(records, Options(LONGEST), batch=BATCH) != alone
