"""The multimodal model: where visual tokens go, what runs when, and the connector's arrangement of patches."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from sailvit.core.batch import IGNORED
from sailvit.core.errors import ModelError
from sailvit.data.processing.collate import collate
from sailvit.models.loading.build import ModelBundle
from sailvit.models.structure.connector import fresh_connector, pixel_unshuffle
from tiny_parts import Parts, mixed_records, picture, record, samples


@pytest.fixture
def bundle(parts: Parts) -> ModelBundle:
    return parts.build()


def test_neighbouring_patches_lie_side_by_side():
    """Of a 4 x 4 grid numbered row by row, the first 2 x 2 neighbourhood is 0, 1, 4, 5."""
    merged = pixel_unshuffle(torch.arange(16.0).reshape(1, 16, 1), 2)
    assert merged[0].tolist() == [[0, 1, 4, 5], [2, 3, 6, 7], [8, 9, 12, 13], [10, 11, 14, 15]]
    assert pixel_unshuffle(torch.arange(32.0).reshape(1, 16, 2), 4).tolist() == [
        [list(map(float, range(32)))]
    ]


def test_the_connector_is_norm_linear_gelu_linear():
    torch.manual_seed(0)
    connector = fresh_connector("merge_mlp", tower_width=3, language_width=5, hidden=7, merge=2)
    features = torch.randn(2, 16, 3)
    merged = pixel_unshuffle(features, 2)
    normed = (merged - merged.mean(-1, keepdim=True)) / (
        merged.var(-1, unbiased=False, keepdim=True) + 1e-5
    ).sqrt()
    expected = torch.nn.functional.gelu(normed @ connector.up.weight.T + connector.up.bias)
    expected = expected @ connector.down.weight.T + connector.down.bias
    torch.testing.assert_close(connector(features), expected)
    assert [name for name, _ in connector.named_children()] == ["activate", "norm", "up", "down"]


def test_visual_tokens_replace_placeholders_in_order(bundle: ModelBundle):
    batch = collate([samples(bundle, mixed_records())])
    model = bundle.mllm
    visual = model.visual(batch.tiles)
    embedded = model.embed(batch.tokens.flatten(), visual)
    places = batch.tokens.flatten() == bundle.layout.placeholder_id
    assert torch.equal(embedded[places], visual.flatten(0, 1))
    table = model.language.get_input_embeddings().weight
    assert torch.equal(embedded[~places], table[batch.tokens.flatten()[~places]])


def test_logits_are_those_of_labelled_positions(bundle: ModelBundle):
    batch = collate([samples(bundle, mixed_records())])
    some = bundle.mllm(batch).logits
    everywhere = dataclasses.replace(batch, labels=torch.zeros_like(batch.labels))
    every = bundle.mllm(everywhere).logits
    torch.testing.assert_close(some, every[batch.labels.flatten() != IGNORED])


def test_without_logits_the_language_does_not_run(
    bundle: ModelBundle, monkeypatch: pytest.MonkeyPatch
):
    batch = collate([samples(bundle, mixed_records())])
    monkeypatch.setattr(
        bundle.mllm.language, "forward", lambda **_: pytest.fail("the language ran")
    )
    activations = bundle.mllm(batch, logits=False)
    assert activations.logits is None
    assert activations.visual.shape == (4, 4, 32)


def test_without_images_tower_and_connector_do_not_run(
    bundle: ModelBundle, monkeypatch: pytest.MonkeyPatch
):
    batch = collate([samples(bundle, [record("text")])])
    monkeypatch.setattr(bundle.mllm.tower, "forward", lambda _: pytest.fail("the tower ran"))
    activations = bundle.mllm(batch)
    assert activations.visual.shape == (0, 4, 32)
    activations.logits.sum().backward()
    assert all(p.grad is None for p in bundle.mllm.connector.parameters())


@pytest.mark.parametrize("kept", [0, 1])
def test_tiles_and_placeholders_that_disagree_are_refused(bundle: ModelBundle, kept: int):
    batch = collate([samples(bundle, [record("two", picture(1), picture(2))])])
    with pytest.raises(
        ModelError, match=f"8 placeholder tokens but {4 * kept} visual tokens, from {kept}"
    ):
        bundle.mllm(dataclasses.replace(batch, tiles=batch.tiles[:kept]))
