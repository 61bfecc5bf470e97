"""The length of a table of positions, found on models with weights and on the meta device."""

from __future__ import annotations

import pytest
import torch
from transformers import (
    AutoModelForCausalLM,
    BloomConfig,
    GPT2Config,
    GPTJConfig,
    LlamaConfig,
    OPTConfig,
    PretrainedConfig,
)

from sailvit.models.languages.positions import table_length

SMALL = {"vocab_size": 60, "hidden_size": 32, "num_attention_heads": 2, "num_hidden_layers": 1}
GPT = {"n_positions": 37, "n_embd": 32, "n_head": 2, "n_layer": 1, "vocab_size": 60}
TABLES: dict[str, PretrainedConfig] = {
    "gpt2": GPT2Config(**GPT),
    "opt": OPTConfig(**SMALL, max_position_embeddings=37, ffn_dim=32, word_embed_proj_dim=32),
}


@pytest.mark.parametrize("name", TABLES)
def test_a_table_ends_where_it_ends(name: str):
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(TABLES[name])
    with torch.device("meta"):
        outline = AutoModelForCausalLM.from_config(TABLES[name])
    before = {key: value.clone() for key, value in model.state_dict().items()}
    for language in (model, outline):
        assert [table_length(language, wanted) for wanted in (36, 37)] == [None, None]
        assert [table_length(language, wanted) for wanted in (38, 500)] == [37, 37]
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


def test_a_table_that_is_no_embedding_is_found_on_the_weights():
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(GPTJConfig(**GPT, rotary_dim=8))
    assert table_length(model, 100) == 37


@pytest.mark.parametrize(
    "config",
    [
        LlamaConfig(**SMALL, max_position_embeddings=37, intermediate_size=32),
        BloomConfig(vocab_size=60, hidden_size=32, n_head=2, n_layer=1),
    ],
    ids=["rotation", "slopes"],
)
def test_languages_without_a_table_have_no_end(config: PretrainedConfig):
    torch.manual_seed(0)
    assert table_length(AutoModelForCausalLM.from_config(config), 500) is None
    with torch.device("meta"):
        assert table_length(AutoModelForCausalLM.from_config(config), 500) is None
