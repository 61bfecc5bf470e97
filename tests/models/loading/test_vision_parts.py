"""Towers out of dual encoders and multimodal checkpoints: found, read alone, exact, and saved as themselves."""

from __future__ import annotations

import copy
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import (
    AutoModel,
    TrOCRConfig,
    VisionEncoderDecoderConfig,
    VisionEncoderDecoderModel,
)

from sailvit.core.errors import ModelError
from sailvit.models.loading import vision_weights
from sailvit.models.loading.build import build
from sailvit.models.loading.folders import prove_tower
from sailvit.models.loading.parts import load_tower
from sailvit.models.loading.vision_weights import prefix_of
from tiny_parts import SIDE, TOWERS, Parts, picture
from tiny_sources import DUAL, MULTIMODAL, REFUSED, asked, save_source, save_whole, vision_half

# One of each way to be found; the rest run with the long tests.
QUICK = {"aimv2", "blip", "altclip", "llava", "gemma3", "idefics3", "mistral3", "qianfan_ocr"}
SOURCES = [
    pytest.param(family, marks=() if family in QUICK else pytest.mark.slow)
    for family in (*DUAL, *MULTIMODAL)
]


def tiles(count: int = 2) -> torch.Tensor:
    return torch.stack([torch.from_numpy(picture(n)).permute(2, 0, 1) for n in range(count)])


def loaded(folder: Path) -> Any:
    return load_tower(asked(folder))[0].eval()


@pytest.mark.parametrize("family", SOURCES)
def test_a_tower_inside_a_checkpoint_is_that_submodule_and_is_saved_as_itself(
    family: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
):
    whole = save_whole(family, tmp_path / "whole")
    capfd.readouterr()
    tower = loaded(tmp_path / "whole")
    assert "LOAD REPORT" not in "".join(capfd.readouterr())
    inside = vision_half(whole, type(tower.model))
    expected, found = inside.state_dict(), tower.model.state_dict()
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], expected[name]) for name in found)
    with torch.no_grad():
        assert torch.equal(tower(tiles()), tower.around(inside).eval()(tiles()))
    assert f"inside a {whole.config.model_type}" in tower.notes[0]
    tower.model.save_pretrained(tmp_path / "saved")
    prove_tower(tower, tmp_path / "saved")
    shutil.copy(tmp_path / "whole/preprocessor_config.json", tmp_path / "saved")
    with torch.no_grad():
        assert torch.equal(loaded(tmp_path / "saved")(tiles()), tower(tiles()))
    if not any("AutoModel knows no" in note for note in tower.notes):
        assert type(AutoModel.from_pretrained(tmp_path / "saved")) is type(tower.model)


@pytest.mark.parametrize(
    "family",
    [pytest.param(name, marks=pytest.mark.slow if name == "align" else ()) for name in REFUSED],
)
def test_what_gives_no_token_per_patch_is_refused_with_the_reason(family: str, tmp_path: Path):
    save_whole(family, tmp_path)
    with pytest.raises(ModelError, match=REFUSED[family]) as raised:
        loaded(tmp_path)
    assert len(str(raised.value)) < 400


def test_nothing_else_of_the_checkpoint_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Of files in shards those without a vision weight are not even opened."""
    save_whole("llava", tmp_path, max_shard_size="50KB")
    listed = json.loads((tmp_path / "model.safetensors.index.json").read_text())["weight_map"]
    files = {file for name, file in listed.items() if "vision_tower" in name}
    assert len(files) < len(set(listed.values()))
    opened, read = [], []
    real = vision_weights.safe_open

    class Watched:
        def __init__(self, path: str, framework: str) -> None:
            opened.append(Path(path).name)
            self.file = real(path, framework)

        def __enter__(self) -> Watched:
            self.held = self.file.__enter__()
            return self

        def __exit__(self, *given: Any) -> None:
            self.file.__exit__(*given)

        def keys(self) -> list[str]:
            return self.held.keys()

        def get_tensor(self, name: str) -> torch.Tensor:
            read.append(name)
            return self.held.get_tensor(name)

    monkeypatch.setattr(vision_weights, "safe_open", Watched)
    loaded(tmp_path)
    assert set(opened) == files
    assert read
    assert all("vision_tower" in name for name in read)


def test_the_layer_that_the_whole_model_reads_is_told(tmp_path: Path):
    save_whole("llava", tmp_path)
    assert "reads its tower at layer -2" in loaded(tmp_path).notes[1]


def test_weights_in_bf16_and_an_encoder_of_an_encoder_decoder(tmp_path: Path):
    """Released multimodal weights are bf16; TrOCR's tower is the encoder of two models."""
    whole = save_whole("llava", tmp_path / "llava")
    whole.to(torch.bfloat16).save_pretrained(tmp_path / "llava")
    tower = loaded(tmp_path / "llava")
    assert tower.model.dtype == torch.float32
    inside = vision_half(whole, type(tower.model)).float()
    assert torch.equal(tower(tiles()), tower.around(inside).eval()(tiles()))
    sizes = {"vocab_size": 64, "d_model": 32, "decoder_layers": 1, "decoder_ffn_dim": 32}
    reader = TrOCRConfig(**sizes, decoder_attention_heads=4, pad_token_id=0)
    pair = VisionEncoderDecoderConfig.from_encoder_decoder_configs(TOWERS["vit"], reader)
    both = VisionEncoderDecoderModel(pair).eval()
    both.save_pretrained(tmp_path / "trocr")
    shutil.copy(tmp_path / "llava/preprocessor_config.json", tmp_path / "trocr")
    tower = loaded(tmp_path / "trocr")
    expected = both.encoder(pixel_values=tower.normalised(tiles())).last_hidden_state[:, 1:]
    torch.testing.assert_close(tower(tiles()), expected)


@pytest.mark.parametrize("prefix", ["vision_tower.vision_model.", "model.vision_tower.", "x.y."])
def test_older_prefixes_are_found(prefix: str, tmp_path: Path):
    save_whole("llava", tmp_path)
    expected = loaded(tmp_path)(tiles())
    state = load_file(tmp_path / "model.safetensors")
    renamed = {
        prefix + name.rpartition("vision_tower.")[2].removeprefix("vision_model.")
        if "vision_tower." in name
        else name: tensor
        for name, tensor in state.items()
    }
    assert renamed.keys() != state.keys()
    save_file(renamed, tmp_path / "model.safetensors", {"format": "pt"})
    assert torch.equal(loaded(tmp_path)(tiles()), expected)


def test_the_prefix_is_where_most_names_are():
    names = ["embed.weight", "layers.0.q.weight", "layers.0.k.weight"]
    language = ["language.layers.0.q.weight", "language.layers.0.k.weight"]
    assert prefix_of(names, [f"eye.{name}" for name in names] + language) == "eye."
    assert prefix_of(names, names + language) == ""
    twice = [f"{side}.{name}" for side in ("left", "right") for name in names]
    with pytest.raises(LookupError, match=r"left\. and right\."):
        prefix_of(names, twice)
    assert prefix_of(names, twice, "right") == "right."
    with pytest.raises(LookupError, match=r"^$"):
        prefix_of(names, ["other"])


def test_weights_that_are_not_there_are_missed_as_elsewhere(tmp_path: Path):
    save_whole("llava", tmp_path)
    state = load_file(tmp_path / "model.safetensors")
    kept = {n: t for n, t in state.items() if not ("vision_tower" in n and "layers.1" in n)}
    save_file(kept, tmp_path / "model.safetensors", {"format": "pt"})
    with pytest.raises(ModelError, match="lacks 16 weights that this architecture uses"):
        loaded(tmp_path)
    kept = {name: tensor for name, tensor in state.items() if "vision_tower" not in name}
    save_file(kept, tmp_path / "model.safetensors", {"format": "pt"})
    with pytest.raises(ModelError, match=r"holds no weights of its vision model"):
        loaded(tmp_path)


def test_weights_that_were_never_gathered_are_named(tmp_path: Path):
    """As DeepSpeed's stage 3 leaves them: empty tensors under the right names."""
    save_whole("llava", tmp_path)
    state = load_file(tmp_path / "model.safetensors")
    empty = {n: torch.zeros(0) if "vision_tower" in n else t for n, t in state.items()}
    save_file(empty, tmp_path / "model.safetensors", {"format": "pt"})
    with pytest.raises(ModelError, match=r"as \[0\], and its config makes it .*not gathered"):
        loaded(tmp_path)


@pytest.mark.parametrize("kind", ["clip", "siglip_vision_model"])
def test_the_trained_tower_of_llavas_original_layout_is_read(kind: str, tmp_path: Path):
    """Its config names the tower as released; the trained weights lie in the checkpoint."""
    save_source(kind, tmp_path / "released")
    released = loaded(tmp_path / "released")
    trained = copy.deepcopy(released.model)
    with torch.no_grad():
        for weight in trained.parameters():
            weight.add_(torch.randn_like(weight) / 10)
    config = {"model_type": "llava_qwen", "architectures": ["LlavaQwenForCausalLM"]}
    config["mm_vision_tower"] = str(tmp_path / "released")
    (tmp_path / "whole").mkdir()
    (tmp_path / "whole/config.json").write_text(json.dumps(config))
    prefix = "model.vision_tower.vision_tower.vision_model."
    state = {prefix + name: tensor for name, tensor in trained.state_dict().items()}
    words = {"model.layers.0.mlp.up_proj.weight": torch.zeros(4, 4)}
    save_file(state | words, tmp_path / "whole/model.safetensors", {"format": "pt"})
    tower = loaded(tmp_path / "whole")
    assert torch.equal(tower(tiles()), released.around(trained).eval()(tiles()))
    assert tower.preprocessing == released.preprocessing
    save_file(words, tmp_path / "whole/model.safetensors", {"format": "pt"})
    with pytest.raises(ModelError, match=r"its tower is '.*released' as it was released"):
        loaded(tmp_path / "whole")


@pytest.mark.parametrize(
    "size", [{"longest_edge": 1456}, {"shortest_edge": 40, "longest_edge": 980}, None]
)
def test_the_size_of_a_tile_is_the_towers_own_where_the_preprocessor_has_no_square(
    size: dict[str, int] | None, tmp_path: Path
):
    """Multimodal preprocessors give bounds of an image's edges, not the side of a tile."""
    save_whole("idefics3", tmp_path)
    given = {"image_mean": [0.5] * 3, "image_std": [0.5] * 3, **({"size": size} if size else {})}
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(given))
    assert loaded(tmp_path).preprocessing.size == SIDE
    # Newer processors keep the same settings inside processor_config.json.
    (tmp_path / "preprocessor_config.json").unlink()
    (tmp_path / "processor_config.json").write_text(json.dumps({"image_processor": given}))
    assert loaded(tmp_path).preprocessing.size == SIDE


def test_a_plan_knows_towers_inside_checkpoints(parts: Parts, tmp_path: Path):
    """From config files alone, with the same prefix and width as when it is loaded."""
    save_whole("metaclip_2", tmp_path)
    (tmp_path / "model.safetensors").unlink()
    config = parts.config().model_copy(update={"tower": str(tmp_path)})
    planned = build(config, weights="meta").mllm.tower
    assert (planned.prefix, planned.patches, planned.width) == (1, 16, 32)
    assert build(config, 3, weights="random").mllm.tower.patches == 16
