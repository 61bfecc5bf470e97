"""Greedy answers of a model to the last question of each record."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch.nn.functional import pad

from sailvit.core.records import Record, Sample
from sailvit.data.processing.processor import Processor
from sailvit.models.languages.greedy import end_tokens, plain_greedy
from sailvit.models.loading.build import ModelBundle
from sailvit.models.structure.answering import Answering, generate_whole, generating


@torch.no_grad()
def answer(
    bundle: ModelBundle, records: Sequence[Record], *, batch: int = 64, longest: int = 32
) -> list[str]:
    """The model's answers, one per record, of at most `longest` tokens, without special tokens
    and surrounding white space.

    An answer ends at any token that the generation config, the tokenizer or the chat template
    ends a turn with. Nothing else of the generation config is applied.
    """
    processor = Processor(bundle.tokenizer, bundle.layout, longest=1 << 30, day=bundle.day)
    ends = end_tokens(bundle.mllm.language, bundle.tokenizer, processor.encoder.ends())
    prompts = [processor.prompt("asked", record) for record in records]
    # Prompts of similar length share a batch, so that little of it is padding.
    lengths = [len(prompt.tokens) for prompt in prompts]
    order = sorted(range(len(prompts)), key=lengths.__getitem__)
    answers = [""] * len(prompts)
    with generating(bundle.mllm, max(lengths, default=0) + longest) as how:
        for chosen in how.batches(order, lengths, batch):
            picked = [prompts[index] for index in chosen]
            ids = _generate(bundle, picked, longest, ends, how)
            for index, tokens in zip(chosen, ids, strict=True):
                text = bundle.tokenizer.decode(_until(tokens, ends), skip_special_tokens=True)
                answers[index] = text.strip()
    return answers


def _generate(
    bundle: ModelBundle,
    prompts: Sequence[Sample],
    longest: int,
    ends: Sequence[int],
    how: Answering,
) -> list[list[int]]:
    """Tokens of the answers, and what follows the end of an answer in its row."""
    mllm, tokenizer = bundle.mllm, bundle.tokenizer
    device = mllm.language.device
    lengths = [len(prompt.tokens) for prompt in prompts]
    tiles = torch.cat([prompt.tiles for prompt in prompts]).to(device)
    tokens = torch.cat([prompt.tokens for prompt in prompts]).to(device)
    embedded = mllm.embed(tokens, mllm.visual(tiles)).split(lengths)  # type: ignore[no-untyped-call]
    if not how.cached:
        return generate_whole(mllm, embedded, longest, ends)
    widest = max(lengths)
    # On the left, so that every row's answer begins at the same position.
    rows = torch.stack([pad(row, (0, 0, widest - len(row), 0)) for row in embedded])
    mask = (
        torch.stack([torch.arange(widest) >= widest - length for length in lengths])
        .long()
        .to(device)
    )
    # generate needs one for rows that have ended; `_until` cuts it off, so any will do.
    spare = (tokenizer.pad_token_id, tokenizer.eos_token_id, *ends, 0)
    padding = next(token for token in spare if token is not None)
    with plain_greedy(mllm.language, longest=longest, ends=ends, padding=padding) as config:
        generated = mllm.language.generate(
            inputs_embeds=rows, attention_mask=mask, generation_config=config
        )
    tokens_of: list[list[int]] = generated.tolist()
    return tokens_of


def _until(tokens: list[int], ends: Sequence[int]) -> list[int]:
    """The tokens before the first end. Decoding would not do: it leaves out special tokens, and
    an end need not be one.
    """
    at = next((place for place, token in enumerate(tokens) if token in ends), len(tokens))
    return tokens[:at]
