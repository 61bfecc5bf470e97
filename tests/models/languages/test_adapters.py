"""Adapters: nothing before they train, merged to the same scores, loaded by peft itself; refused with a reason."""

from __future__ import annotations

import copy
import re
import sys
from pathlib import Path

import pytest
import torch
from tiny_languages import language_of, tiny_language
from transformers import AutoModelForCausalLM, LlamaConfig, PreTrainedModel

from sailvit.core.errors import ModelError
from sailvit.core.recipe import LoraConfig
from sailvit.distributed.sharding import whole_state
from sailvit.models.languages.adapters import adapted_layers, add_adapters, merged, save_adapters

TOKENS = torch.arange(3, 15)[None]
CONFIG = LoraConfig(rank=4, alpha=6.0)


@torch.no_grad()
def stir(language: PreTrainedModel) -> None:
    """Adapters as after some training: none of their numbers is zero."""
    generator = torch.Generator().manual_seed(5)
    for _, layer in adapted_layers(language):
        for matrix in (*layer.lora_A.values(), *layer.lora_B.values()):
            matrix.weight.normal_(std=0.1, generator=generator)


@pytest.mark.parametrize("family", ["llama", "gpt2", "gemma3_text", "qwen3_moe", "lfm2"])
def test_adapters_change_nothing_until_they_train_and_then_merge(family: str, tmp_path: Path):
    language = language_of(family).eval()
    plain, names = copy.deepcopy(language), set(language.state_dict())
    made = add_adapters(language, CONFIG, 0)
    with torch.no_grad():
        assert torch.equal(language(TOKENS).logits, plain(TOKENS).logits)
        stir(language)
        scores = language(TOKENS).logits
        assert not torch.allclose(scores, plain(TOKENS).logits, atol=1e-2)
    state = whole_state(language)
    whole = merged(language, state)
    assert set(whole) == names
    for name, tensor in plain.state_dict().items():
        assert whole[name].shape == tensor.shape
    language.save_pretrained(tmp_path / "merged", state_dict=whole)
    again, found = AutoModelForCausalLM.from_pretrained(
        tmp_path / "merged", output_loading_info=True
    )
    assert not any(found.values())
    with torch.no_grad():
        torch.testing.assert_close(again.eval()(TOKENS).logits, scores, rtol=1e-4, atol=1e-4)
    assert (made.bare > 0) is (family in ("qwen3_moe", "lfm2"))


def test_peft_itself_loads_what_is_kept(tmp_path: Path):
    from peft import PeftModel

    language = language_of("llama").eval()
    plain = copy.deepcopy(language)
    made = add_adapters(language, LoraConfig(rank=3, target=("q_proj", "down_proj")), 0)
    assert made.layers == 4
    stir(language)
    save_adapters(language, made, whole_state(language), tmp_path / "adapter")
    theirs = PeftModel.from_pretrained(plain, tmp_path / "adapter").eval()
    with torch.no_grad():
        torch.testing.assert_close(theirs(TOKENS).logits, language(TOKENS).logits)
        # peft's own merging gives the bits of ours.
        ours, again = merged(language, whole_state(language)), theirs.merge_and_unload()
    assert all(torch.equal(ours[name], tensor) for name, tensor in again.state_dict().items())


def test_equal_seeds_draw_equal_adapters_and_leave_the_random_stream_alone():
    first, second, third = (language_of("llama") for _ in range(3))
    torch.manual_seed(7)
    expected = torch.rand(1)
    torch.manual_seed(7)
    made = [add_adapters(first, CONFIG, 1), add_adapters(second, CONFIG, 1)]
    assert torch.equal(torch.rand(1), expected)
    assert made[0] == made[1]
    other = add_adapters(third, CONFIG, 2)
    states = [language.state_dict() for language in (first, second, third)]
    drawn = [name for name in other.names if "lora_A" in name]
    assert all(torch.equal(states[0][name], states[1][name]) for name in other.names)
    assert not any(torch.equal(states[0][name], states[2][name]) for name in drawn)


def test_only_the_named_layers_have_adapters_and_never_head_or_embeddings():
    tied = tiny_language(LlamaConfig, tie_word_embeddings=True)
    made = add_adapters(tied, CONFIG, 0)
    assert not any("lm_head" in name or "embed" in name for name in made.names)
    assert tied.lm_head.weight is tied.model.embed_tokens.weight
    assert made.layers == 14
    assert made.bare == 0
    assert "14 layers" in str(made)


def test_a_layer_that_is_not_there_is_named_with_those_that_are():
    with pytest.raises(ModelError, match=r"names 'query', but .* has down_proj, gate_proj"):
        add_adapters(language_of("llama"), LoraConfig(target=("q_proj", "query")), 0)


def test_adapters_at_stacked_experts_are_refused_with_what_to_name_instead():
    """peft takes a shared expert's layer for those of the experts, which one tensor holds."""
    with pytest.raises(ModelError, match=re.escape("model.lora.target that are no experts")):
        add_adapters(language_of("qwen3_next"), CONFIG, 0)
    language = language_of("qwen3_next")
    assert add_adapters(language, LoraConfig(target=("q_proj", "out_proj")), 0).layers == 2


def test_a_layer_whose_weight_is_read_without_a_call_is_refused(monkeypatch: pytest.MonkeyPatch):
    language = language_of("llama")
    block = language.model.layers[1].mlp

    def forward(hidden: torch.Tensor) -> torch.Tensor:
        gate = torch.nn.functional.linear(hidden, block.gate_proj.weight)
        return block.down_proj(block.act_fn(gate) * block.up_proj(hidden))

    monkeypatch.setattr(block, "forward", forward)
    with pytest.raises(
        ModelError, match=r"does not call 1 of the layers .*layers\.1\.mlp\.gate_proj"
    ):
        add_adapters(language, CONFIG, 0)


def test_without_peft_the_extra_is_named(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "peft", None)
    with pytest.raises(ModelError, match=re.escape("pip install 'sailvit[lora]'")):
        add_adapters(language_of("llama"), CONFIG, 0)


def test_a_weight_at_several_places_is_refused():
    with pytest.raises(ModelError, match="one weight at several places"):
        add_adapters(language_of("zamba"), CONFIG, 0)


@pytest.mark.parametrize(("family", "without"), [("llama4_text", "router"), ("phimoe", "router")])
def test_layers_that_are_linear_by_their_class_alone_get_none(family: str, without: str):
    language = language_of(family)
    add_adapters(language, CONFIG, 0)
    assert not [name for name, _ in adapted_layers(language) if without in name]
    assert language(TOKENS).logits.isfinite().all()


def test_a_class_of_its_own_that_computes_the_product_gets_adapters():
    language = language_of("falcon")
    assert add_adapters(language, CONFIG, 0).layers == len(dict(adapted_layers(language))) > 0
