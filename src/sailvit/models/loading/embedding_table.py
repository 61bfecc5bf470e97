"""The rows of a language's input embedding table, read from its file: no other weight is loaded."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import safe_open
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedTokenizerBase

from sailvit.core.errors import ModelError
from sailvit.core.recipe import ModelConfig
from sailvit.models.guards.checkpoint_files import refuse_damaged, refuse_quantised
from sailvit.models.guards.errors import Loading
from sailvit.models.languages.text_model import text_config
from sailvit.models.loading.parts import hub_options, load_tokenizer, resolve_source
from sailvit.models.loading.vision_weights import Files

_SPAN = 2048
"""Rows of the file read at once, wanted or not: 16 MB in bf16 of a table that is 4096 wide."""


class EmbeddingTable:
    """Rows float32[M, D] of a table in a file, those of tokens that are words.

    Rows behind the tokenizer's last token exist for speed and were never trained; those of
    special tokens stand for no word.
    """

    def __init__(self, file: str, name: str, words: NDArray[np.int64]) -> None:
        self._file, self._name, self._words = file, name, words
        with safe_open(file, "pt") as held:
            self._shape = tuple(held.get_slice(name).get_shape())

    @property
    def width(self) -> int:
        """D: numbers per row."""
        return int(self._shape[1])

    def __len__(self) -> int:
        return len(self._words)

    def read(self, start: int, stop: int) -> NDArray[np.float32]:
        """The rows of words start to stop, float32[n, D]."""
        return self.take(self._words[start:stop])

    def take(self, tokens: NDArray[np.int64]) -> NDArray[np.float32]:
        """float32[n, D]: the rows of tokens, in ascending order."""
        found = np.zeros((len(tokens), self.width), dtype=np.float32)
        with safe_open(self._file, "pt") as held:
            table = held.get_slice(self._name)
            for first in np.unique(tokens // _SPAN) * _SPAN:
                inside = (tokens >= first) & (tokens < first + _SPAN)
                span = table[int(first) : min(int(first) + _SPAN, self._shape[0])]
                rows = span[torch.from_numpy(tokens[inside] - first)]
                found[inside] = rows.to(torch.float32).numpy()
        return found


def words_of(tokenizer: PreTrainedTokenizerBase, rows: int) -> NDArray[np.int64]:
    """int64[M]: ids of the tokens that are not special and have one of so many rows."""
    ids = np.array(sorted(tokenizer.get_vocab().values()), dtype=np.int64)
    return ids[(ids < rows) & ~np.isin(ids, tokenizer.all_special_ids)]


def open_table(
    language: str, *, trust_remote_code: bool = False
) -> tuple[EmbeddingTable, PreTrainedTokenizerBase]:
    """The embedding table and the tokenizer of a language in a folder or of a hub id.

    Raises:
        ModelError: there is no language, or its table is not in its files under a name of its
            model.
    """
    config = ModelConfig(tower="-", language=language, trust_remote_code=trust_remote_code)
    source, options = resolve_source(language), hub_options(config, "language")
    refuse_damaged("language", source)
    with Loading("language", source):
        whole = AutoConfig.from_pretrained(source, **options)
        refuse_quantised("language", whole.to_dict(), source)
        with torch.device("meta"):
            model = AutoModelForCausalLM.from_config(
                text_config(whole, source), trust_remote_code=trust_remote_code
            )
        files = Files(source, None)
    weight = model.get_input_embeddings().weight
    name = next(name for name, held in model.named_parameters() if held is weight)
    key = _key(name, tuple(weight.shape), files, language)
    tokenizer = load_tokenizer(source, options)
    return EmbeddingTable(files.path_of(key), key, words_of(tokenizer, len(weight))), tokenizer


def _key(name: str, shape: tuple[int, ...], files: Files, language: str) -> str:
    """The checkpoint's name of the model's parameter: prefixes differ between a model, its base
    model and a multimodal one that holds it.
    """
    for count in (name.count(".") + 1, 2):
        ending = ".".join(name.split(".")[-count:])
        fitting = [each for each in _ending(files.names, ending) if files.shape(each) == shape]
        if len(fitting) == 1:
            return fitting[0]
    raise ModelError(
        f"the files of {language} hold no tensor of the input embeddings ({name}, {list(shape)});"
        " save the language with save_pretrained, and name that folder"
    )


def _ending(names: Collection[str], ending: str) -> list[str]:
    return [each for each in names if each == ending or each.endswith(f".{ending}")]


class WordRows(Protocol):
    """Embeddings that are found by token."""

    @property
    def width(self) -> int:
        """D: numbers per row."""

    def take(self, tokens: NDArray[np.int64]) -> NDArray[np.float32]:
        """float32[n, D]: the rows of tokens, in ascending order."""


def embed_texts(table: WordRows, tokenizer: Any, texts: list[str]) -> NDArray[np.float32]:
    """float32[N, D]: the mean embedding of each text's tokens; zeros for a text without any."""
    coded = tokenizer(texts, add_special_tokens=False)["input_ids"]
    used = np.unique(np.concatenate([np.array(ids, dtype=np.int64) for ids in [[], *coded]]))
    rows = table.take(used)
    means = np.zeros((len(texts), table.width), dtype=np.float32)
    for place, ids in enumerate(coded):
        if ids:
            means[place] = rows[np.searchsorted(used, ids)].mean(axis=0)
    return means
