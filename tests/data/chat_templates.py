"""Chat templates with the habits of those that are published, and the special tokens that they write."""

from __future__ import annotations

from pathlib import Path

from small_tokenizers import byte_tokenizer
from transformers import PreTrainedTokenizerFast

PUBLISHED = {
    path.stem: path.read_text(encoding="utf-8")
    for path in sorted((Path(__file__).parent / "published_templates").glob("*.jinja"))
}
_TOKENS = [
    "<|image_pad|>",
    "<|im_start|>",
    "<|im_sep|>",
    "<|im_end|>",
    "<|start_header_id|>",
    "<|end_header_id|>",
    "<|eot_id|>",
    "<start_of_turn>",
    "<end_of_turn>",
    "<|User|>",
    "<|Assistant|>",
    "<|end|>",
    "<|user|>",
    "<|assistant|>",
    "<|system|>",
    "<sop>",
    "</s>",
    "[INST]",
    "[/INST]",
    "<image>",
]


def chat_tokenizer(template: object, *, eos: str = "</s>") -> PreTrainedTokenizerFast:
    """A byte tokenizer with the special tokens of all these templates."""
    tokenizer = byte_tokenizer(None)
    tokenizer.add_special_tokens({"additional_special_tokens": _TOKENS})
    tokenizer.eos_token = eos
    tokenizer.chat_template = template
    return tokenizer
