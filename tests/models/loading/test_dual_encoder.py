"""The similarity of images and texts by a model of two towers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from dual_folders import KINDS, save_refined, write_dual
from small_tokenizers import byte_tokenizer
from torch.nn.functional import normalize
from transformers import AutoModel, SiglipConfig, SiglipImageProcessor, SiglipVisionConfig

import sailvit
from sailvit.core.errors import ModelError
from sailvit.models.loading.dual_encoder import DualEncoder, pair_tower

SIZES = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("siglip")
    tokenizer = byte_tokenizer()
    torch.manual_seed(0)
    text = {
        **SIZES,
        "vocab_size": len(tokenizer),
        "max_position_embeddings": 16,
        "projection_size": 32,
    }
    config = SiglipConfig(
        text_config=text, vision_config={**SIZES, "image_size": 32, "patch_size": 8}
    )
    AutoModel.from_config(config).save_pretrained(path)
    tokenizer.save_pretrained(path)
    SiglipImageProcessor(size={"height": 32, "width": 32}).save_pretrained(path)
    return path


def pictures() -> list[np.ndarray]:
    chooser = np.random.default_rng(0)
    return [chooser.integers(0, 256, (side, 40, 3), dtype=np.uint8) for side in (20, 64, 30)]


def test_each_image_is_compared_with_its_own_text(folder: Path):
    scorer, texts = DualEncoder(str(folder)), ["a red cat", "a blue dog " * 30, ""]
    together = scorer(pictures(), texts)
    assert len(together) == 3
    assert all(-1 <= score <= 1 for score in together)
    alone = [scorer([image], [text])[0] for image, text in zip(pictures(), texts, strict=True)]
    assert together == pytest.approx(alone, abs=1e-5)
    assert scorer(pictures(), texts[::-1]) != pytest.approx(together, abs=1e-5)


def test_the_score_is_the_cosine_of_the_models_own_features(folder: Path):
    scorer = DualEncoder(str(folder))
    model = AutoModel.from_pretrained(folder).eval()
    found = scorer._processor(pictures(), return_tensors="pt")
    tokens = scorer._tokenizer(
        ["a cat"] * 3, padding="max_length", max_length=16, return_tensors="pt"
    )
    with torch.inference_mode():
        out = model(**found, **tokens)
    expected = (out.logits_per_image.diagonal() - model.logit_bias) / model.logit_scale.exp()
    assert scorer(pictures(), ["a cat"] * 3) == pytest.approx(expected.tolist(), abs=1e-5)


def test_a_model_of_one_tower_is_refused(folder: Path, tmp_path: Path):
    AutoModel.from_config(SiglipVisionConfig(**SIZES, image_size=32, patch_size=8)).save_pretrained(
        tmp_path
    )
    for name in ("tokenizer.json", "tokenizer_config.json", "preprocessor_config.json"):
        (tmp_path / name).write_bytes((folder / name).read_bytes())
    with pytest.raises(ModelError, match="expected a model with a vision and a text tower"):
        DualEncoder(str(tmp_path))


def test_a_folder_that_is_none_is_refused(tmp_path: Path):
    with pytest.raises(ModelError, match="cannot load a dual encoder from"):
        DualEncoder(str(tmp_path / "nothing"))


@pytest.mark.parametrize("kind", KINDS)
def test_a_tower_is_paired_with_the_texts_of_its_base(kind: str, tmp_path: Path):
    dual = write_dual(kind, tmp_path / "dual")
    changed = save_refined(dual, tmp_path / "refined", kind, by=0.3)
    own = sailvit.load_tower(str(dual), device="cpu").tower
    refined = sailvit.load_tower(str(tmp_path / "refined"), device="cpu").tower
    tiles = torch.randint(0, 256, (3, 3, 32, 32), dtype=torch.uint8)
    model = AutoModel.from_pretrained(dual).eval()
    base, other = pair_tower(str(dual), own), pair_tower(str(dual), refined)
    with torch.inference_mode():
        expected = normalize(model.get_image_features(**own.inputs(tiles)).pooler_output, dim=-1)
        torch.testing.assert_close(base.images(tiles), expected, rtol=1e-4, atol=1e-5)
        # As if the refined tower had been put there by hand.
        model.vision_model = changed.eval()
        expected = normalize(model.get_image_features(**own.inputs(tiles)).pooler_output, dim=-1)
        torch.testing.assert_close(other.images(tiles), expected, rtol=1e-4, atol=1e-5)
    assert not torch.allclose(base.images(tiles), other.images(tiles), atol=1e-2)
    if kind == "siglip2":
        return  # AutoTokenizer makes Gemma's of its folder, which has no bytes
    texts = ["a cat", "a dog"]
    assert torch.equal(base.texts(texts), other.texts(texts))
    torch.testing.assert_close(other.texts(texts).norm(dim=-1), torch.ones(2))


def test_a_tower_of_another_kind_or_size_is_refused(tmp_path: Path, parts):
    dual = write_dual("siglip", tmp_path / "dual")
    clip = sailvit.load_tower(parts.tower("clip"), device="cpu").tower
    with pytest.raises(ModelError, match=r"clip_vision_model, 32 px\) does not fit"):
        pair_tower(str(dual), clip)
    larger = SiglipVisionConfig(**SIZES, image_size=64, patch_size=8)
    AutoModel.from_config(larger).save_pretrained(tmp_path / "large")
    SiglipImageProcessor(size={"height": 64, "width": 64}).save_pretrained(tmp_path / "large")
    tower = sailvit.load_tower(str(tmp_path / "large"), device="cpu").tower
    with pytest.raises(ModelError, match=r"position_embedding.* is \[64, 32\] here and \[16, 32\]"):
        pair_tower(str(dual), tower)
