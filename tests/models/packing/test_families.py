"""Samples of a pack read together equal samples one at a time, in every family and every way: logits and gradients."""

from __future__ import annotations

import pytest
from tiny_languages import language_of, model_of, worst_errors

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
