"""Seeded data for all contenders: conversations, all or most of which show one photograph-like JPEG; a tokenizer."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

SETS = {"pairs": 1.0, "mixture": 0.7}
"""Share of conversations with an image, as in the method: text alone comes in the last stage. (A peer's batch without
any image has nothing to learn from while the language is frozen, and ends with an error.)"""
WORDS = 20
"""Median words of an answer; questions have a third of that. Lengths are lognormal."""
LONGEST = 400
"""Most words of an answer."""
PLACEHOLDER = "<|image_pad|>"
"""Stands for one visual token."""

TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message.role }}\n"
    "{% if message.role == 'assistant' %}{% generation %}{{ said(message.content) }}<|im_end|>{% endgeneration %}"
    "{% else %}{{ said(message.content) }}<|im_end|>{% endif %}\n{% endfor %}"
)
_SAID = (
    "{% macro said(content) %}{% if content is string %}{{ content }}{% else %}{% for part in content %}"
    "{% if part.type == 'image' %}<|image_pad|>{% else %}{{ part.text }}{% endif %}{% endfor %}{% endif %}"
    "{% endmacro %}"
)


@dataclass(frozen=True)
class Files:
    """Where a set is."""

    folder: Path
    """Holds everything below."""

    @property
    def llava(self) -> Path:
        """LLaVA JSON, what our recipes read."""
        return self.folder / "data.json"

    @property
    def images(self) -> Path:
        """The JPEGs."""
        return self.folder / "images"


def write_data(folder: Path, count: int, seed: int = 0) -> dict[str, Files]:
    """Write `count` conversations and their images for every set."""
    files = {name: Files(folder / name) for name in SETS}
    for name, share in SETS.items():
        files[name].images.mkdir(parents=True)
        generator = np.random.default_rng(seed)
        words = _words(generator)
        rows = [_row(files[name], index, words, share, generator) for index in range(count)]
        files[name].llava.write_text(json.dumps(rows), encoding="utf-8")
    return files


def write_tokenizer(folder: Path, vocabulary: int, seed: int = 0) -> Path:
    """Write a tokenizer trained on such text: byte-level BPE."""
    generator = np.random.default_rng(seed)
    _tokenizer(_words(generator), vocabulary, generator).save_pretrained(folder)
    return folder


def messages(files: Files) -> list[dict[str, Any]]:
    """The same conversations as rows of a `datasets.Dataset`: role and content, and paths of images."""
    rows = json.loads(files.llava.read_text(encoding="utf-8"))
    roles = {"human": "user", "gpt": "assistant"}
    return [
        {
            "messages": [
                {"role": roles[turn["from"]], "content": turn["value"].removeprefix("<image>")}
                for turn in row["conversations"]
            ],
            "images": [str(files.images / row["image"])] if "image" in row else [],
        }
        for row in rows
    ]


def _row(
    files: Files, index: int, words: NDArray[np.str_], share: float, generator: np.random.Generator
) -> dict[str, Any]:
    shown = generator.random() < share
    turns = []
    for turn in range(int(generator.integers(1, 4))):
        mark = "<image>\n" if shown and turn == 0 else ""
        turns.append({"from": "human", "value": mark + _text(words, WORDS / 3, generator)})
        turns.append({"from": "gpt", "value": _text(words, WORDS, generator)})
    row: dict[str, Any] = {"id": str(index), "conversations": turns}
    if shown:
        row["image"] = f"{index}.jpg"
        _photograph(generator).save(files.images / row["image"], quality=90)
    return row


def _text(words: NDArray[np.str_], median: float, generator: np.random.Generator) -> str:
    count = int(np.clip(generator.lognormal(np.log(median), 0.8), 3, LONGEST))
    chosen = generator.zipf(1.3, size=count) % len(words)
    return " ".join(words[chosen])


def _words(generator: np.random.Generator, count: int = 60_000) -> NDArray[np.str_]:
    """Words of one to four syllables."""
    syllables = np.array(
        [c + v + e for c in "bcdfghklmnprstvw" for v in "aeiou" for e in ("", "n", "r", "s")]
    )
    chosen = generator.integers(0, len(syllables), (count, 4))
    lengths = generator.integers(1, 5, count)
    return np.array(
        ["".join(syllables[row[:length]]) for row, length in zip(chosen, lengths, strict=True)]
    )


def _photograph(generator: np.random.Generator) -> Image.Image:
    """An image of usual size with soft shapes and grain, so that its JPEG is as large as a photograph's."""
    width, height = (int(side) for side in generator.integers(320, 1100, size=2))
    soft = generator.integers(0, 256, (height // 40 + 2, width // 40 + 2, 3), dtype=np.uint8)
    pixels = np.asarray(
        Image.fromarray(soft).resize((width, height), Image.Resampling.BICUBIC), dtype=np.int16
    )
    grain = generator.integers(-12, 13, (height, width, 1), dtype=np.int16)
    return Image.fromarray((pixels + grain).clip(0, 255).astype(np.uint8))


def _tokenizer(
    words: NDArray[np.str_], vocabulary: int, generator: np.random.Generator
) -> PreTrainedTokenizerFast:
    core = Tokenizer(models.BPE())
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    special = ["<|pad|>", "<|im_start|>", "<|im_end|>", PLACEHOLDER]
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=special,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    core.train_from_iterator(
        (" ".join(part) for part in np.array_split(generator.permutation(words), 600)), trainer
    )
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=core,
        pad_token="<|pad|>",
        eos_token="<|im_end|>",
        additional_special_tokens=["<|im_start|>", PLACEHOLDER],
    )
    tokenizer.chat_template = _SAID + TEMPLATE
    return tokenizer
