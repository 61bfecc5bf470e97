"""Models made from configs alone: the recipe's in shape, random in weight."""

from __future__ import annotations

import shutil
from pathlib import Path

import torch

from sailvit.core.records import Record, Turn
from sailvit.models.loading.build import build
from sailvit.models.loading.configs import stand_in_tokenizer
from tiny_parts import Parts, mixed_records, samples, single_batches


def test_shapes_are_those_of_the_recipe_and_weights_are_not(parts: Parts):
    config, built = parts.config(), parts.build()
    made = build(config, 0, weights="random")
    assert made.layout == built.layout
    found, expected = made.mllm.state_dict(), built.mllm.state_dict()
    assert {name: tensor.shape for name, tensor in found.items()} == {
        n: t.shape for n, t in expected.items()
    }
    assert not torch.equal(
        found["connector.up.weight"], torch.zeros_like(found["connector.up.weight"])
    )
    name = "language.model.embed_tokens.weight"
    assert not torch.equal(found[name], expected[name])


def test_it_is_the_same_for_the_same_seed_and_leaves_the_generator_alone(parts: Parts):
    state = torch.get_rng_state()
    first, again, other = (
        build(parts.config(), seed, weights="random").mllm.state_dict() for seed in (0, 0, 1)
    )
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert any(not torch.equal(first[name], other[name]) for name in first)


def test_no_weight_file_is_needed(parts: Parts, tmp_path: Path):
    for name in ("tower", "language"):
        shutil.copytree(getattr(parts.config(), name), tmp_path / name)
        (tmp_path / name / "model.safetensors").unlink()
    config = parts.config().model_copy(update={n: str(tmp_path / n) for n in ("tower", "language")})
    made = build(config, 0, weights="random")
    for batch in single_batches(samples(made, mixed_records())):
        assert torch.isfinite(made.mllm(batch).logits).all()


def test_without_a_tokenizer_words_are_counted(parts: Parts, tmp_path: Path):
    shutil.copytree(parts.config().language, tmp_path / "language")
    for file in (tmp_path / "language").glob("*token*"):
        file.unlink()
    config = parts.config().model_copy(update={"language": str(tmp_path / "language")})
    made = build(config, 0, weights="random")
    record = Record("r", (Turn("user", "what is it?"), Turn("assistant", "a red circle")))
    (sample,) = samples(made, [record])
    assert int((sample.labels >= 0).sum()) == len(["a", "red", "circle", "[END]"])
    assert made.mllm.placeholder_id == stand_in_tokenizer(config).convert_tokens_to_ids(
        "<|image_pad|>"
    )
