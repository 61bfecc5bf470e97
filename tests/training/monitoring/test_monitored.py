"""What a run is monitored with: which tiles and texts, and that they come back from the file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from sailvit.core.errors import DataError
from sailvit.core.recipe import Recipe
from sailvit.data.lengths.costs import CostTable
from sailvit.data.lengths.measuring import measure_all
from sailvit.data.processing.processor import Processor
from sailvit.training.monitoring.monitored import PLAIN, MonitoringData, choose, packs
from sailvit.training.trainer import open_sources
from tiny_parts import Parts, mixed_records, samples
from tiny_runs import recipe, stage, write_data


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return write_data(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def processor(parts: Parts) -> Processor:
    bundle = parts.build()
    return Processor(bundle.tokenizer, bundle.layout, 300)


def chosen(made: Recipe, processor: Processor) -> MonitoringData:
    opened = open_sources(made)
    return choose(made, opened, measure_all(opened, processor), processor)


def watching(parts: Parts, sources: dict[str, Any], data: list[str], **watch: Any) -> Recipe:
    return recipe(parts, sources, [stage(data=data)], monitoring=watch)


def test_tiles_and_texts_come_from_the_stages_sources(
    parts: Parts, sources: dict, processor: Processor
):
    found = chosen(watching(parts, sources, ["chat", "text"], tiles=4, texts=7), processor)
    assert found.tiles.shape == (4, 3, 32, 32)
    assert found.tiles.dtype == torch.uint8
    assert len(found.texts) == 7
    assert {text.id.split("/")[0] for text in found.texts} == {"chat", "text"}
    assert not any(len(text.tiles) for text in found.texts)
    assert (found.texts_from, found.base) == ("records", None)


def test_the_same_recipe_chooses_the_same_and_another_seed_others(
    parts: Parts, sources: dict, processor: Processor
):
    made = watching(parts, sources, ["chat", "captions", "text"], tiles=3, texts=3)
    one, again = chosen(made, processor), chosen(made, processor)
    other = chosen(made.model_copy(update={"seed": 77}), processor)
    assert torch.equal(one.tiles, again.tiles)
    assert [text.id for text in one.texts] == [text.id for text in again.texts]
    assert [text.id for text in one.texts] != [text.id for text in other.texts]


def test_a_source_of_its_own_is_held_out(parts: Parts, sources: dict, processor: Processor):
    found = chosen(watching(parts, sources, ["captions"], source="chat"), processor)
    assert 0 < len(found.tiles) <= 9
    assert {text.id.split("/")[0] for text in found.texts} == {"chat"}


def test_without_texts_sentences_are_built_in_and_those_that_do_not_fit_left_out(
    parts: Parts, sources: dict, processor: Processor
):
    made = watching(parts, sources, ["captions"])
    found = chosen(made, processor)
    assert (len(found.texts), found.texts_from) == (len(PLAIN), "built in")
    shortest = Processor(processor.tokenizer, processor.layout, 20)
    assert chosen(made, shortest).texts == ()


def test_without_images_there_are_no_tiles(parts: Parts, sources: dict, processor: Processor):
    found = chosen(watching(parts, sources, ["text"]), processor)
    assert found.tiles.shape == (0, 3, 32, 32)
    assert len(found.texts) == 10


class Damaged:
    """A source of which every second record cannot be read."""

    def __init__(self, records: list) -> None:
        self._records = records

    def __len__(self) -> int:
        return len(self._records)

    def __getitem__(self, position: int):
        if position % 2:
            raise DataError("broken")
        return self._records[position]


def test_records_that_cannot_be_read_are_passed_over(
    parts: Parts, sources: dict, processor: Processor
):
    records = mixed_records() * 3
    costs = CostTable(
        *(
            torch.tensor([value(r) for r in records]).numpy()
            for value in (lambda r: 9, lambda r: len(r.images))
        )
    )
    found = choose(
        watching(parts, sources, ["chat"]), {"x": Damaged(records)}, {"x": costs}, processor
    )
    assert (len(found.tiles), len(found.texts)) == (3, 3)


@pytest.mark.parametrize("base", [None, torch.randn(6, 5)], ids=["without", "with"])
def test_the_file_gives_back_what_was_chosen(
    parts: Parts, tmp_path: Path, base: torch.Tensor | None
):
    made = samples(parts.build(), mixed_records())
    texts = tuple(sample for sample in made if not len(sample.tiles)) * 2
    given = MonitoringData(made[1].tiles, texts, "records", base)
    given.save(tmp_path / "monitoring.safetensors")
    found = MonitoringData.load(tmp_path / "monitoring.safetensors")
    assert torch.equal(found.tiles, given.tiles)
    assert found.texts_from == "records"
    for one, other in zip(found.texts, texts, strict=True):
        assert one.id == other.id
        assert torch.equal(one.tokens, other.tokens)
        assert torch.equal(one.labels, other.labels)
    assert (found.base is None) == (base is None)
    assert base is None or torch.equal(found.base, base)
    assert [path.name for path in tmp_path.iterdir()] == ["monitoring.safetensors"]
    (tmp_path / "new").touch()
    modes = {path.stat().st_mode for path in tmp_path.iterdir()}
    assert len(modes) == 1


def test_a_file_without_tiles_and_texts_comes_back_too(tmp_path: Path):
    MonitoringData(torch.zeros(0, 3, 8, 8, dtype=torch.uint8), (), "built in").save(tmp_path / "w")
    found = MonitoringData.load(tmp_path / "w")
    assert (found.tiles.shape, found.texts) == ((0, 3, 8, 8), ())


def test_texts_are_packed_in_order(parts: Parts):
    texts = (
        tuple(sample for sample in samples(parts.build(), mixed_records()) if not len(sample.tiles))
        * 5
    )
    size = len(texts[0].tokens)
    assert [len(pack) for pack in packs(texts, 2 * size + 1)] == [2, 2, 1]
    assert packs((), 10) == []
