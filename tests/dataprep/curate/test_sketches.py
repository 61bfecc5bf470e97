"""Counting in fixed memory."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from planted import sentences

from sailvit.dataprep.curate.concentration import NgramCounts, count_ngrams
from sailvit.dataprep.curate.sketches import CountMin, KindSample
from sailvit.dataprep.records.words import ngrams, rehash, words


def kinds(count: int) -> np.ndarray:
    return rehash(np.arange(count, dtype=np.uint64))


def test_counts_are_never_too_low_and_within_the_bound():
    sketch, hashes = CountMin(1 << 12), kinds(50_000)
    counts = np.random.default_rng(0).zipf(1.5, 50_000).clip(max=10_000).astype(np.int64)
    sketch.add(hashes, counts)
    over = sketch.estimate(hashes) - counts
    assert over.min() >= 0
    assert (over > np.e / (1 << 12) * counts.sum()).mean() < np.exp(-4)


def test_memory_does_not_grow():
    sketch, before = CountMin(1 << 10), CountMin(1 << 10).nbytes
    for start in range(20):
        hashes = rehash(np.arange(start * 5000, start * 5000 + 5000, dtype=np.uint64))
        sketch.add(hashes, np.ones(5000, dtype=np.int64))
    assert sketch.nbytes == before == 4 * 4 * 1024


def test_the_width_is_a_power_of_two():
    with pytest.raises(ValueError, match="power of two"):
        CountMin(1000)


def test_a_sample_of_kinds_counts_exactly_whatever_the_order():
    hashes = kinds(20_000)
    counts = np.random.default_rng(1).integers(1, 9, 20_000)
    samples = []
    for seed in (0, 1):
        sample = KindSample(500)
        order = np.random.default_rng(seed).permutation(np.repeat(np.arange(20_000), counts))
        for block in np.array_split(order, 37):
            found, times = np.unique(hashes[block], return_counts=True)
            sample.add(found, times)
        samples.append(sample)
    lowest = np.argsort(hashes)[:500]
    for sample in samples:
        assert np.array_equal(sample.hashes, hashes[lowest])
        assert np.array_equal(sample.counts, counts[lowest])
        assert sample.kinds == pytest.approx(20_000, rel=3 / np.sqrt(500))
        assert len(sample.hashes) == 500


@given(st.lists(st.integers(0, 60), max_size=300), st.integers(1, 7))
@settings(max_examples=30, deadline=None)
def test_a_sample_that_holds_all_kinds_is_exact(values: list[int], blocks: int):
    sample = KindSample(100)
    for block in np.array_split(np.array(values, dtype=np.uint64), blocks):
        found, counts = np.unique(rehash(block), return_counts=True)
        sample.add(found, counts)
    assert sample.whole
    assert sample.kinds == len(set(values))
    assert sample.counts.sum() == len(values)


def counted(texts: list[str], chunk: int, n: int = 3, **settings: int) -> NgramCounts:
    counts = NgramCounts(n, **settings)
    for start in range(0, len(texts), chunk):
        counts.add(count_ngrams(texts[start : start + chunk], n))
    return counts


def exact(texts: list[str], n: int) -> tuple[dict[int, int], float]:
    """Texts per n-gram, and the entropy."""
    found: dict[int, int] = {}
    for text in texts:
        for key in set(ngrams(words(text), n).tolist()):
            found[key] = found.get(key, 0) + 1
    shares = np.array(list(found.values())) / sum(found.values())
    return found, float(-(shares * np.log2(shares)).sum())


def test_figures_agree_with_counting_everything():
    texts = sentences(400) + ["the image shows a cat"] * 100
    found, entropy = exact(texts, 3)
    summary = counted(texts, 64).summary()
    assert summary["texts"] == 500
    assert summary["total"] == sum(found.values())
    assert summary["distinct"] == len(found)
    assert summary["entropy"] == pytest.approx(entropy, abs=1e-9)
    highest = sorted(found.values(), reverse=True)
    assert summary["top10_share"] == pytest.approx(sum(highest[:10]) / sum(highest), abs=1e-12)
    assert {row["words"] for row in summary["top"][:3]} == {
        "the image shows",
        "image shows a",
        "shows a cat",
    }
    assert summary["top"][0]["share"] == 0.2


def test_figures_stay_close_when_not_all_kinds_fit(monkeypatch):
    texts = sentences(3000) + ["the image shows a cat"] * 300
    found, entropy = exact(texts, 3)
    monkeypatch.setattr(KindSample.__init__, "__defaults__", (1000,))
    summary = counted(texts, 256).summary()
    assert len(found) > 5000
    assert summary["distinct"] == pytest.approx(len(found), rel=0.1)
    assert summary["entropy"] == pytest.approx(entropy, abs=0.15)


def test_an_ngram_counts_once_per_text():
    counts = counted(["a b c a b c a b c", "x y z"], 10)
    assert counts.shares(ngrams(["a", "b", "c"], 3)).tolist() == [0.5]


def test_no_text_at_all():
    summary = counted(["", "one"], 10).summary()
    assert (summary["total"], summary["entropy"], summary["top"]) == (0, 0.0, [])
