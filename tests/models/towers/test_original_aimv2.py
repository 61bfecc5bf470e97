"""Checkpoints in the original layout of AIMv2, as SAILViT's releases have it: read without their code."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch.nn.functional import conv2d, silu

from sailvit.core.errors import ModelError
from sailvit.core.recipe import ModelConfig
from sailvit.models.loading.build import build
from sailvit.models.towers.original_aimv2 import from_original, to_original
from tiny_parts import PREPROCESSOR, Parts

WIDTH, BLOCKS, HEADS, INNER, PATCH, SIDE = 32, 2, 4, 48, 8, 32
CONFIG = {
    "architectures": ["SAILViTModel"],
    "auto_map": {"AutoModel": "modeling_sailvit.SAILViTModel"},
    "model_type": "sailvit",
    "hidden_size": WIDTH,
    "intermediate_size": INNER,
    "num_hidden_layers": BLOCKS,
    "num_attention_heads": HEADS,
    "num_channels": 3,
    "patch_size": PATCH,
    "image_size": SIDE,
    "rms_norm_eps": 1e-5,
    "qkv_bias": False,
    "use_bias": False,
}


def weights() -> dict[str, torch.Tensor]:
    """A SAILViT checkpoint's tensors, by the names that are published."""
    draw = torch.Generator().manual_seed(5)

    def drawn(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=draw) * 0.2

    state = {
        "preprocessor.patchifier.proj.weight": drawn(WIDTH, 3, PATCH, PATCH),
        "preprocessor.patchifier.proj.bias": drawn(WIDTH),
        "preprocessor.patchifier.norm.weight": 1 + drawn(WIDTH),
        "preprocessor.pos_embed": drawn(1, (SIDE // PATCH) ** 2, WIDTH),
        "trunk.post_trunk_norm.weight": 1 + drawn(WIDTH),
    }
    for n in range(BLOCKS):
        state |= {
            f"trunk.blocks.{n}.norm_1.weight": 1 + drawn(WIDTH),
            f"trunk.blocks.{n}.attn.qkv.weight": drawn(3 * WIDTH, WIDTH),
            f"trunk.blocks.{n}.attn.proj.weight": drawn(WIDTH, WIDTH),
            f"trunk.blocks.{n}.norm_2.weight": 1 + drawn(WIDTH),
            f"trunk.blocks.{n}.mlp.fc1.weight": drawn(INNER, WIDTH),
            f"trunk.blocks.{n}.mlp.fc2.weight": drawn(WIDTH, INNER),
            f"trunk.blocks.{n}.mlp.fc3.weight": drawn(INNER, WIDTH),
        }
    return state


def write(folder: Path, state: dict[str, torch.Tensor] | None = None, **changes: Any) -> Path:
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps({**CONFIG, **changes}))
    (folder / "preprocessor_config.json").write_text(json.dumps(PREPROCESSOR))
    save_file(weights() if state is None else state, folder / "model.safetensors", {"format": "pt"})
    return folder


def rms(x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-5) * weight


def original_features(state: dict[str, torch.Tensor], pixels: torch.Tensor) -> torch.Tensor:
    """The original forward, written from its description: patches, norm, positions; blocks; norm."""
    proj = "preprocessor.patchifier.proj."
    x = conv2d(pixels, state[proj + "weight"], state[proj + "bias"], stride=PATCH)
    x = rms(x.flatten(2).mT, state["preprocessor.patchifier.norm.weight"])
    x = x + state["preprocessor.pos_embed"]
    rows, tokens, width = x.shape
    for n in range(BLOCKS):
        get = {key: state[f"trunk.blocks.{n}.{key}.weight"] for key in (
            "norm_1", "norm_2", "attn.qkv", "attn.proj", "mlp.fc1", "mlp.fc2", "mlp.fc3"
        )}  # fmt: skip
        h = rms(x, get["norm_1"]) @ get["attn.qkv"].T
        q, k, v = h.reshape(rows, tokens, 3, HEADS, width // HEADS).permute(2, 0, 3, 1, 4)
        scores = (q @ k.mT / (width // HEADS) ** 0.5).softmax(-1)
        x = x + (scores @ v).transpose(1, 2).reshape(rows, tokens, width) @ get["attn.proj"].T
        h = rms(x, get["norm_2"])
        gated = silu(h @ get["mlp.fc1"].T) * (h @ get["mlp.fc3"].T)
        x = x + gated @ get["mlp.fc2"].T
    return rms(x, state["trunk.post_trunk_norm.weight"])


def test_features_are_those_of_the_original_forward(parts: Parts, tmp_path: Path):
    folder = write(tmp_path / "sailvit")
    bundle = build(ModelConfig(tower=str(folder), language=parts.language("llama")), seed=0)
    tower = bundle.mllm.tower.eval()
    tiles = torch.randint(0, 256, (2, 3, SIDE, SIDE), dtype=torch.uint8)
    with torch.no_grad():
        found, expected = tower(tiles), original_features(weights(), tower.normalised(tiles))
    assert tower.prefix == 0
    assert not tower.idle
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-6 * float(expected.abs().max()))


def test_names_go_there_and_back_bit_by_bit():
    state = weights()
    again = to_original(from_original(state))
    assert again.keys() == state.keys()
    assert all(torch.equal(again[name], tensor) for name, tensor in state.items())


def test_shards_are_put_together(parts: Parts, tmp_path: Path):
    folder, state = write(tmp_path / "sailvit"), weights()
    (folder / "model.safetensors").unlink()
    names = sorted(state)
    halves = {"model-1.safetensors": names[::2], "model-2.safetensors": names[1::2]}
    for file, held in halves.items():
        save_file({name: state[name] for name in held}, folder / file, {"format": "pt"})
    placed = {name: file for file, held in halves.items() for name in held}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": placed}))
    tower = build(ModelConfig(tower=str(folder), language=parts.language("llama")), seed=0)
    found = tower.mllm.tower.model.state_dict()
    assert all(torch.equal(found[name], held) for name, held in from_original(state).items())


def test_a_config_alone_is_enough_for_a_plan(parts: Parts, tmp_path: Path):
    folder = write(tmp_path / "sailvit")
    (folder / "model.safetensors").unlink()
    config = ModelConfig(tower=str(folder), language=parts.language("llama"))
    assert build(config, seed=0, weights="meta").mllm.tower.patches == 16


@pytest.mark.parametrize(
    ("change", "state", "said"),
    [
        ({"qkv_bias": True}, None, "has biases"),
        ({"hidden_size": None}, None, "lacks hidden_size"),
        ({}, {"vision.weight": torch.zeros(2)}, "weights of another layout"),
        ({}, {**weights(), "trunk.blocks.0.attn.bias": torch.zeros(2)}, "has no place"),
        ({}, {k: v for k, v in weights().items() if "fc3" not in k}, "lacks 2 weights"),
        ({"num_hidden_layers": 3}, None, "lacks 9 weights"),
    ],
)
def test_what_is_something_else_is_refused(
    parts: Parts, tmp_path: Path, change: dict[str, Any], state: Any, said: str
):
    folder = write(tmp_path / "sailvit", state, **change)
    config = json.loads((folder / "config.json").read_text())
    kept = {key: value for key, value in config.items() if value is not None}
    (folder / "config.json").write_text(json.dumps(kept))
    with pytest.raises(ModelError, match=said):
        build(ModelConfig(tower=str(folder), language=parts.language("llama")), seed=0)


def test_the_weights_type_does_not_matter(parts: Parts, tmp_path: Path):
    half = {name: tensor.bfloat16() for name, tensor in weights().items()}
    folder = write(tmp_path / "sailvit", half)
    bundle = build(ModelConfig(tower=str(folder), language=parts.language("llama")), seed=0)
    assert {p.dtype for p in bundle.mllm.tower.model.parameters()} == {torch.float32}
    assert load_file(folder / "model.safetensors")["preprocessor.pos_embed"].dtype == torch.bfloat16
