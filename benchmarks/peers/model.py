"""One small model as transformers has it, and its weights taken apart into the parts that our recipes name."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from transformers import (
    AutoTokenizer,
    InternVLConfig,
    InternVLForConditionalGeneration,
    InternVLVisionConfig,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen2ForCausalLM,
)
from transformers.models.llava.processing_llava import LlavaProcessor
from transformers.models.siglip.image_processing_pil_siglip import SiglipImageProcessorPil

from peers.data import PLACEHOLDER
from sailvit.models.structure.connector import Connector, fresh_connector

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class Shape:
    """Sizes of the model."""

    size: int
    """Height and width of a tile, in pixels."""
    tower: int
    """D of the tower."""
    tower_blocks: int
    """Its blocks."""
    language: int
    """D of the language."""
    language_blocks: int
    """Its blocks."""
    vocabulary: int
    """Tokens, some of which no text uses."""

    @property
    def visual_tokens(self) -> int:
        """Of one tile."""
        return (self.size // 28) ** 2


SMALL = Shape(
    size=224, tower=192, tower_blocks=6, language=256, language_blocks=6, vocabulary=32_000
)
"""A step of 16 samples takes about a second on two cores."""
TINY = Shape(size=56, tower=64, tower_blocks=2, language=128, language_blocks=2, vocabulary=1_000)
"""To see whether everything runs."""


@dataclass(frozen=True)
class Folders:
    """Where the model is, whole and in parts."""

    folder: Path
    """Holds everything below."""

    @property
    def whole(self) -> Path:
        """What the peers load."""
        return self.folder / "whole"

    def part(self, name: str) -> Path:
        """What our recipe names."""
        return self.folder / name


def write_model(folder: Path, shape: Shape, tokenizer_folder: Path, seed: int = 0) -> Folders:
    """Write the model with random weights, whole with its tokenizer and in parts."""
    folders = Folders(folder)
    tokenizer = AutoTokenizer.from_pretrained(tokenizer_folder)
    torch.manual_seed(seed)
    model = InternVLForConditionalGeneration(
        _config(shape, tokenizer.convert_tokens_to_ids(PLACEHOLDER))
    )
    _randomize(model)
    model.save_pretrained(folders.whole)
    model.model.vision_tower.save_pretrained(folders.part("tower"))
    _processor(tokenizer, shape.size).image_processor.save_pretrained(folders.part("tower"))
    _language(model).save_pretrained(folders.part("language"))
    _connector(model, shape).save_pretrained(folders.part("connector"))
    for holder in (folders.whole, folders.part("language")):
        tokenizer.save_pretrained(holder)
    return folders


def load_whole(folders: Folders) -> tuple[InternVLForConditionalGeneration, LlavaProcessor]:
    """The model in fp32 with its processor: Llava's, as InternVL's own does not load without torchvision."""
    model = InternVLForConditionalGeneration.from_pretrained(
        folders.whole, dtype=torch.float32, attn_implementation="sdpa"
    )
    tokenizer = AutoTokenizer.from_pretrained(folders.whole)
    return model, _processor(tokenizer, model.config.vision_config.image_size[0])


def _config(shape: Shape, image_token: int) -> InternVLConfig:
    vision = InternVLVisionConfig(
        hidden_size=shape.tower,
        num_hidden_layers=shape.tower_blocks,
        num_attention_heads=shape.tower // 64,
        intermediate_size=4 * shape.tower,
        image_size=(shape.size, shape.size),
        patch_size=(14, 14),
    )
    text = Qwen2Config(
        hidden_size=shape.language,
        num_hidden_layers=shape.language_blocks,
        num_attention_heads=shape.language // 64,
        num_key_value_heads=shape.language // 128,
        intermediate_size=3 * shape.language,
        vocab_size=shape.vocabulary,
        max_position_embeddings=8192,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=2,
        pad_token_id=0,
    )
    return InternVLConfig(
        vision_config=vision,
        text_config=text,
        image_token_id=image_token,
        image_seq_length=shape.visual_tokens,
    )


def _processor(tokenizer: PreTrainedTokenizerFast, size: int) -> LlavaProcessor:
    images = SiglipImageProcessorPil(
        size={"height": size, "width": size}, image_mean=MEAN, image_std=STD
    )
    # A "patch" of 28 px counts the tokens that are left after merging 2 x 2 patches of 14.
    return LlavaProcessor(
        images,
        tokenizer,
        patch_size=28,
        chat_template=tokenizer.chat_template,
        image_token=PLACEHOLDER,
    )


def _randomize(model: InternVLForConditionalGeneration) -> None:
    """Position embeddings and the like begin at zero; with noise, a misplaced one shows in the loss."""
    with torch.no_grad():
        for parameter in model.model.vision_tower.embeddings.parameters():
            parameter.add_(0.02 * torch.randn_like(parameter))


def _language(model: InternVLForConditionalGeneration) -> Qwen2ForCausalLM:
    language = Qwen2ForCausalLM(model.config.text_config)
    language.model.load_state_dict(model.model.language_model.state_dict())
    language.tie_weights()
    return language


def _connector(model: InternVLForConditionalGeneration, shape: Shape) -> Connector:
    widths = {"tower_width": shape.tower, "language_width": shape.language}
    connector = fresh_connector("merge_mlp", **widths, hidden=shape.language, merge=2)
    projector = model.model.multi_modal_projector
    for ours, theirs in {"norm": "layer_norm", "up": "linear_1", "down": "linear_2"}.items():
        getattr(connector, ours).load_state_dict(getattr(projector, theirs).state_dict())
    return connector
