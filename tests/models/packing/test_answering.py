"""Answers of prompts of different lengths are those of reading each prompt alone, in every family."""

from __future__ import annotations

import pytest
import torch
from tiny_languages import (
    LIMIT,
    VARYING,
    VOCABULARY,
    language_of,
    model_of,
    plain_copy,
    varying_language,
)
from torch.nn.functional import pad
from transformers import PreTrainedModel
from transformers.utils import logging

from sailvit.models.languages.decoding import plain_generation
from sailvit.models.structure.answering import Answering, generate_whole, generating
from sailvit.models.structure.mllm import MLLM

LONGEST = 6


def by_hand(language: PreTrainedModel, prompt: torch.Tensor) -> list[int]:
    """The most likely token, one at a time, without cache, padding or anything of ours."""
    plain = plain_copy(language)
    text, answer = prompt, []
    for _ in range(LONGEST):
        scores = plain(inputs_embeds=text[None], use_cache=False).logits[0, -1]
        answer.append(int(scores.argmax()))
        text = torch.cat([text, plain.get_input_embeddings()(scores.argmax()[None])])
    return answer


@torch.no_grad()
def answers(model: MLLM, prompts: list[torch.Tensor]) -> tuple[list[list[int]], Answering]:
    found: list[list[int]] = [[] for _ in prompts]
    lengths = [len(prompt) for prompt in prompts]
    with generating(model, max(lengths) + LONGEST) as how:
        order = sorted(range(len(prompts)), key=lambda index: lengths[index])
        for chosen in how.batches(order, lengths, 8):
            picked = [prompts[index] for index in chosen]
            if how.cached:
                widest = max(len(prompt) for prompt in picked)
                rows = [pad(p, (0, 0, widest - len(p), 0)) for p in picked]
                mask = [torch.arange(widest) >= widest - len(p) for p in picked]
                greedy = plain_generation(model.language, longest=LONGEST, ends=(), padding=0)
                with greedy as config:
                    made = model.language.generate(
                        inputs_embeds=torch.stack(rows),
                        attention_mask=torch.stack(mask).long(),
                        generation_config=config,
                    ).tolist()
            else:
                made = generate_whole(model, picked, LONGEST, ())
            for index, tokens in zip(chosen, made, strict=True):
                found[index] = tokens
    return found, how


@pytest.mark.parametrize(
    "family",
    [
        *("llama", "gemma2", "gpt_oss", "deepseek_v3", "lfm2", "qwen3_next", "bloom", "falcon"),
        *("gpt2", "mamba2", "stablelm", "rwkv", "mistral"),
    ],
)
def test_answers_are_those_of_each_prompt_alone(family: str):
    assert_answered(model_of(language_of(family)))


@pytest.mark.parametrize("family", VARYING)
def test_answers_are_those_of_each_prompt_alone_where_length_turns_tokens(family: str):
    """Prompts below and above the length, and one whose answer crosses it."""
    model = model_of(varying_language(family))
    assert model.same_up_to == LIMIT
    assert_answered(model, (3, 9, LIMIT - 3, LIMIT + 9))
    assert_answered(model)


@torch.no_grad()
def assert_answered(model: MLLM, lengths: tuple[int, ...] = (3, 9, 3, 14)) -> None:
    before = model.language.config._attn_implementation
    generator = torch.Generator().manual_seed(5)
    table = model.language.get_input_embeddings()
    prompts = [
        table(torch.randint(3, VOCABULARY - 1, (length,), generator=generator))
        for length in lengths
    ]
    found, how = answers(model, prompts)
    assert found == [by_hand(model.language, prompt) for prompt in prompts], how
    assert model.language.config._attn_implementation == before


def test_prompts_of_one_length_share_a_batch_where_padding_moves_answers():
    lengths = [4, 5, 4, 4, 6]
    order = sorted(range(5), key=lambda index: lengths[index])
    padded = Answering("sdpa", padded=True, cached=True)
    assert list(padded.batches(order, lengths, 4)) == [[0, 2, 3, 1], [4]]
    equal = Answering("sdpa", padded=False, cached=True)
    assert list(equal.batches(order, lengths, 2)) == [[0, 2], [3], [1], [4]]


@torch.no_grad()
def test_nothing_that_transformers_warns_of_is_asked_for(caplog: pytest.LogCaptureFixture):
    logging.enable_propagation()
    try:
        answers(model_of(language_of("qwen2")), [torch.randn(4, 32), torch.randn(7, 32)])
    finally:
        logging.disable_propagation()
    assert not [each.message for each in caplog.records if each.levelname == "WARNING"]
