"""Words, n-grams and languages."""

from __future__ import annotations

import numpy as np
import pytest

from sailvit.core.errors import DataError
from sailvit.dataprep.curate.filters import languages
from sailvit.dataprep.curate.filters.languages import language
from sailvit.dataprep.curate.filters.text_filters import Language
from sailvit.dataprep.records.words import ngrams, rehash, words


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("A red Cat, on the mat.", ["a", "red", "cat", "on", "the", "mat"]),
        ("红色的猫 cat", ["红", "色", "的", "猫", "cat"]),
        ("don't 3.5", ["don", "t", "3", "5"]),
        ("  \n", []),
        ("Straße \ud800 x", ["strasse", "x"]),
    ],
)
def test_words(text: str, expected: list[str]):
    assert words(text) == expected


def test_ngrams_are_equal_exactly_for_equal_words_in_equal_order():
    found = ngrams(list("abcabcba"), 3)
    assert len(found) == 6
    assert found[0] == found[3]
    assert len(set(found.tolist())) == 5
    assert ngrams(["c", "a", "b"], 3)[0] == found[2]


def test_texts_shorter_than_an_ngram_have_none():
    assert ngrams(["a", "b"], 3).shape == (0,)


def test_stirring_is_one_to_one_and_moves_half_of_the_bits():
    values = np.arange(2000, dtype=np.uint64)
    rehashed = rehash(values)
    assert len(np.unique(rehashed)) == 2000
    assert np.bitwise_count(rehashed[1:] ^ rehashed[:-1]).mean() == pytest.approx(32, abs=0.5)


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("A red circle stands left of the blue square in the garden.", "en"),
        ("Ein roter Kreis liegt links von einem blauen Quadrat im Garten.", "de"),
        ("一只猫坐在桌子上", "zh"),
        ("STOP", "short"),
        ("12345 67890 !!!", "short"),
    ],
)
def test_languages(text: str, code: str):
    pytest.importorskip("py3langid")
    assert language(text) == code


def test_without_a_recognizer_scripts_are_told_and_named_as_such(monkeypatch):
    monkeypatch.setattr(languages, "find_spec", lambda name: None)
    assert language("A red circle stands here") == "script:latin"
    assert language("Красный круг стоит слева") == "script:cyrillic"
    assert language("一只猫坐在") == "script:cjk"
    Language(keep=["script:latin"]).check()
    with pytest.raises(DataError, match=r"sailvit\[curate\]"):
        Language(keep=["en", "script:latin"]).check()
