"""Weights that no gradient reaches are found, and are never planned to train."""

from __future__ import annotations

import pytest
from tiny_languages import language_of, model_of

from sailvit.core.recipe import TrainConfig
from sailvit.models.languages.unreached import unreached
from sailvit.training.optim.optimizer import planned_names


@pytest.mark.parametrize("family", ["llama", "qwen3_moe", "lfm2", "mamba2", "minimax"])
def test_of_most_languages_every_weight_is_reached(family: str):
    assert not unreached(language_of(family))


def test_an_indexer_that_chooses_tokens_never_trains():
    """DeepSeek V3.2's: a run that planned it would be stopped by its proof."""
    model = model_of(language_of("deepseek_v32"))
    found = {name for name, _ in model.language.named_parameters() if ".indexer." in name}
    assert len(found) == 10
    assert model.unreached == found
    planned = planned_names(model, "language", TrainConfig(lr=1.0))
    assert set(planned) == {name for name, _ in model.language.named_parameters()} - found


def test_gradients_agree():
    """What is called reached gets a gradient from a pack, and nothing else does."""
    model = model_of(language_of("glm_moe_dsa"))
    table = model.language.get_input_embeddings()
    model.language(inputs_embeds=table.weight[None, 3:20]).logits.square().sum().backward()
    without = {name for name, p in model.language.named_parameters() if p.grad is None}
    assert model.unreached == without
