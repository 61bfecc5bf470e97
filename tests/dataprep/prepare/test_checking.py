"""The report on a source: what is wrong, where, and how often."""

from __future__ import annotations

import json

import numpy as np
import pytest
from many_formats import WRITERS, indexed, opened, picture, write_llava
from small_tokenizers import layout_for

from sailvit.core.bad_records import BadRecord
from sailvit.core.recipe import SourceConfig
from sailvit.core.records import Record, Turn
from sailvit.data.processing.processor import Processor
from sailvit.dataprep.prepare import checking
from sailvit.dataprep.prepare.checking import check
from sailvit.dataprep.prepare.preparing import PrepareConfig, prepare


@pytest.fixture(scope="module")
def processor(chatml) -> Processor:
    return Processor(chatml, layout_for(chatml, max_tiles=4), 64)


@pytest.mark.parametrize("name", WRITERS)
def test_nothing_is_wrong_with_any_format(name, processor, tmp_path):
    source = opened(WRITERS[name](tmp_path))
    report = check({"set": source}, processor=processor)
    assert (report.bad, report.checked, report.records) == ({}, len(source), len(source))
    assert report.images == sum(len(source[n].images) for n in range(len(source)))


@pytest.fixture
def damaged(tmp_path) -> SourceConfig:
    """Forty rows: some images are not there, one is cut, one row has a mark too many."""
    config = write_llava(tmp_path, 40, bad=tuple(range(0, 14, 2)))
    (tmp_path / "images/cut.png").write_bytes(picture(4)[:-30])
    rows = [json.loads(line) for line in (tmp_path / "rows.jsonl").read_text().splitlines()]
    rows[20]["images"], rows[20]["conversations"][0]["value"] = ["cut.png"], "<image>?"
    rows[21]["conversations"][0]["value"] = "<image>" * 7
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return config


def test_findings_are_counted_by_kind_with_their_first_examples(damaged):
    report = check({"set": opened(damaged)}, most=3)
    assert report.bad["missing file"] == 7
    assert report.bad["image"] == 1
    assert sum(report.bad.values()) == 9
    assert next(iter(report.bad)) == "missing file"
    shown = [finding for finding in report.examples if finding.kind == "missing file"]
    assert [(f.source, f.position, f.id) for f in shown] == [
        ("set", n, f"row-{n}") for n in (0, 2, 4)
    ]
    assert "gone.png" in shown[0].reason
    (cut,) = [finding for finding in report.examples if finding.kind == "image"]
    assert (cut.position, cut.id) == (20, "row-20")


def test_processes_find_the_same(damaged, monkeypatch):
    monkeypatch.setattr(checking, "_CHUNK", 7)
    told = []
    alone = check({"set": opened(damaged)})
    many = check({"set": opened(damaged)}, workers=2, progress=lambda *now: told.append(now))
    assert many == alone
    assert told[0] == ("set", 7, 40)
    assert told[-1] == ("set", 40, 40)


def test_a_sample_is_drawn_by_a_fixed_seed(damaged):
    first = check({"set": opened(damaged)}, samples=10, most=50)
    assert (first.checked, first.records) == (10, 40)
    assert check({"set": opened(damaged)}, samples=10, most=50) == first
    assert check({"set": opened(damaged)}, samples=1000).checked == 40


def test_a_sample_covers_every_source_by_its_size(tmp_path):
    sources = {
        "a": opened(write_llava(tmp_path / "a", 30)),
        "b": opened(write_llava(tmp_path / "b", 10)),
    }
    assert check(sources, samples=20).checked == 20


def test_texts_are_tokenized_with_a_recipe(processor):
    class Listed(list):
        fingerprint = "listed"

    source = Listed([Record("a", (Turn("user", "no answer"),))])
    assert check({"set": source}).bad == {"turns": 1}
    report = check({"set": source}, processor=processor)
    assert sum(report.bad.values()) == 1
    assert "no assistant turn" in report.examples[0].reason


def conversation(question: str = "what?", answer: str | None = "a cat") -> dict:
    turns = [{"from": "human", "value": question}, {"from": "gpt", "value": answer}]
    return {"conversations": turns[: 1 if answer is None else 2]}


@pytest.mark.parametrize(
    ("row", "kind", "reason"),
    [
        (conversation(answer=None), "turns", "no assistant turn"),
        (conversation(answer="half \ud83d"), "text", "no Unicode"),
        (conversation("<|image_pad|> what?"), "marks", "<|image_pad|>"),
        (conversation("<image> what?"), "marks", "1 <image> marks"),
    ],
)
def test_without_a_recipe_texts_are_checked_and_named_by_their_line(row, kind, reason, tmp_path):
    rows = [conversation(), None, conversation(), row, conversation()]
    lines = ["" if each is None else json.dumps(each) for each in rows]
    (tmp_path / "d.jsonl").write_text("\n".join(lines) + "\n")
    source = opened(SourceConfig(format="llava", path=str(tmp_path / "d.jsonl")))
    report = check({"set": source})
    assert (report.checked, report.bad) == (4, {kind: 1})
    (found,) = report.examples
    assert (found.position, found.place) == (2, f"{tmp_path / 'd.jsonl'}:4")
    assert reason in found.reason
    (line,) = report.model_dump()["examples"]
    assert (line["place"], line["offset"]) == (found.place, 4)


def test_damage_of_indexed_shards_has_its_place(tmp_path):
    prepare(
        {"set": opened(write_llava(tmp_path / "in"))},
        tmp_path / "out",
        config=PrepareConfig(shard_samples=6),
    )
    entries = np.load(tmp_path / "out/index/shard-000001.tar.npy")
    content = bytearray((tmp_path / "out/shard-000001.tar").read_bytes())
    content[int(entries[2]["offset"]) + 600] ^= 1
    (tmp_path / "out/shard-000001.tar").write_bytes(content)
    (tmp_path / "out/shard-000000.tar").unlink()
    report = check({"set": indexed(tmp_path / "out")}, most=2)
    assert report.bad == {"missing shard": 6, "crc": 1}
    assert report.examples[-1].place == f"shard-000001.tar:{entries[2]['offset']}"


def test_damage_found_when_a_source_opened_counts_too(tmp_path):
    source = opened(write_llava(tmp_path))
    source.faults = (
        BadRecord(shard="a.tar", offset=512, kind="link", reason="a link", count=3),
        BadRecord(shard="b.tar", kind="cut shard", reason="cut"),
    )
    report = check({"set": source})
    assert report.bad == {"link": 3, "cut shard": 1}
    assert [finding.place for finding in report.examples] == ["a.tar:512", "b.tar"]


def test_an_empty_source_is_fine(tmp_path):
    class Empty(list):
        fingerprint = "empty"

    assert check({"set": Empty()}, samples=5).checked == 0
