"""Small tokenizers made here, and a layout with two visual tokens per tile."""

from __future__ import annotations

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from sailvit.core.layout import VisualLayout

SPECIALS = ["<|pad|>", "<|im_start|>", "<|im_end|>", "<|image_pad|>", "<|bos|>"]

CHATML = (
    "{% for message in messages %}<|im_start|>{{ message.role }}\n{{ message.content | trim }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
SPACED = (
    "{{ '<|bos|>' }}{% for message in messages %}{{ message.role | upper }}: {{ message.content }}"
    "{% if message.role == 'assistant' %} <|im_end|>{% else %} {% endif %}{% endfor %}"
)
THINKING = """
{%- set last = namespace(query=messages|length - 1) -%}
{%- for message in messages if message.role == 'user' and not message.content.startswith('<tool_response>') -%}
{%- set last.query = messages.index(message) -%}
{%- endfor -%}
{%- for message in messages -%}
{%- set content = message.content -%}
{%- set thoughts = '' -%}
{%- if '</think>' in content -%}
{%- set thoughts = content.split('</think>')[0].rstrip('\\n').split('<think>')[-1].lstrip('\\n') -%}
{%- set content = content.split('</think>')[-1].lstrip('\\n') -%}
{%- endif -%}
{{- '<|im_start|>' + message.role + '\\n' -}}
{%- if message.role == 'assistant' and loop.index0 > last.query -%}
{{- '<think>\\n' + thoughts + '\\n</think>\\n\\n' -}}
{%- endif -%}
{{- content + '<|im_end|>\\n' -}}
{%- endfor -%}
"""
TEMPLATES = {"chatml": CHATML, "spaced": SPACED, "thinking": THINKING}


def byte_tokenizer(chat_template: str | None = None) -> PreTrainedTokenizerFast:
    """A byte-level BPE like those of Qwen and Llama, with a few merges."""
    core = Tokenizer(models.BPE())
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=400, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False
    )
    core.train_from_iterator(
        ["what colour is the large circle red blue left of the small square"] * 5, trainer
    )
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=core,
        pad_token="<|pad|>",
        eos_token="<|im_end|>",
        bos_token="<|bos|>",
        additional_special_tokens=["<|im_start|>", "<|image_pad|>"],
    )
    tokenizer.chat_template = chat_template
    return tokenizer


def layout_for(tokenizer: PreTrainedTokenizerFast, **settings) -> VisualLayout:
    """Tiles of 8 pixels with two visual tokens each."""
    placeholder = tokenizer.convert_tokens_to_ids("<|image_pad|>")
    values = {
        "tile_size": 8,
        "tokens_per_tile": 2,
        "placeholder_id": placeholder,
        "placeholder": "<|image_pad|>",
    }
    return VisualLayout(**{**values, **settings})
