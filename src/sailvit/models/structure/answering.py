"""How a language answers prompts of different lengths, proved on the model at hand before its
first answer.

The fast way pads prompts on the left and keeps a cache. A model whose scores change with
padding gets prompts of one length at a time. A model whose cache gives other scores than
reading the whole text does reads the whole text for every token.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import groupby
from typing import TYPE_CHECKING

import torch
from torch.nn.functional import pad

from sailvit.models.guards.untouched import untouched
from sailvit.models.languages.decoding import plain_generation
from sailvit.models.packing.attention import ROWS
from sailvit.models.packing.proof import FAULTS, segments_of
from sailvit.models.packing.ways import Way, exchangeable, use_attention

if TYPE_CHECKING:
    from sailvit.models.structure.mllm import MLLM

_PROMPTS = (4, 7)
"""Tokens of the proof's prompts."""

_ANSWER = 3
"""Tokens of its answers."""

_NEAR = 1e-3
"""Largest relative error of scores that a cache may add in float32."""

_NEAR_HALF = 5e-2
"""The same in half precision."""


@dataclass(frozen=True)
class Answering:
    """How answers are made."""

    attention: str | None
    """transformers' attention; None: the one that the model was made with."""
    padded: bool
    """Whether prompts of different lengths share a batch, padded on the left."""
    cached: bool
    """Whether a cache keeps earlier positions; otherwise the whole text is read again for every
    token."""

    def batches(
        self, order: Sequence[int], lengths: Sequence[int], size: int
    ) -> Iterator[Sequence[int]]:
        """Indices of the prompts that share a batch; `order` has them by length."""
        groups = [list(order)]
        if self.cached and not self.padded:
            groups = [list(group) for _, group in groupby(order, key=lambda index: lengths[index])]
        for group in groups:
            for start in range(0, len(group), size):
                yield group[start : start + size]


@contextmanager
def generating(model: MLLM, longest: int) -> Iterator[Answering]:
    """A context for answers: no dropout, and the attention and batches that are proved to give
    the right scores, with texts of up to `longest` tokens.

    Raises:
        ModelError: the language cannot be read in any way.
    """
    training, before = model.training, model.language.config._attn_implementation
    model.eval()
    how = _prove(model)
    if model.same_up_to is not None and longest > model.same_up_to:
        # A cache would keep keys that were rotated for a shorter text.
        how = replace(how, cached=False)
    use_attention(model.language, how.attention)
    try:
        yield how
    finally:
        use_attention(model.language, before if exchangeable(model.language) else None)
        model.train(training)


@torch.no_grad()
def generate_whole(
    model: MLLM, prompts: Sequence[torch.Tensor], longest: int, ends: Collection[int]
) -> list[list[int]]:
    """Greedy answers to prompts float[T, D], each of at most `longest` tokens; the whole text
    is read for every token.
    """
    texts, answers = list(prompts), [list[int]() for _ in prompts]
    open_ = list(range(len(texts)))
    table = model.language.get_input_embeddings()
    way = Way("rows", None, model.chosen.way.masked)
    for _ in range(longest):
        lengths = tuple(len(texts[index]) for index in open_)
        segments = segments_of(lengths, texts[0].device)
        keep = segments.boundaries[1:].long() - 1
        scores = model.score(torch.cat([texts[index] for index in open_]), segments, keep, way)
        chosen = scores.argmax(dim=-1)
        for index, token in zip(open_, chosen, strict=True):
            answers[index].append(int(token))
            texts[index] = torch.cat([texts[index], table(token[None]).to(texts[index].dtype)])
        open_ = [index for index in open_ if answers[index][-1] not in ends]
        if not open_:
            break
    return answers


def _prove(model: MLLM) -> Answering:
    """The fastest way whose scores equal those of reading the whole text; proved once."""
    if model.answering is None:
        with untouched(model.language):
            model.answering = _fastest(model)
    return model.answering


def _fastest(model: MLLM) -> Answering:
    language = model.language
    names: list[str | None] = [None]
    if exchangeable(language):
        names = ["eager"]
        if getattr(language, "_supports_sdpa", False) and _reads(model, ROWS):
            # generate needs stock SDPA, which silently ignores capped scores and sinks: ROWS,
            # which refuses them, has just said that there are none.
            names = ["sdpa", "eager"]
    for name in names:
        for padded in (True, False):
            how = Answering(name, padded, cached=True)
            if _is_right(model, how):
                return how
    return Answering(names[-1], padded=False, cached=False)


def _reads(model: MLLM, name: str) -> bool:
    """Whether the language reads through `name`, which refuses what it cannot compute."""
    way = Way("rows", name)
    tokens = torch.arange(5, device=model.device)
    try:
        use_attention(model.language, name)
        model.read(tokens, segments_of((5,), tokens.device), way)
    except FAULTS:
        return False
    return True


def _is_right(model: MLLM, how: Answering) -> bool:
    try:
        use_attention(model.language, how.attention)
        lengths = _PROMPTS if how.padded else (_PROMPTS[0],) * 2
        generator = torch.Generator().manual_seed(1)
        table = model.language.get_input_embeddings()
        texts = [
            table(torch.randint(table.num_embeddings, (n,), generator=generator).to(model.device))
            for n in lengths
        ]
        found, tokens = _generate(model, texts)
        use_attention(model.language, "eager" if exchangeable(model.language) else None)
        whole = [
            torch.cat([text, table(answer[:-1])])
            for text, answer in zip(texts, tokens, strict=True)
        ]
        expected = _whole_scores(model, whole)
    except FAULTS:
        return False
    error = (found - expected).norm(dim=-1) / expected.norm(dim=-1)
    half = model.device.type != "cpu" or table.weight.dtype != torch.float32
    return bool(error.max() <= (_NEAR_HALF if half else _NEAR))


def _generate(model: MLLM, texts: Sequence[torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
    """Scores float[B, A, N] and tokens int64[B, A] of cached answers to prompts float[T, D],
    padded on the left.
    """
    widest = max(len(text) for text in texts)
    places = torch.arange(widest, device=model.device)
    # In the config, as `generate` warns of settings that are given beside one.
    asked = {"output_logits": True, "return_dict_in_generate": True}
    with plain_generation(
        model.language, longest=_ANSWER, ends=(), padding=0, options=asked
    ) as config:
        made = model.language.generate(
            inputs_embeds=torch.stack([pad(text, (0, 0, widest - len(text), 0)) for text in texts]),
            attention_mask=torch.stack([places >= widest - len(text) for text in texts]).long(),
            generation_config=config,
        )
    return torch.stack(made.logits, dim=1).float(), made.sequences[:, -_ANSWER:]


def _whole_scores(model: MLLM, texts: Sequence[torch.Tensor]) -> torch.Tensor:
    """Scores float[B, A, N] of the last positions of texts float[T, D], read one at a time."""
    way, made = Way("rows", None, model.chosen.way.masked), []
    for text in texts:
        segments = segments_of((len(text),), text.device)
        keep = torch.arange(len(text) - _ANSWER, len(text), device=text.device)
        made.append(model.score(text, segments, keep, way))
    return torch.stack(made).float()
