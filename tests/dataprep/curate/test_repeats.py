"""Copies: found where they are, and not where they are not."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from planted import PHOTOGRAPHS, jpeg, photograph

from sailvit.data.processing.images import load_image
from sailvit.dataprep.curate.repeats import ROW, Repeats, _masks, repeated_records, rows_of
from sailvit.dataprep.records.hashes import content_hash, picture_hash

LOW = 2**64 - 1


def halves(value: int) -> tuple[int, int]:
    return value >> 64, value & LOW


def differing(one: tuple[int, int], other: tuple[int, int]) -> int:
    return sum((a ^ b).bit_count() for a, b in zip(one, other, strict=True))


@pytest.fixture(scope="module")
def photographs() -> dict[str, np.ndarray]:
    return {name: photograph(name) for name in PHOTOGRAPHS}


def test_scaled_and_recompressed_photographs_are_near_and_others_are_far(photographs):
    hashes = {name: picture_hash(pixels) for name, pixels in photographs.items()}
    for name, pixels in photographs.items():
        for scale, quality in ((1, 50), (0.5, 80), (0.3, 90), (1.5, 70)):
            copy = picture_hash(load_image(jpeg(pixels, quality=quality, scale=scale)))
            assert differing(copy, hashes[name]) <= 6, (name, scale, quality)
    names = list(hashes)
    apart = [differing(hashes[a], hashes[b]) for i, a in enumerate(names) for b in names[:i]]
    assert min(apart) >= 30


def test_a_picture_of_one_colour_has_no_hash():
    assert picture_hash(np.full((50, 40, 3), 200, np.uint8)) is None


def test_where_a_part_ends_matters():
    assert content_hash(b"ab", b"c") != content_hash(b"a", b"bc")


@pytest.mark.parametrize("distance", [0, 1, 6, 16])
def test_hashes_within_the_distance_always_share_a_pair_of_bands(distance: int):
    masks = [(high << 64) | low for high, low in _masks(distance)]
    chooser = np.random.default_rng(distance)
    for _ in range(300):
        flipped = sum(1 << int(bit) for bit in chooser.choice(128, distance, replace=False))
        assert any(not flipped & mask for mask in masks)


def found(
    hashes: list[tuple[int, tuple[int, int]]], tmp_path, distance: int, most: int, order=None
) -> list:
    totals = {position: sum(p == position for p, _ in hashes) for position, _ in hashes}
    repeats = Repeats(tmp_path, distance=distance, most=most)
    for index in order if order is not None else range(len(hashes)):
        position, (high, low) = hashes[index]
        repeats.add(np.array([(high, low, position, totals[position])], dtype=ROW))
    return repeats.find().tolist()


def expected(hashes: list[tuple[int, tuple[int, int]]], distance: int) -> list:
    """The rule, compared pair by pair: a hash repeats the first hash near to it that repeats none itself."""
    totals = {position: sum(p == position for p, _ in hashes) for position, _ in hashes}
    leaders: list[tuple[int, tuple[int, int]]] = []
    repeated = []
    for position, value in sorted(hashes):
        near = [
            first
            for first, other in leaders
            if first < position and differing(value, other) <= distance
        ]
        if near:
            repeated.append((position, min(near), totals[position]))
        else:
            leaders.append((position, value))
    return sorted(repeated)


@given(st.integers(0, 2**32), st.integers(0, 8), st.booleans())
@settings(max_examples=25, deadline=None)
def test_copies_are_those_of_comparing_all_pairs(
    tmp_path_factory, seed: int, distance: int, spilled: bool
):
    chooser = np.random.default_rng(seed)
    bases = [int.from_bytes(chooser.bytes(16), "big") for _ in range(4)]
    hashes = []
    for position in range(40):
        flips = sum(
            1 << int(bit) for bit in chooser.choice(128, int(chooser.integers(0, 7)), replace=False)
        )
        hashes.append((position, halves(bases[int(chooser.integers(4))] ^ flips)))
    most = 8 if spilled else 1 << 20
    result = found(hashes, tmp_path_factory.mktemp("r"), distance, most, chooser.permutation(40))
    assert result == expected(hashes, distance)


def test_files_and_memory_give_the_same(tmp_path):
    chooser = np.random.default_rng(3)
    hashes = [(p, (int(chooser.integers(50)) << 40, int(chooser.integers(4)))) for p in range(600)]
    in_memory = found(hashes, tmp_path / "a", 0, 1 << 20)
    assert found(hashes, tmp_path / "b", 0, 50) == in_memory
    assert list((tmp_path / "b").rglob("*"))
    assert not (tmp_path / "a").exists()
    assert len(in_memory) == 600 - len({value for _, value in hashes})


def test_a_record_is_a_copy_when_all_its_hashes_are(tmp_path):
    a, b, c = (1, 1), (2, 2), (3, 3)
    repeats = Repeats(tmp_path)
    for position, hashes in enumerate([[a, b], [a], [a, c], [b, a], [c, c], []]):
        repeats.add(rows_of(position, hashes))
    assert list(repeated_records(repeats.find())) == [(1, 0), (3, 0), (4, 2)]


def test_an_image_twice_in_one_record_is_no_copy(tmp_path):
    repeats = Repeats(tmp_path, distance=6)
    repeats.add(rows_of(0, [(7, 7), (7, 7), (7, 6)]))
    assert list(repeated_records(repeats.find())) == []


def test_very_many_hashes_that_share_bits_are_compared_with_their_neighbours_only(tmp_path):
    repeats = Repeats(tmp_path, distance=2)
    repeats.add(np.array([(0, low << 8, low, 1) for low in range(3000)], dtype=ROW))
    assert 0 < len(repeats.find()) < 3000
