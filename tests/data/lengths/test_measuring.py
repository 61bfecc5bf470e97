"""Counts: equal to what a sample then takes, whatever the number of processes, and measured once."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from small_tokenizers import SPACED, byte_tokenizer, layout_for

from sailvit.core.errors import DataError
from sailvit.core.records import IMAGE_MARK, Record, Turn
from sailvit.data.lengths import measuring
from sailvit.data.lengths.fingerprints import layout_fingerprint, tokenizer_fingerprint
from sailvit.data.lengths.measuring import measure, measure_all
from sailvit.data.processing.processor import Processor


@dataclasses.dataclass
class Listed:
    """Records whose length and images depend on their position; every seventh cannot be read."""

    size: int
    fingerprint: str = "listed"
    reads: int = 0

    def __len__(self) -> int:
        return self.size

    def __getitem__(self, position: int) -> Record:
        self.reads += 1
        if position % 7 == 6:
            raise DataError("damaged")
        images = tuple(
            np.zeros((8, 8 * (1 + position % 3), 3), np.uint8) for _ in range(position % 2)
        )
        asked = Turn("user", IMAGE_MARK * len(images) + "what colour")
        return Record(
            str(position), (asked, Turn("assistant", "red " * (1 + position % 5))), images
        )


@pytest.fixture(scope="module")
def processor(chatml) -> Processor:
    return Processor(chatml, layout_for(chatml, max_tiles=4), 64)


def expected(source: Listed, processor: Processor) -> np.ndarray:
    whole = Processor(processor.tokenizer, processor.layout, 10_000)
    rows = []
    for position in range(len(source)):
        try:
            sample = whole("x", source[position])
            rows.append((len(sample.tokens), len(sample.tiles)))
        except DataError:
            rows.append((0, 0))
    return np.array(rows).T


def test_counts_are_those_of_the_uncut_sample(processor):
    table = measure("x", Listed(50), processor)
    tokens, tiles = table.at(np.arange(50))
    assert np.array_equal([tokens, tiles], expected(Listed(50), processor))
    assert tiles.max() > 1
    assert tokens[6] == 0
    assert len(table) == 50
    assert table.shards == (50,)


def test_a_record_longer_than_the_pack_has_its_full_cost(chatml, layout):
    tight = Processor(chatml, layout, 8)
    assert measure("x", Listed(5), tight).tokens.min() > 8


def test_text_that_is_none_costs_nothing(processor):
    class Broken(Listed):
        def __getitem__(self, position: int) -> Record:
            return Record("a", (Turn("user", "\ud800"), Turn("assistant", "b")))

    assert measure("x", Broken(1), processor).tokens.tolist() == [0]


def test_processes_count_the_same(processor, tmp_path, monkeypatch):
    monkeypatch.setattr(measuring, "_SMALL", 10)
    monkeypatch.setattr(measuring, "_CHUNK", 13)
    told = []
    alone = measure("x", Listed(100), processor)
    many = measure(
        "x",
        Listed(100),
        processor,
        workers=2,
        cache=tmp_path,
        progress=lambda *now: told.append(now),
    )
    assert np.array_equal(alone.tokens, many.tokens)
    assert np.array_equal(alone.tiles, many.tiles)
    assert told[0] == ("x", 13, 100)
    assert told[-1] == ("x", 100, 100)


def test_counts_are_kept_and_mapped(processor, tmp_path):
    first = measure("x", Listed(20), processor, cache=tmp_path)
    again = Listed(20)
    second = measure("another name", again, processor, cache=tmp_path)
    assert again.reads == 2, "those that could not be read"
    assert np.array_equal(first.tokens, second.tokens)
    assert isinstance(second.tokens.base, np.memmap)
    assert [path.suffix for path in tmp_path.iterdir()] == [".npy"]


def test_other_content_tokenizer_or_layout_is_measured_anew(processor, chatml, tmp_path):
    others = [
        (Listed(20, "changed"), processor),
        (Listed(20), Processor(byte_tokenizer(SPACED), processor.layout, 64)),
        (Listed(20), Processor(chatml, dataclasses.replace(processor.layout, max_tiles=1), 64)),
    ]
    measure("x", Listed(20), processor, cache=tmp_path)
    for source, other in others:
        measure("x", source, other, cache=tmp_path)
        assert source.reads == 20


def test_the_length_of_packs_does_not_matter(processor, chatml, tmp_path):
    measure("x", Listed(20), processor, cache=tmp_path)
    again = Listed(20)
    measure("x", again, Processor(chatml, processor.layout, 1024), cache=tmp_path)
    assert again.reads == 2, "those that could not be read"


@pytest.mark.parametrize("damage", [b"", b"not an array", None])
def test_damaged_counts_are_measured_anew(damage, processor, tmp_path):
    measure("x", Listed(20), processor, cache=tmp_path)
    (file,) = tmp_path.iterdir()
    file.write_bytes(file.read_bytes()[:-7] if damage is None else damage)
    again = Listed(20)
    measure("x", again, processor, cache=tmp_path)
    assert again.reads == 20


def test_pickled_counts_are_never_loaded(processor, tmp_path):
    measure("x", Listed(20), processor, cache=tmp_path)
    (file,) = tmp_path.iterdir()
    np.save(file, np.array([[{}] * 20] * 2, dtype=object), allow_pickle=True)
    again = Listed(20)
    measure("x", again, processor, cache=tmp_path)
    assert again.reads == 20


def test_a_folder_that_cannot_be_written_is_named(processor, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match=r"SAILVIT_CACHE"):
        measure("x", Listed(3), processor, cache=tmp_path / "file" / "below")


def test_an_empty_source_has_no_costs(processor, tmp_path):
    assert len(measure("x", Listed(0), processor, cache=tmp_path)) == 0


def test_shards_of_the_source_are_kept(processor):
    source = Listed(20)
    source.shards = (15, 5)
    assert measure("x", source, processor).shards == (15, 5)


def test_all_sources_are_measured_into_the_cache_folder(processor, tmp_path, monkeypatch):
    monkeypatch.setenv("SAILVIT_CACHE", str(tmp_path))
    found = measure_all({"a": Listed(5), "b": Listed(6, "other")}, processor)
    assert {name: len(costs) for name, costs in found.items()} == {"a": 5, "b": 6}
    assert len(list((tmp_path / "costs").iterdir())) == 2


def test_other_processes_of_a_machine_wait_and_read(processor, tmp_path, monkeypatch):
    measure("x", Listed(5), processor, cache=tmp_path)
    (file,) = tmp_path.iterdir()
    hidden = file.rename(tmp_path / "later")
    looks = []

    def appear(seconds: float) -> None:
        looks.append(seconds)
        hidden.rename(file)

    monkeypatch.setattr(measuring, "world", lambda: 2)
    monkeypatch.setattr(measuring, "local_rank", lambda: 1)
    monkeypatch.setattr(measuring.time, "sleep", appear)
    source = Listed(5)
    measure_all({"x": source}, processor, cache=tmp_path)
    assert source.reads == 0
    assert len(looks) == 1


def test_fingerprints_follow_what_matters(chatml, layout):
    assert tokenizer_fingerprint(chatml) == tokenizer_fingerprint(
        byte_tokenizer(chatml.chat_template)
    )
    assert tokenizer_fingerprint(chatml) != tokenizer_fingerprint(byte_tokenizer(SPACED))
    padded = byte_tokenizer(chatml.chat_template)
    padded.backend_tokenizer.enable_padding()
    assert tokenizer_fingerprint(chatml) == tokenizer_fingerprint(padded)
    extended = byte_tokenizer(chatml.chat_template)
    extended.add_tokens(["zebra"])
    assert tokenizer_fingerprint(chatml) != tokenizer_fingerprint(extended)
    assert layout_fingerprint(layout) != layout_fingerprint(
        dataclasses.replace(layout, tile_size=16)
    )


class Keyed(Listed):
    """The same records, every second of them with a key that is not read."""

    def __getitem__(self, position: int) -> Record:
        record = super().__getitem__(position)
        return dataclasses.replace(record, unread=("score",) * (position % 2 == 0))


def test_keys_that_are_not_read_are_counted_once_and_kept(processor, tmp_path):
    source = Keyed(20)
    first = measure("x", source, processor, cache=tmp_path)
    assert first.unread == {"score": 9}
    reads = source.reads
    assert measure("x", source, processor, cache=tmp_path).unread == {"score": 9}
    assert source.reads == reads + 2, "those that could not be read"
    assert measure("x", source, processor).unread == {"score": 9}
