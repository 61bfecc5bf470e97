"""What a study reads and does not make: data, checkpoints and dates, known by what they hold and
not by where they lie, as files may change under the same settings.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from sailvit.api.study.sources import is_ours
from sailvit.core.errors import DataError, ModelError
from sailvit.core.recipe import ModelConfig, SourceConfig
from sailvit.data.processing.template_source import is_dated, template_source
from sailvit.data.sources import open_source
from sailvit.models.loading.configs import find_tokenizer
from sailvit.models.loading.parts import SHIPPED, resolve_source
from sailvit.training.output.manifest import fingerprint_folder

_BESIDE_WEIGHTS = ("*.json", "*.jinja", "*/*.jinja", "*.model", "vocab.txt", "merges.txt")
"""Files of a checkpoint besides its weights that change what is learnt: tokenizer, chat templates
and the preprocessing of images."""


@dataclass(frozen=True)
class Known:
    """What a training or a measure was planned to read, by fingerprints."""

    sources: Mapping[str, tuple[SourceConfig, str]] = field(default_factory=dict)
    """Sources by name, with their fingerprints."""
    checkpoints: Mapping[str, str] = field(default_factory=dict)
    """Fingerprints of checkpoints by how recipes name them."""

    def refuse_changed(self) -> None:
        """Do nothing while all is as it was planned.

        Raises:
            DataError: the records of a source have changed.
            ModelError: a checkpoint has.
        """
        advice = "start the study again: what depends on it is then trained anew"
        for name, (config, known) in self.sources.items():
            if open_source(name, config, Path()).fingerprint != known:
                raise DataError(
                    f"source {name} has other records than when the study began; {advice}"
                )
        for text, known in self.checkpoints.items():
            if checkpoint_fingerprint(text) != known:
                raise ModelError(f"{text} has other files than when the study began; {advice}")


@dataclass
class Contents:
    """Fingerprints of all that a study reads, each taken once."""

    _sources: dict[str, tuple[str, int]] = field(default_factory=dict)
    """Fingerprint and size of every source, by its settings."""
    _checkpoints: dict[str, str] = field(default_factory=dict)
    """Fingerprints of checkpoints, by how recipes name them."""
    _dated: dict[str, bool] = field(default_factory=dict)
    """Whether a language's chat template writes the date, by how recipes name it."""

    def source(self, name: str, config: SourceConfig) -> tuple[str, int]:
        """Fingerprint and number of records of a source."""
        known = config.model_dump_json()
        if known not in self._sources:
            opened = open_source(name, config, Path())
            self._sources[known] = (opened.fingerprint, len(opened))
        return self._sources[known]

    def checkpoint(self, text: str) -> str:
        """What identifies a checkpoint: its fingerprint, or a hub id itself; one that the study
        makes is identified already.
        """
        if is_ours(text):
            return text
        if text not in self._checkpoints:
            self._checkpoints[text] = checkpoint_fingerprint(text)
        return self._checkpoints[text]

    def known(self, sources: Mapping[str, SourceConfig], checkpoints: Iterable[str] = ()) -> Known:
        """These sources, and these checkpoints that the study does not make, as they are now."""
        foreign = [text for text in checkpoints if not is_ours(text)]
        return Known(
            {name: (config, self.source(name, config)[0]) for name, config in sources.items()},
            {text: self.checkpoint(text) for text in foreign},
        )

    def is_dated(self, model: ModelConfig) -> bool:
        """Whether the language's chat template writes the date; False where its tokenizer is not
        on this machine.
        """
        if model.language not in self._dated:
            tokenizer = find_tokenizer(model)
            found = tokenizer is not None and is_dated(template_source(tokenizer))
            self._dated[model.language] = found
        return self._dated[model.language]


def checkpoint_fingerprint(text: str) -> str:
    """A hash of a folder's weights and of the files beside them that count; a hub id, which its
    revision identifies, is itself.
    """
    weights = fingerprint_folder(text)
    if weights is None or text.startswith(SHIPPED):
        return weights or text
    folder, seen = Path(resolve_source(text)), hashlib.blake2b(digest_size=8)
    seen.update(weights.encode())
    for path in sorted({path for each in _BESIDE_WEIGHTS for path in folder.glob(each)}):
        seen.update(f"{path.relative_to(folder)}\0".encode() + path.read_bytes())
    return seen.hexdigest()
