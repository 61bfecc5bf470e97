"""How much of a data set's text repeats the same n-grams, counted in bounded memory."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sailvit.dataprep.curate.sketches import CountMin, Counts, KindSample
from sailvit.dataprep.records.words import Hashes, ngrams, words

_NAMED = 256
"""N-grams of a chunk, the most frequent ones, whose words are kept beside their hashes."""
_CANDIDATES = 1024
"""Candidates for the most frequent n-grams of all chunks."""


@dataclass(frozen=True)
class NgramChunk:
    """The n-grams of some texts; each counts once per text, so that one text cannot make it
    frequent.
    """

    texts: int
    """Texts counted."""
    hashes: Hashes
    """uint64[n]: the different n-grams."""
    counts: Counts
    """int64[n]: texts that hold each."""
    names: dict[int, str]
    """Words of the most frequent ones, by hash."""


def count_ngrams(texts: Iterable[str], n: int) -> NgramChunk:
    """The n-grams of `n` words in these texts."""
    split = [words(text) for text in texts]
    found = [np.unique(ngrams(text, n), return_index=True) for text in split]
    owners = np.repeat(np.arange(len(split)), [len(hashes) for hashes, _ in found])
    every = np.concatenate([np.zeros(0, dtype=np.uint64), *(hashes for hashes, _ in found)])
    starts = np.concatenate([np.zeros(0, dtype=np.int64), *(places for _, places in found)])
    hashes, first, counts = np.unique(every, return_index=True, return_counts=True)
    names = {}
    # Equal counts go by hash, so that the names never depend on the order of the texts.
    for place in np.lexsort((hashes, -counts))[:_NAMED]:
        start = int(starts[first[place]])
        names[int(hashes[place])] = " ".join(split[owners[first[place]]][start : start + n])
    return NgramChunk(len(split), hashes, counts, names)


class NgramCounts:
    """How many texts have each n-gram, in 17 MB however much is added.

    Add chunks in the order of their positions: then the counts do not depend on the number of
    workers.
    """

    def __init__(self, n: int, *, width: int = 1 << 20) -> None:
        self.n = n
        self.texts = 0
        """Texts counted."""
        self.total = 0
        """N-grams counted, once per text."""
        self._sketch = CountMin(width)
        self._sample = KindSample()
        self._names: dict[int, str] = {}

    def add(self, chunk: NgramChunk) -> None:
        """Count a chunk."""
        self.texts += chunk.texts
        self.total += int(chunk.counts.sum())
        self._sketch.add(chunk.hashes, chunk.counts)
        self._sample.add(chunk.hashes, chunk.counts)
        self._names.update(chunk.names)
        # Twice as many as are wanted may gather, so that sorting them is rare.
        if len(self._names) > 2 * _CANDIDATES:
            self._names = {key: self._names[key] for key, _ in self._heaviest(_CANDIDATES)}

    def shares(self, hashes: Hashes) -> NDArray[np.float64]:
        """Share of the texts that have each n-gram: float64[n] for hashes uint64[n]."""
        # The sketch may count too high, and a share above 1 has no odds.
        return np.minimum(self._sketch.estimate(hashes) / max(self.texts, 1), 1.0)

    def count(self, key: int) -> int:
        """Texts that have the n-gram of this hash."""
        return int(self._sketch.estimate(np.array([key], dtype=np.uint64))[0])

    def top(self, most: int) -> list[tuple[int, str, int]]:
        """Hash, words and number of texts of the most frequent n-grams."""
        return [(key, self._names[key], count) for key, count in self._heaviest(most)]

    def summary(self, most: int = 20) -> dict[str, Any]:
        """All figures as JSON values."""
        heavy = [count for _, count in self._heaviest(100)]
        total = max(self.total, 1)
        return {
            "n": self.n,
            "texts": self.texts,
            "total": self.total,
            "distinct": round(self._sample.kinds),
            "distinct_share": self._sample.kinds / total,
            "entropy": self._entropy(),
            # The sketch may count too high, and no share is more than all.
            "top10_share": min(1.0, sum(heavy[:10]) / total),
            "top100_share": min(1.0, sum(heavy) / total),
            "top": [
                {"words": name, "texts": count, "share": count / self.texts}
                for _, name, count in self.top(most)
            ],
        }

    def _heaviest(self, most: int) -> list[tuple[int, int]]:
        """Hash and count of candidates, the most frequent first."""
        keys = np.array(sorted(self._names), dtype=np.uint64)
        counts = self._sketch.estimate(keys)
        order = np.lexsort((keys, -counts))[:most]
        return list(zip(keys[order].tolist(), counts[order].tolist(), strict=True))

    def _entropy(self) -> float:
        """Entropy in bits per n-gram: frequent n-grams are counted by the sketch, the others by
        the sample, which counts all while it holds every kind.
        """
        if not self.total:
            return 0.0
        # H = log2 N - (sum of c log2 c) / N for N n-grams, each of which occurs c times. A few
        # frequent ones make up most of that sum, and a random sample would miss them.
        sample = self._sample
        heavy = {} if sample.whole else dict(self._heaviest(_CANDIDATES))
        light = sample.counts[~np.isin(sample.hashes, np.array(list(heavy), dtype=np.uint64))]
        known = np.array(list(heavy.values()), dtype=np.float64)
        each = float(np.sum(light * np.log2(light)) / np.sum(light)) if len(light) else 0.0
        weighted = (
            float(np.sum(known * np.log2(known))) + max(0.0, self.total - float(known.sum())) * each
        )
        return float(np.log2(self.total) - weighted / self.total)
