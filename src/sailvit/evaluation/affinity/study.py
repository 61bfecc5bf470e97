"""Everything that is measured of one tower beside languages, and the file that holds it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sailvit.core.errors import DataError, ModelError, one_line
from sailvit.evaluation.affinity.features import (
    Floats,
    Seen,
    TokenEmbeddings,
    model_features,
    patch_features,
)
from sailvit.evaluation.affinity.integration import integration_rate
from sailvit.evaluation.affinity.joint import joint_distances
from sailvit.evaluation.affinity.law import KeyPoints, alignment_score, correspondence_score
from sailvit.evaluation.affinity.paired import FEWEST, PAIRINGS, retrieval
from sailvit.evaluation.affinity.pictures import Picture, Pictures
from sailvit.evaluation.affinity.published import published_affinity
from sailvit.evaluation.affinity.spair import (
    PicturePair,
    annotated_pairs,
    cropped_pairs,
    read_pair,
)
from sailvit.models.loading.build import ModelBundle
from sailvit.models.loading.embedding_table import EmbeddingTable, embed_texts
from sailvit.models.measures.affinity import joint_affinity
from sailvit.models.measures.rows import ArrayRows
from sailvit.models.towers.tower import Tower

MARK: Mapping[str, Any] = {"affinity": None, "seed": None, "left_out": None}
"""Keys at the beginning of our file, by which it is known."""
_NAMED = 20
"""Most pictures that are named as left out."""


@dataclass(frozen=True)
class Sizes:
    """How much is measured on."""

    published: int = 5
    """Pictures of the published protocol."""
    pictures: int = 64
    """Pictures of the measures behind the connector, of correspondence and of drift."""
    pairs: int = 256
    """Pictures with captions."""
    integration: int = 32
    """Pictures with captions that the language reads for its integration rate."""
    spair: int | None = 500
    """Pairs of SPair-71k; None: all."""


@dataclass(frozen=True)
class Language:
    """A language by its embedding table."""

    label: str
    """Its name in tables."""
    table: EmbeddingTable
    """The rows of its words."""
    tokenizer: Any
    """Its tokenizer."""


Step = Callable[[str], None]
"""Is told what begins."""


@dataclass
class Study:
    """What was measured so far, as it stands in affinity.json."""

    pictures: Pictures
    """Where pictures come from."""
    sizes: Sizes
    """How much is measured on."""
    seed: int = 0
    """Seed of every choice."""
    step: Step = lambda what: None
    """Is told what begins."""
    values: dict[str, list[dict[str, Any]]] = field(
        default_factory=lambda: {
            name: []
            for name in ("published", "paired", "joint", "correspondence", "drift", "left_out")
        }
    )
    """Entries by section."""

    def left_out(self, what: str, why: object) -> None:
        """Note what could not be measured."""
        entry = {"what": what, "why": one_line(why)}
        # Every tower asks for pairs, and the same reason would stand there once per tower.
        if entry not in self.values["left_out"]:
            self.values["left_out"].append(entry)

    def few(self) -> list[Picture]:
        """The pictures of the published protocol."""
        return self.pictures.draw(self.sizes.published)

    def some(self) -> list[Picture]:
        """Those of the other measures; the same ones come first."""
        return self.pictures.draw(self.sizes.pictures)

    def pairs(self) -> list[Picture]:
        """Pictures with captions; none where there are too few."""
        if not self.pictures.captioned:
            self.left_out(
                "measures with captions", f"{self.pictures.path} has pictures without captions"
            )
            return []
        found = self.pictures.draw(self.sizes.pairs)
        if len(found) < FEWEST:
            self.left_out(
                "measures with captions", f"{len(found)} pairs; expected {FEWEST} or more"
            )
            return []
        return found

    def tower(self, label: str, tower: Tower, languages: Sequence[Language]) -> None:
        """Measure a tower by itself beside each language."""
        self.step(f"{label}: patches")
        images = patch_features(tower, [each.pixels for each in self.few()])
        pairs = self.pairs()
        pooled = _pooled(tower, pairs)
        for language in languages:
            names = {"tower": label, "language": language.label}
            self.step(f"{label}: beside {language.label}")
            found = published_affinity(images, language.table, seed=self.seed)
            self.values["published"].append({**names, **found.to_json()})
            if pairs:
                captions = [each.caption or "" for each in pairs]
                texts = embed_texts(language.table, language.tokenizer, captions)
                self._add_paired(names, pooled, texts)

    def model(
        self, label: str, bundle: ModelBundle, language: str, reference: Sequence[Floats] | None
    ) -> list[Floats]:
        """Measure a whole model behind its connector, where its own language reads; its visual
        tokens float32[V, D] per picture are given back.

        `reference` are those of the reference of the alignment score.
        """
        self.step(f"{label}: behind the connector")
        pairs = self.pairs()
        text, tokens = TokenEmbeddings(bundle), self.tokens(bundle)
        entry: dict[str, Any] = {
            "tower": label,
            "language": language,
            "plane": joint_affinity(
                ArrayRows(np.concatenate(tokens)), text, seed=self.seed
            ).to_json(),
            "distances": _plain(joint_distances(tokens, text, seed=self.seed)),
            "retrieval": {},
            "integration": None,
            "alignment": None,
        }
        if pairs:
            entry |= self._read(label, bundle, pairs, text)
        if reference is not None:
            try:
                score = alignment_score(tokens, reference, seed=self.seed)
                entry["alignment"] = asdict(score)
            except DataError as error:
                self.left_out(f"alignment score of {label}", error)
        self.values["joint"].append(entry)
        return tokens

    def tokens(self, bundle: ModelBundle) -> list[Floats]:
        """Visual tokens float32[V, D] of each picture, behind a model's connector."""
        return [model_features(bundle, each, layers=False).tokens for each in self.some()]

    def correspondence(self, label: str, tower: Tower, spair: Path | None) -> None:
        """Measure whether patches find their place in another picture."""
        self.step(f"{label}: correspondence")
        grid = (tower.side, tower.side)
        if spair is None:
            shown = cropped_pairs(self.some(), grid, seed=self.seed)
        else:
            files = annotated_pairs(spair, seed=self.seed, count=self.sizes.spair)
            shown = (read_pair(spair, file) for file in files)
        score = correspondence_score(_triples(tower, shown), grid, seed=self.seed)
        self.values["correspondence"].append(
            {
                "tower": label,
                "set": "crops" if spair is None else "spair-71k",
                "score": asdict(score),
            }
        )

    def to_json(self) -> dict[str, Any]:
        """The value of affinity.json."""
        sections = {name: each for name, each in self.values.items() if name != "left_out"}
        skipped = list(self.pictures.skipped.items())
        return {
            "affinity": 1,
            "seed": self.seed,
            "left_out": self.values["left_out"],
            "images": {
                "path": str(self.pictures.path),
                "published": [each.name for each in self.few()],
                "skipped": len(skipped),
                "reasons": dict(skipped[:_NAMED]),
            },
            **sections,
        }

    def _read(
        self, label: str, bundle: ModelBundle, pairs: Sequence[Picture], text: TokenEmbeddings
    ) -> dict[str, Any]:
        """Caption retrieval in the common space, and the integration rate."""
        self.step(f"{label}: captions")
        means, read = [], []
        wanted = self.sizes.integration
        for at, each in enumerate(pairs):
            try:
                # Hidden states of all layers are large, so only the first pictures keep theirs.
                seen = model_features(bundle, each, layers=at < wanted)
            except ModelError as error:
                self.left_out(f"integration rate of {label}", error)
                # A language without hidden states has none for the next picture either; tokens are
                # still there.
                wanted = 0
                seen = model_features(bundle, each, layers=False)
            means.append(seen.tokens.mean(axis=0))
            if seen.visual:
                read.append(seen)
        words = embed_texts(text, bundle.tokenizer, [each.caption or "" for each in pairs])
        found = retrieval(np.stack(means), words, seed=self.seed)
        return {"retrieval": _plain(found), "integration": self._integration(read)}

    def _integration(self, read: Sequence[Seen]) -> dict[str, Any] | None:
        """The integration rate and the distance in each layer; None where nothing was read."""
        if not read:
            return None
        sides = ([each.visual for each in read], [each.text for each in read])
        rate = integration_rate(*sides, seed=self.seed)
        return {"rate": asdict(rate.rate), "layers": rate.layers}

    def _add_paired(self, names: dict[str, str], pooled: Floats, texts: Floats) -> None:
        measures = {name: made(pooled, texts, seed=self.seed) for name, made in PAIRINGS.items()}
        entry = {**names, "pairs": len(texts), "measures": _plain(measures)}
        self.values["paired"].append(entry)


def _triples(
    tower: Tower, pairs: Iterable[PicturePair]
) -> Iterator[tuple[Floats, Floats, KeyPoints]]:
    """Patch features of pairs, one pair at a time: those of one take 8 MB."""
    for one, other, points in pairs:
        source, target = patch_features(tower, [one, other])
        yield source, target, points


def _pooled(tower: Tower, pictures: Sequence[Picture]) -> NDArray[np.float32]:
    """float32[N, D]: the mean patch of each picture, one at a time."""
    rows = [patch_features(tower, [each.pixels])[0].mean(axis=0) for each in pictures]
    return np.stack(rows) if rows else np.zeros((0, tower.width), dtype=np.float32)


def _plain(measures: Mapping[str, Any]) -> dict[str, Any]:
    return {name: asdict(each) for name, each in measures.items()}
