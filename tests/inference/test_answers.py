"""Answers end with the turn, and are greedy whatever the checkpoint's generation config asks for."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import replace

import pytest
import torch
from chat_templates import PUBLISHED
from transformers import GenerationConfig

from sailvit.core.records import Record, Turn
from sailvit.data.processing.collate import collate
from sailvit.data.processing.processor import Processor
from sailvit.inference.answers import answer
from sailvit.models.loading.build import ModelBundle
from tiny_parts import Parts, mixed_records

ASKED = {"one?": "red", "two?": "blue circle", "three?": "left", "four?": "a large square"}
HABITS = {
    "repetition_penalty": 30.0,
    "no_repeat_ngram_size": 1,
    "bad_words_ids": [[token] for token in range(30, 200)],
    "suppress_tokens": list(range(200, 300)),
    "begin_suppress_tokens": list(range(40)),
    "min_new_tokens": 20,
    "min_length": 20,
    "forced_eos_token_id": 3,
    "forced_bos_token_id": 9,
    "sequence_bias": {(50,): 100.0},
    "exponential_decay_length_penalty": (1, 3.0),
    "num_beams": 3,
    "length_penalty": 5.0,
}
SAMPLING = {"do_sample": True, "temperature": 9.0, "top_k": 50, "top_p": 0.5}


def records(texts: dict[str, str]) -> list[Record]:
    return [
        Record(asked, (Turn("user", asked), Turn("assistant", said)))
        for asked, said in texts.items()
    ]


def learn(bundle: ModelBundle, made: list[Record]) -> None:
    """Train until every answer and its end are known by heart."""
    torch.manual_seed(0)
    processor = Processor(bundle.tokenizer, bundle.layout, 100)
    batch = collate([[processor("learn", record) for record in made]])
    labels = batch.labels[batch.labels >= 0]
    optimizer = torch.optim.AdamW(bundle.mllm.language.parameters(), lr=5e-3)
    bundle.mllm.train()
    for _ in range(300):
        loss = torch.nn.functional.cross_entropy(bundle.mllm(batch).logits, labels)
        if loss < 0.01:
            return
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    raise AssertionError(f"loss {loss} after 300 steps")


def gemma_like(parts: Parts, special: bool = True) -> ModelBundle:
    """A model whose turns end with a token that is not the end of text."""
    bundle = parts.build()
    tokenizer = bundle.tokenizer
    names = ["<start_of_turn>", "<end_of_turn>"]
    tokenizer.add_tokens(names, special_tokens=special)
    tokenizer.chat_template = PUBLISHED["gemma"]
    bundle.mllm.language.resize_token_embeddings(len(tokenizer), mean_resizing=False)
    return bundle


@pytest.mark.parametrize("special", [True, False])
def test_answers_stop_at_the_end_of_the_turn(parts: Parts, special: bool):
    bundle, made = gemma_like(parts, special), records(ASKED)
    learn(bundle, made)
    assert answer(bundle, made) == list(ASKED.values())


@pytest.fixture(scope="module")
def learnt(parts: Parts) -> ModelBundle:
    """A model that knows the answers, with its end of turn as the end of text."""
    bundle = parts.build()
    learn(bundle, records(ASKED))
    return bundle


def test_answers_stop_where_the_generation_config_says(learnt: ModelBundle):
    bundle, made = learnt, records(ASKED)
    language, tokenizer = bundle.mllm.language, bundle.tokenizer
    circle = tokenizer("blue circle").input_ids[-1]
    language.generation_config = GenerationConfig(eos_token_id=[tokenizer.eos_token_id, circle])
    assert answer(bundle, made) == ["red", "blue", "left", "a large square"]


def test_an_end_that_only_the_model_config_names_is_one_if_it_is_special(learnt: ModelBundle):
    bundle, made = learnt, records(ASKED)
    circle = bundle.tokenizer("blue circle").input_ids[-1]
    config = deepcopy(bundle.mllm.language.config)
    config.eos_token_id = circle
    bundle.mllm.language.generation_config = GenerationConfig.from_model_config(config)
    assert answer(bundle, made) == list(ASKED.values())


@pytest.mark.parametrize("habits", [HABITS, SAMPLING], ids=["settings", "sampling"])
def test_a_generation_config_changes_nothing_but_the_end(parts: Parts, habits: dict):
    bundle, made = parts.build(), mixed_records()
    expected = answer(bundle, made, longest=12)
    given = GenerationConfig(**habits, eos_token_id=bundle.tokenizer.eos_token_id)
    bundle.mllm.language.generation_config = given
    assert answer(bundle, made, longest=12) == expected
    assert bundle.mllm.language.generation_config is given


def test_a_tokenizer_without_padding_and_end_answers_until_the_most(parts: Parts):
    bundle = parts.build()
    expected = answer(bundle, records(ASKED), longest=5)
    tokenizer = bundle.tokenizer
    tokenizer.pad_token = tokenizer.eos_token = None
    tokenizer.chat_template = PUBLISHED["alpaca"]
    without = replace(bundle, tokenizer=tokenizer)
    assert len(answer(without, records(ASKED), longest=5)) == len(expected)
