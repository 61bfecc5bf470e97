"""The tokenizer of the demo world: one token per word of a closed vocabulary."""

from __future__ import annotations

from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import WhitespaceSplit
from transformers import PreTrainedTokenizerFast

from sailvit.synthetic.world.vocabulary import vocabulary

PAD, UNKNOWN, USER, ASSISTANT, END, IMAGE = (
    "<|pad|>",
    "<|unk|>",
    "<|user|>",
    "<|assistant|>",
    "<|end|>",
    "<|image_pad|>",
)
"""Special tokens: padding, a word outside the world, who speaks, end of a turn, one visual
token."""

CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{{ '<|assistant|>' if message['role'] == 'assistant' else '<|user|>' }}{{ message['content'] }}<|end|>"
    "{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
"""`<|user|>question<|end|><|assistant|>answer<|end|>`."""


def build_tokenizer() -> PreTrainedTokenizerFast:
    """A word-level tokenizer with chat template, ready for `save_pretrained`."""
    words = (PAD, UNKNOWN, USER, ASSISTANT, END, IMAGE, *vocabulary())
    core = Tokenizer(
        WordLevel({word: index for index, word in enumerate(words)}, unk_token=UNKNOWN)
    )
    core.pre_tokenizer = WhitespaceSplit()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=core,
        pad_token=PAD,
        unk_token=UNKNOWN,
        eos_token=END,
        additional_special_tokens=[USER, ASSISTANT, IMAGE],
        clean_up_tokenization_spaces=False,
    )
    tokenizer.chat_template = CHAT_TEMPLATE
    return tokenizer
