"""Greedy answers of a model to the last question of each record."""

from __future__ import annotations

from collections.abc import Sequence

from sailvit.core.records import Record
from sailvit.inference.generation import Generation, Options
from sailvit.inference.text_stream import text_of
from sailvit.models.loading.build import ModelBundle


def answer(
    bundle: ModelBundle, records: Sequence[Record], *, batch: int = 64, longest: int = 32
) -> list[str]:
    """The model's answers, one per record, of at most `longest` tokens, without special tokens
    and surrounding white space.

    An answer ends at any token that the generation config, the tokenizer or the chat template
    ends a turn with. Nothing else of the generation config is applied.
    """
    generation = Generation(bundle)
    prompts = [generation.prompt(record) for record in records]
    answers = [""] * len(prompts)
    for index, (tokens,) in generation.tokens(prompts, Options(longest), batch=batch):
        answers[index] = text_of(bundle.tokenizer, tokens, generation.ends)
    return answers
