"""The auxiliary loss of experts: what transformers computes, over real tokens alone, in every way of reading."""

from __future__ import annotations

import sys
from types import SimpleNamespace

import pytest
import torch
from tiny_languages import VOCABULARY, language_of, model_of, text_sample

from sailvit.core.errors import ModelError
from sailvit.data.processing.collate import collate
from sailvit.models.experts import asks_for_balance
from sailvit.training.checks.problems import balance_remarks
from sailvit.training.objectives.base import LoadBalancing

FAMILIES = ["qwen3_moe", "mixtral", "gpt_oss"]


def texts() -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(4)
    return [torch.randint(3, VOCABULARY - 1, (n,), generator=generator) for n in (7, 19, 12)]


@pytest.mark.parametrize("packing", ["auto", "rows"])
@pytest.mark.parametrize("family", FAMILIES)
def test_it_is_transformers_own_over_real_tokens(family: str, packing: str):
    model = model_of(language_of(family), packing)
    first, second, third = (text_sample(text) for text in texts())
    batch = collate([[first, second], [third]])
    assert batch.padding == 14
    objective = LoadBalancing()
    found = objective(model, model(batch, routers=True), batch) / objective.units(batch)
    language = model.language
    language.set_attn_implementation("eager")
    alone = [
        language.base_model(input_ids=text[None], output_router_logits=True).router_logits
        for text in texts()
    ]
    layers = tuple(torch.cat([*layer]) for layer in zip(*alone, strict=True))
    function = sys.modules[type(language).__module__].load_balancing_loss_func
    experts = getattr(language.config, "num_experts", None) or language.config.num_local_experts
    expected = function(layers, experts, language.config.num_experts_per_tok)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)
    (gradient,) = torch.autograd.grad(found, [language.get_input_embeddings().weight])
    assert gradient.abs().max() > 0


def test_a_language_without_experts_is_refused():
    model = model_of(language_of("llama"))
    batch = collate([[text_sample(texts()[0])]])
    with pytest.raises(ModelError, match="leave it out of `objectives`"):
        model(batch, routers=True)


def test_a_loss_that_is_asked_for_and_off_is_said():
    config = language_of("mixtral", router_aux_loss_coef=0.02).config
    assert asks_for_balance(config) == 0.02
    assert asks_for_balance(language_of("llama").config) is None

    def told(objectives: dict[str, float], share: float) -> list[str]:
        stage = SimpleNamespace(name="world", objectives=objectives, share=lambda part: share)
        return list(balance_remarks(SimpleNamespace(stages=[stage]), config))

    assert "off in world; add load_balancing: 0.02" in told({"next_token": 1.0}, 1.0)[0]
    assert not told({"next_token": 1.0, "load_balancing": 0.02}, 1.0)
    assert not told({"next_token": 1.0}, 0.0)
