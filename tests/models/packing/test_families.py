"""Samples of a pack read together equal samples one at a time, in every family and every way: logits and gradients."""

from __future__ import annotations

import re
from typing import Any

import pytest
import torch
from tiny_languages import (
    LENGTHS,
    LIMIT,
    VARYING,
    language_of,
    model_of,
    varying_language,
    worst_errors,
)
from torch.nn.functional import pad

from sailvit.core.errors import ModelError
from sailvit.core.recipe import Packing
from sailvit.models.structure.packing_choice import choose_way

EXPECTED = {
    **dict.fromkeys(("llama", "qwen2", "qwen3", "qwen3_moe", "gemma", "gemma2"), "packed"),
    **dict.fromkeys(("gemma3_text", "gpt_oss", "deepseek_v3", "phi3", "olmo2"), "packed"),
    **dict.fromkeys(("mistral", "llama4_text"), "packed"),
    **dict.fromkeys(("qwen3_5_text", "qwen3_next", "lfm2", "falcon", "bloom"), "rows"),
    **dict.fromkeys(("mamba2", "olmo_hybrid"), "rows"),
    **dict.fromkeys(("gpt2", "stablelm"), None),
}


@pytest.mark.parametrize("family", EXPECTED)
def test_a_pack_equals_its_samples(family: str):
    model = model_of(language_of(family))
    if EXPECTED[family] is not None:
        assert model.chosen.way.kind == EXPECTED[family]
    logits, gradients = worst_errors(model)
    assert logits < 1e-5
    assert gradients < 1e-5


@pytest.mark.parametrize("family", ["llama", "gemma3_text", "qwen3_moe"])
def test_rows_are_exact_where_they_are_asked_for(family: str):
    model = model_of(language_of(family), "rows")
    assert model.chosen.way.kind == "rows"
    logits, gradients = worst_errors(model)
    assert logits < 1e-5
    assert gradients < 1e-5


@pytest.mark.parametrize("packing", ["packed", "rows"])
@pytest.mark.parametrize("family", VARYING)
def test_a_long_sample_turns_no_other_one(family: str, packing: Packing):
    """Where transformers takes the frequencies of a whole call by its longest position."""
    model = model_of(varying_language(family), packing)
    assert model.same_up_to == LIMIT
    for _ in range(2):  # `dynamic` remembers the longest sample of earlier calls.
        model.zero_grad()
        logits, gradients = worst_errors(model)
        assert logits < 1e-5
        assert gradients < 1e-5


def test_blocks_longer_than_the_usual_proof_are_seen():
    """A layer that reads 32 tokens compressed to one, whatever sample of the pack they are of."""
    kinds = ["heavily_compressed_attention"] * 2
    language = language_of(
        "deepseek_v4",
        layer_types=kinds,
        mlp_layer_types=["moe"] * 2,
        compress_rates={kinds[0]: 32, "compressed_sparse_attention": 4},
    )
    model = model_of(language)
    assert model.chosen.way.kind == "rows"
    assert max(worst_errors(model)) < 1e-5


def test_places_in_a_row_count_from_each_sample_however_long_the_row():
    """Llama 4 scales scores by the place in a call, in steps of `floor_scale`, 8192 usually."""
    language = language_of("llama4_text", no_rope_layers=[1, 0], floor_scale=40, attn_scale=1.0)
    model = model_of(language)
    assert model.chosen.way.kind == "packed"
    assert worst_errors(model)[0] > 0.1
    assert choose_way(model, longest=39).way.kind == "packed"
    chosen = choose_way(model, longest=sum(LENGTHS))
    assert chosen.way.kind == "rows"
    assert "samples come out otherwise at the end of a long row" in str(chosen)
    model.zero_grad()
    assert max(worst_errors(model)) < 1e-5


@pytest.mark.parametrize("family", ["llama", "gemma3_text", "deepseek_v3", "gpt2", "qwen3_moe"])
def test_a_long_row_alone_changes_nothing(family: str):
    model = model_of(language_of(family))
    chosen = choose_way(model, longest=1000)
    assert chosen.way.kind == "packed"
    assert chosen.evidence is not None
    assert 0 < chosen.evidence.behind < 1e-5


@pytest.mark.parametrize("family", ["lfm2", "bloom", "mamba2"])
def test_packed_is_refused_where_samples_would_see_each_other(family: str):
    with pytest.raises(ModelError, match=r"with parallel\.packing packed: packed: ") as error:
        model_of(language_of(family), "packed")
    assert "Set parallel.packing to auto or rows" in str(error.value)


def test_a_language_that_sees_the_future_is_refused_in_every_way():
    with pytest.raises(ModelError, match="tokens see later ones"):
        model_of(language_of("bert", is_decoder=False))


HASHED = {"mlp_layer_types": ["hash_moe", "moe"]}


@pytest.mark.parametrize(
    ("family", "settings", "why"),
    [
        ("deepseek_v4", HASHED, r"without any \(AttributeError: 'NoneType' object"),
        ("gemma3n_text", {}, "scores of a text differ by"),
        ("gemma4_text", {}, r"without any \(It seems like you tried to call"),
    ],
)
def test_a_language_that_looks_up_token_ids_is_refused(
    family: str, settings: dict[str, Any], why: str
):
    """Whether it fails without them, drops what it looks up, or finds them again for text alone."""
    with pytest.raises(ModelError, match="needs token ids, and visual tokens are") as error:
        model_of(language_of(family, **settings))
    assert re.search(why, str(error.value))


def test_a_leak_of_a_thousandth_is_found():
    """As small as the one of a layer that adds a little of the position before, whatever sample that is of."""
    language = language_of("llama")

    def leak(module, inputs, output):
        del module, inputs
        return output + 1e-3 * pad(output, (0, 0, 1, 0))[:, :-1]

    language.model.layers[0].mlp.register_forward_hook(leak)
    model = model_of(language)
    assert model.chosen.way.kind == "rows"
    assert "samples see each other" in model.chosen.findings[0]


@pytest.mark.parametrize("family", ["llama", "lfm2", "gpt2", "qwen3_moe"])
def test_the_proof_leaves_no_trace(family: str):
    language = language_of(family).train()
    before = {name: tensor.clone() for name, tensor in language.state_dict().items()}
    torch.manual_seed(7)
    model = model_of(language)
    torch.manual_seed(7)
    state = torch.get_rng_state()
    choose_way(model)
    assert torch.equal(torch.get_rng_state(), state)
    model.language.train()
    choose_way(model)
    assert all(module.training for module in language.modules())
    assert all(parameter.grad is None for parameter in language.parameters())
    after = language.state_dict()
    assert all(torch.equal(after[name], tensor) for name, tensor in before.items())
