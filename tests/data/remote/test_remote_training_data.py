"""From prepared shards in a bucket to packs, with a server that fails every third request."""

from __future__ import annotations

import io
import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from sailvit.core.errors import DataError
from sailvit.core.recipe import QuarantineConfig, SourceConfig
from sailvit.data.lengths.measuring import measure
from sailvit.data.loading.loader import Loader
from sailvit.data.processing.processor import Processor
from sailvit.data.remote import cache
from sailvit.data.sampling.loader_config import LoaderConfig
from sailvit.data.sources import open_source
from sailvit.dataprep.prepare.preparing import PrepareConfig, prepare

RECORDS = 40
FEED = LoaderConfig(
    name="fine",
    seed=5,
    shares={"pairs": 1},
    sequence=128,
    global_batch=4,
    micro_batch=1,
    samples=RECORDS,
    workers=2,
)


def picture(number: int) -> bytes:
    pixels = np.random.default_rng(number).integers(0, 256, (24, 32, 3), np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG")
    return file.getvalue()


@pytest.fixture
def processor(chatml, layout) -> Processor:
    return Processor(chatml, layout, FEED.sequence)


@pytest.fixture
def prepared(processor, tmp_path):
    """A folder of four shards with their token counts."""
    raw = tmp_path / "raw"
    raw.mkdir()
    rows = [
        {"image": f"{number}.jpg", "text": "a picture " + "of noise " * (number % 5)}
        for number in range(RECORDS)
    ]
    for number in range(RECORDS):
        (raw / f"{number}.jpg").write_bytes(picture(number))
    (raw / "pairs.jsonl").write_text("\n".join(map(json.dumps, rows)))
    source = open_source("pairs", SourceConfig(format="captions", path="pairs.jsonl"), raw)
    prepare(
        {"pairs": source},
        tmp_path / "prepared",
        config=PrepareConfig(shard_samples=10),
        processor=processor,
    )
    return tmp_path / "prepared"


@pytest.fixture
def far(bucket, prepared, tmp_path, monkeypatch) -> SourceConfig:
    """The same folder in a bucket."""
    monkeypatch.setenv("SAILVIT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(cache, "_waits", lambda access, name: [0.01] * (access.tries - 1))
    for path in prepared.rglob("*"):
        if path.is_file():
            bucket.put(path.relative_to(prepared).as_posix(), path.read_bytes())
    bucket.asked.clear()
    return SourceConfig(format="indexed", path=bucket.url)


def near(prepared) -> SourceConfig:
    return SourceConfig(format="indexed", path=str(prepared))


def steps(config, processor, tmp_path):
    sources = {"pairs": open_source("pairs", config, tmp_path)}
    costs = {name: measure(name, source, processor) for name, source in sources.items()}
    return list(Loader(sources, costs, processor, FEED))


def test_records_are_those_of_the_folder(far, prepared, bucket, tmp_path):
    bucket.fail_every = 3
    here, there = (
        open_source("pairs", near(prepared), tmp_path),
        open_source("pairs", far, tmp_path),
    )
    assert there.fingerprint == here.fingerprint
    assert [there[position] for position in range(len(there))] == [
        here[position] for position in range(len(here))
    ]
    assert len(here) == RECORDS
    wanted = [path for path in bucket.asked if path.endswith(".tar")]
    assert len(set(wanted)) == 4 <= len(wanted)


def test_packs_are_those_of_the_folder(far, prepared, bucket, processor, tmp_path):
    bucket.fail_every = 3
    expected, found = steps(near(prepared), processor, tmp_path), steps(far, processor, tmp_path)
    assert [step.cursor for step in found] == [step.cursor for step in expected]
    for one, other in zip(found, expected, strict=True):
        for batch, same in zip(one.batches, other.batches, strict=True):
            assert torch.equal(batch.tokens, same.tokens)
            assert torch.equal(batch.labels, same.labels)
            assert torch.equal(batch.tiles, same.tiles)


def test_the_next_window_is_fetched_while_this_one_is_read(far, bucket, processor, tmp_path):
    sources = {"pairs": open_source("pairs", far, tmp_path)}
    costs = {name: measure(name, source, processor) for name, source in sources.items()}
    loader = Loader(sources, costs, processor, replace(FEED, window=1, global_batch=1, workers=1))
    read, asked = [], []
    for step in loader:
        shards = [path.rsplit("/", 1)[-1] for path in bucket.asked if path.endswith(".tar")]
        read += [
            int(name.rpartition("/")[2]) // 10
            for batch in step.batches
            for name in batch.sample_ids
        ]
        asked.append((len(set(read)), len(set(shards))))
        assert len(shards) == len(set(shards))
    assert asked[-1] == (4, 4)
    # Whenever a shard begins to be read, the one after it has been asked for already; never the one after that.
    assert all(now <= fetched for now, fetched in asked)
    assert any(fetched == now + 1 for now, fetched in asked)


def test_a_second_run_asks_for_nothing_but_the_manifest(far, bucket, processor, tmp_path):
    steps(far, processor, tmp_path)
    bucket.asked.clear()
    steps(far, processor, tmp_path)
    assert [path.rsplit("/", 1)[-1] for path in bucket.asked] == ["sailvit.json"]


def test_a_shard_replaced_in_the_bucket_is_the_error_of_its_records(
    far, prepared, bucket, tmp_path
):
    content = bytearray((prepared / "shard-000001.tar").read_bytes())
    content[700] ^= 1
    bucket.put("shard-000001.tar", bytes(content))
    source = open_source("pairs", far, tmp_path)
    with pytest.raises(DataError, match="its crc32 is") as caught:
        source[10]
    assert caught.value.kind == "changed shard"
    assert source[9].id
    assert source[20].id


def test_a_shard_that_is_gone_costs_its_records_and_no_more(far, bucket, processor, tmp_path):
    bucket.remove("shard-000001.tar")
    bad = []
    sources = {"pairs": open_source("pairs", far, tmp_path)}
    costs = {name: measure(name, source, processor) for name, source in sources.items()}
    loader_config = replace(FEED, quarantine=QuarantineConfig(share=0.3))
    assert len(list(Loader(sources, costs, processor, loader_config, report=bad.append))) > 0
    assert sorted(record.position for record in bad) == list(range(10, 20))
    assert {record.kind for record in bad} == {"missing shard"}
    assert len([path for path in bucket.asked if path.endswith("shard-000001.tar")]) <= FEED.workers
