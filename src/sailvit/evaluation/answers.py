"""Greedy answers of a model to the last question of each record."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch.nn.functional import pad

from sailvit.core.records import Record, Sample
from sailvit.data.samples import SampleBuilder
from sailvit.models.build import Assembly
from sailvit.models.greedy import end_tokens, plain_greedy


@torch.no_grad()
def answer(
    assembly: Assembly, records: Sequence[Record], *, batch: int = 64, longest: int = 32
) -> list[str]:
    """The model's answers, one per record, of at most `longest` tokens; special tokens and outer space are left out.

    An answer ends with the turn: at a token that the generation config, the tokenizer or the chat template ends it
    with. Nothing else of the generation config is applied.
    """
    builder = SampleBuilder(assembly.tokenizer, assembly.layout, longest=1 << 30, day=assembly.day)
    ends = end_tokens(assembly.mllm.language, assembly.tokenizer, builder.encoder.ends())
    prompts = [builder.prompt("asked", record) for record in records]
    # Prompts of similar length share a batch, so that little of it is padding.
    order = sorted(range(len(prompts)), key=lambda index: len(prompts[index].tokens))
    answers = [""] * len(prompts)
    with _generating(assembly):
        for start in range(0, len(order), batch):
            chosen = order[start : start + batch]
            texts = _generate(assembly, [prompts[index] for index in chosen], longest, ends)
            for index, text in zip(chosen, texts, strict=True):
                answers[index] = text
    return answers


def _generate(
    assembly: Assembly, prompts: Sequence[Sample], longest: int, ends: Sequence[int]
) -> list[str]:
    mllm, tokenizer = assembly.mllm, assembly.tokenizer
    device = mllm.language.device
    lengths = [len(prompt.tokens) for prompt in prompts]
    tiles = torch.cat([prompt.tiles for prompt in prompts]).to(device)
    tokens = torch.cat([prompt.tokens for prompt in prompts]).to(device)
    embedded = mllm.embed(tokens, mllm.visual(tiles)).split(lengths)  # type: ignore[no-untyped-call]
    widest = max(lengths)
    # On the left, so that every row's answer begins at the same position.
    rows = torch.stack([pad(row, (0, 0, widest - len(row), 0)) for row in embedded])
    mask = (
        torch.stack([torch.arange(widest) >= widest - length for length in lengths])
        .long()
        .to(device)
    )
    spare = (tokenizer.pad_token_id, tokenizer.eos_token_id, *ends, 0)
    padding = next(token for token in spare if token is not None)
    with plain_greedy(mllm.language, longest=longest, ends=ends, padding=padding) as config:
        generated = mllm.language.generate(
            inputs_embeds=rows, attention_mask=mask, generation_config=config
        )
    answers = [_until(row, ends) for row in generated.tolist()]
    return [text.strip() for text in tokenizer.batch_decode(answers, skip_special_tokens=True)]


def _until(tokens: list[int], ends: Sequence[int]) -> list[int]:
    """The tokens before the first end; an end need not be a special token, which decoding leaves out."""
    at = next((place for place, token in enumerate(tokens) if token in ends), len(tokens))
    return tokens[:at]


@contextmanager
def _generating(assembly: Assembly) -> Iterator[None]:
    """Put the model into inference: no dropout, and attention that works with a cache."""
    mllm = assembly.mllm
    training, packed = mllm.training, mllm.language.config._attn_implementation
    mllm.eval()
    mllm.language.set_attn_implementation("sdpa")
    try:
        yield
    finally:
        mllm.language.set_attn_implementation(packed)
        mllm.train(training)
