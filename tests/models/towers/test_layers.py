"""Features of chosen layers: which states they are, how they join, and that nothing behind them runs."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from pydantic import ValidationError
from transformers import AutoModel, Idefics3VisionConfig

from sailvit.core.errors import ModelError
from sailvit.core.recipe import ModelConfig, ParallelConfig
from sailvit.models.blocks import find_blocks
from sailvit.models.loading.build import build
from sailvit.models.loading.folders import save_part
from sailvit.models.measures.flops import flops_model
from sailvit.models.structure.parallel import parallelize
from sailvit.models.towers.layers import FeatureChoice
from sailvit.models.towers.proof import prove_tiles
from sailvit.models.towers.tower import Preprocessing, Tower
from tiny_parts import PATCH, SIDE, TOWERS, Parts, picture

FAMILIES = {
    **TOWERS,
    "idefics3": Idefics3VisionConfig(
        hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=48,
        image_size=SIDE, patch_size=PATCH,
    ),
}  # fmt: skip
NORMS = {
    **dict.fromkeys(("siglip", "siglip2", "idefics3"), "post_layernorm"),
    **dict.fromkeys(("dinov2", "registers", "vit"), "layernorm"),
    "aimv2": "rms_norm",
}
"""The final norm of each family that has one before its patch tokens."""


def made(name: str, *layers: int, **choice: Any) -> Tower:
    torch.manual_seed(0)
    model = AutoModel.from_config(FAMILIES[name], attn_implementation="sdpa")
    with torch.no_grad():
        for part, parameter in model.named_parameters():
            # Fresh norms change little, and two of them might be the same.
            if "norm" in part:
                parameter.add_(torch.rand_like(parameter))
    preprocessing = Preprocessing(SIDE, (0.5,) * 3, (0.25,) * 3)
    return Tower(model, preprocessing, FeatureChoice(layers or (-1,), **choice)).eval()


def tiles(count: int = 2) -> torch.Tensor:
    return torch.stack([torch.from_numpy(picture(n)).permute(2, 0, 1) for n in range(count)])


def states(tower: Tower) -> list[torch.Tensor]:
    """Patch tokens of every state, by transformers' own recording; the last before the norm."""
    seen: list[torch.Tensor] = []
    last = find_blocks(tower.model)[1][-1].register_forward_hook(
        lambda block, given, made: seen.append(made[0] if isinstance(made, tuple) else made)
    )
    found = tower.model(**tower.inputs(tiles()), output_hidden_states=True).hidden_states
    last.remove()
    return [state[:, tower.prefix :] for state in (*found[:-1], seen[0])]


@pytest.mark.parametrize("name", FAMILIES)
def test_features_are_the_states_of_the_chosen_layers(name: str):
    plain = made(name)
    expected, last = states(plain), plain(tiles())
    for layer in (0, 1, -2):
        torch.testing.assert_close(made(name, layer)(tiles()), expected[layer])
    joined = made(name, 1, -1, 0)
    assert joined.width == 3 * plain.width
    torch.testing.assert_close(joined(tiles()), torch.cat([expected[1], last, expected[0]], -1))
    mean = made(name, 1, -1, join="mean")
    assert mean.width == plain.width
    torch.testing.assert_close(mean(tiles()), (expected[1] + last) / 2)
    assert torch.equal(made(name, 2)(tiles()), last)
    torch.testing.assert_close(made(name, -1, norm=False)(tiles()), expected[-1])


@pytest.mark.parametrize("name", FAMILIES)
def test_the_final_norm_is_found_and_used_where_asked(name: str):
    if name not in NORMS:
        with pytest.raises(ModelError, match="has no norm between its last block and its patch"):
            made(name, 1, norm=True)
        return
    tower = made(name, 1, -1, norm=True)
    norm = tower.model.get_submodule(NORMS[name])
    expected = [norm(states(tower)[1]), made(name)(tiles())]
    torch.testing.assert_close(tower(tiles()), torch.cat(expected, -1))
    prove_tiles(tower)
    trained = {key for key in dict(tower.model.named_parameters()) if key not in tower.idle}
    assert any(key.startswith(NORMS[name]) for key in trained)


@pytest.mark.parametrize("name", FAMILIES)
def test_blocks_behind_the_last_needed_one_do_not_run(name: str):
    tower = made(name, 1)
    ran = []
    for place, block in enumerate(find_blocks(tower.model)[1]):
        for part in block.children():
            part.register_forward_hook(lambda *_, place=place: ran.append(place))
    tower(tiles()).sum().backward()
    assert set(ran) == {0}
    without = {key for key, weight in tower.model.named_parameters() if weight.grad is None}
    assert without == tower.idle
    assert any(".1." in key for key in tower.idle)
    # The model itself runs whole.
    tower.model(**tower.inputs(tiles()))
    assert set(ran) == {0, 1}
    assert not any("forward" in block.__dict__ for block in find_blocks(tower.model)[1])


def test_unused_blocks_are_counted_nowhere(parts: Parts):
    whole, early = (
        build(parts.config(feature_layer=layer), weights="meta").mllm for layer in (-1, 1)
    )
    counted = [flops_model(model).tower.forward for model in (whole, early)]
    assert counted[1].per_square == counted[0].per_square / 2
    assert counted[1].per_token < 0.7 * counted[0].per_token
    assert flops_model(build(parts.config(feature_layer=1), 0).mllm).tower.forward == counted[1]


@pytest.mark.parametrize(
    "how", ["selective", "full", pytest.param("compile", marks=pytest.mark.slow)]
)
def test_layers_are_read_under_recompute_and_compile(
    how: str, parts: Parts, monkeypatch: pytest.MonkeyPatch
):
    choice = {"feature_layer": (0, 1), "feature_join": "concat", "feature_norm": True}
    plain, other = (parts.build(**choice).mllm for _ in range(2))
    settings: dict[str, Any] = {"recompute": {"tower": how}} if how != "compile" else {}
    if how == "compile":
        real = torch.nn.Module.compile
        monkeypatch.setattr(
            torch.nn.Module, "compile", lambda block: real(block, backend="aot_eager")
        )
        settings = {"compile": True}
    parallelize(other, ParallelConfig(**settings), torch.device("cpu"), bf16=False)
    grads = []
    for model in (plain, other):
        model.tower.train()
        features = model.tower(tiles())
        features.square().sum().backward()
        grads.append([features, *(weight.grad for weight in model.tower.model.parameters())])
    for found, expected in zip(grads[1], grads[0], strict=True):
        assert (found is None) == (expected is None)
        if expected is not None:
            torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


def test_a_tower_with_chosen_layers_is_saved_whole(parts: Parts, tmp_path):
    bundle = parts.build("dinov2", feature_layer=[1, -1], feature_join="mean")
    assert bundle.mllm.connector.config.tower_width == 32
    save_part(bundle, "tower", tmp_path / "tower")
    saved = AutoModel.from_pretrained(tmp_path / "tower").state_dict()
    held = bundle.mllm.tower.model.state_dict()
    assert all(torch.equal(saved[name], held[name]) for name in held)


def test_wrong_choices_are_sentences(parts: Parts):
    with pytest.raises(ValidationError, match="names a layer twice"):
        ModelConfig(tower="-", language="-", feature_layer=[1, 1])
    with pytest.raises(ValidationError, match="empty list"):
        ModelConfig(tower="-", language="-", feature_layer=[])
    with pytest.raises(ModelError, match=r"feature_layer is 3, but .* has 2 blocks; expected -3"):
        build(parts.config(feature_layer=[1, 3]), weights="meta")


def test_a_final_norm_that_is_switched_off_is_none(parts: Parts):
    """InternVL's before a mean pooling is an identity."""
    with pytest.raises(ModelError, match="feature_norm is true, but internvl_vision has no norm"):
        parts.build("internvl", feature_layer=-2, feature_norm=True)
