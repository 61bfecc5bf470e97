"""Packed and unpacked agree: same logits, same gradients, in every family of towers and languages."""

from __future__ import annotations

import copy

import pytest
import torch
from torch.nn.functional import cross_entropy

from sailvit.core.batch import IGNORED, Batch
from sailvit.data.processing.collate import collate
from sailvit.models.packing.segments import Segments
from sailvit.models.structure.mllm import MLLM
from tiny_parts import LANGUAGES, TOWERS, Parts, mixed_records, samples, single_batches


def scored(model: MLLM, batches: list[Batch]) -> torch.Tensor:
    """All logits float[A, N] in order, with the gradient of their cross-entropy left in the model."""
    model.zero_grad(set_to_none=True)
    logits = []
    for batch in batches:
        activations = model(batch)
        logits.append(activations.logits)
        cross_entropy(logits[-1], batch.labels[batch.labels != IGNORED], reduction="sum").backward()
    return torch.cat(logits).detach()


def gradients(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


def assert_same(found: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> None:
    assert found.keys() == expected.keys()
    scale = max(float(tensor.abs().max()) for tensor in expected.values())
    for name, tensor in expected.items():
        torch.testing.assert_close(
            found[name], tensor, rtol=1e-5, atol=1e-5 * max(scale, 1.0), msg=name
        )


def unpacked(model: MLLM) -> MLLM:
    """The same weights with transformers' own plain attention."""
    reference = copy.deepcopy(model)
    reference.language.set_attn_implementation("eager")
    reference.tower.model.set_attn_implementation("eager")
    return reference


@pytest.mark.parametrize(
    ("tower", "language"),
    [(name, "llama") for name in TOWERS] + [("siglip", name) for name in LANGUAGES],
)
def test_a_packed_batch_equals_its_samples_one_by_one(parts: Parts, tower: str, language: str):
    bundle = parts.build(tower, language)
    made = samples(bundle, mixed_records())
    # Two rows of different fill, so that there is padding too.
    packed = collate([made[:3], made[3:]])
    assert packed.padding > 0
    assert len(packed.tiles) == 4
    reference = unpacked(bundle.mllm)
    expected = scored(reference, single_batches(made))
    found = scored(bundle.mllm, [packed])
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
    assert_same(gradients(bundle.mllm), gradients(reference))


@pytest.mark.parametrize("name", LANGUAGES)
def test_the_language_alone_packs(parts: Parts, name: str):
    language = parts.build(language=name).mllm.language
    reference = copy.deepcopy(language)
    reference.set_attn_implementation("eager")
    lengths = [7, 19, 1, 12]
    texts = [
        torch.randint(5, 300, (n,), generator=torch.Generator().manual_seed(n)) for n in lengths
    ]
    expected = torch.cat([reference(input_ids=text[None]).logits[0] for text in texts])
    boundaries = torch.tensor([0, 7, 26, 27, 39], dtype=torch.int32)
    found = language(
        input_ids=torch.cat(texts)[None],
        position_ids=torch.cat([torch.arange(n) for n in lengths])[None],
        segments=Segments(boundaries, 19),
    ).logits[0]
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
    weights = torch.randn(expected.shape, generator=torch.Generator().manual_seed(0))
    (expected * weights).sum().backward()
    (found * weights).sum().backward()
    assert_same(gradients(language), gradients(reference))


def test_a_window_shorter_than_the_segments_matters(parts: Parts):
    """Without it Gemma3 would pass the tests above by having nothing to hide."""
    language = parts.build(language="gemma3").mllm.language
    tokens = torch.arange(20)[None] + 40
    segments = Segments(torch.tensor([0, 20], dtype=torch.int32), 20)
    windowed = language(input_ids=tokens, segments=segments).logits
    language.config.sliding_window = 20
    whole = language(input_ids=tokens, segments=segments).logits
    torch.testing.assert_close(whole[0, :5], windowed[0, :5])
    assert (whole - windowed)[0, 6:].abs().max() > 1e-3


def test_no_sample_sees_another(parts: Parts):
    bundle = parts.build()
    made = samples(bundle, mixed_records())
    batch = collate([made])
    before = bundle.mllm(batch).logits
    tokens = batch.tokens.clone()
    length = len(made[0].tokens)
    tokens[0, 3:length] = tokens[0, 3:length].flip(0)
    after = bundle.mllm(Batch(**{**vars(batch), "tokens": tokens})).logits
    answers = int((made[0].labels != IGNORED).sum())
    assert not torch.equal(before[:answers], after[:answers])
    assert torch.equal(before[answers:], after[answers:])
