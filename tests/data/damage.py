"""Good data sets on disk, one damage among them, and what becomes of it in a run."""

from __future__ import annotations

import io
import json
import tarfile
from base64 import b64encode
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from sailvit.core.bad_records import BadRecord
from sailvit.core.recipe import QuarantineConfig, SourceConfig
from sailvit.core.records import faults_of
from sailvit.data.lengths.costs import CostTable
from sailvit.data.lengths.measuring import measure
from sailvit.data.loading.loader import Loader
from sailvit.data.sampling.loader_config import LoaderConfig
from sailvit.data.sources import open_source

RECORDS = 40
"""Records of every set: one bad one is below 10, the number that is put up with."""
BAD = 7
"""Which of them is damaged."""
FEED = LoaderConfig(
    name="damaged", seed=3, shares={"set": 1}, sequence=160, global_batch=2, samples=RECORDS
)


def picture(seed: int, kind: str = "JPEG", **settings) -> bytes:
    """A small image file."""
    pixels = np.random.default_rng(seed).integers(0, 256, (12, 16, 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, kind, **settings)
    return file.getvalue()


def row(number: int) -> dict:
    """A conversation about one image."""
    turns = [
        {"from": "human", "value": f"<image>\nwhat colour is circle {number}?"},
        {"from": "gpt", "value": "blue " * (1 + number % 5)},
    ]
    return {"id": f"r{number}", "image": f"{number}.jpg", "conversations": turns}


def write_llava(folder: Path) -> SourceConfig:
    """JSON lines and a folder of images."""
    (folder / "images").mkdir(parents=True)
    for number in range(RECORDS):
        (folder / "images" / f"{number}.jpg").write_bytes(picture(number))
    lines = [json.dumps(row(number)) for number in range(RECORDS)]
    (folder / "rows.jsonl").write_text("\n".join(lines) + "\n")
    return SourceConfig(
        format="llava", path=str(folder / "rows.jsonl"), images=str(folder / "images")
    )


def write_tars(folder: Path, shards: int = 4) -> SourceConfig:
    """WebDataset shards."""
    folder.mkdir(parents=True)
    for shard in range(shards):
        with tarfile.open(folder / f"{shard}.tar", "w") as tar:
            for number in range(shard, RECORDS, shards):
                put(tar, f"k{number:02d}.jpg", picture(number))
                put(tar, f"k{number:02d}.json", json.dumps(row(number)).encode())
    return SourceConfig(format="webdataset", path=str(folder))


def put(tar: tarfile.TarFile, name: str, content: bytes = b"", **settings) -> None:
    """Add a member, of another type or size where `settings` say so."""
    member = tarfile.TarInfo(name)
    member.size = len(content)
    for key, value in settings.items():
        setattr(member, key, value)
    tar.addfile(member, io.BytesIO(content))


def write_tsv(folder: Path) -> SourceConfig:
    """A VLMEvalKit table."""
    folder.mkdir(parents=True)
    cells = [
        [f"r{n}", f"colour {n}?", "blue", b64encode(picture(n)).decode()] for n in range(RECORDS)
    ]
    lines = ["\t".join(line) for line in [["index", "question", "answer", "image"], *cells]]
    (folder / "table.tsv").write_text("\n".join(lines) + "\n")
    return SourceConfig(format="tsv", path=str(folder / "table.tsv"))


def parquet_rows() -> list[dict]:
    """Rows with images as Hugging Face datasets keep them."""
    turns = [
        [
            {"role": "user", "content": f"<image>colour {n}?"},
            {"role": "assistant", "content": "blue"},
        ]
        for n in range(RECORDS)
    ]
    return [
        {"id": f"r{n}", "image": {"bytes": picture(n), "path": None}, "messages": turns[n]}
        for n in range(RECORDS)
    ]


def write_parquet(folder: Path, rows: list[dict] | None = None) -> SourceConfig:
    """A Parquet file with four row groups and page checksums."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    folder.mkdir(parents=True, exist_ok=True)
    given = rows or parquet_rows()
    table = pa.table({name: [fields[name] for fields in given] for name in given[0]})
    pq.write_table(
        table, folder / "a.parquet", row_group_size=10, write_page_checksum=True, compression="none"
    )
    return SourceConfig(format="parquet", path=str(folder / "a.parquet"))


@dataclass(frozen=True)
class Outcome:
    """What a pass over a source gave."""

    packs: list[list[str]]
    """Ids by step and pack."""
    bad: list[BadRecord]
    """What was left out."""
    faults: list[str]
    """Kinds of what the source found damaged when it opened."""

    @property
    def ids(self) -> list[str]:
        """Ids in their order."""
        return [name.removeprefix("set/") for pack in self.packs for name in pack]

    def without(self, *names: str) -> list[list[str]]:
        """The packs minus some records; empty packs stay."""
        gone = {f"set/{name}" for name in names}
        return [[name for name in pack if name not in gone] for pack in self.packs]


def read(
    config: SourceConfig, processor, *, costs: CostTable | None = None, between=None, **settings
) -> Outcome:
    """One pass; `between` is called after the source has opened, and `costs` are taken where given."""
    source = open_source("set", config, Path.cwd())
    costs = costs or measure("set", source, processor)
    if between is not None:
        between()
    # Not the short limit that a test of hanging files wants: on a loaded machine good records
    # would be late too.
    values = {"samples": len(source), "quarantine": QuarantineConfig(timeout=60), **settings}
    loader_config = LoaderConfig(**{**FEED.__dict__, **values})
    bad: list[BadRecord] = []
    steps = list(
        Loader({"set": source}, {"set": costs}, processor, loader_config, report=bad.append)
    )
    packs = [list(batch.sample_ids) for step in steps for batch in step.batches]
    return Outcome(packs, bad, [fault.kind for fault in faults_of(source)])


def costs_of(config: SourceConfig, processor) -> CostTable:
    """What an undamaged source costs."""
    return measure("set", open_source("set", config, Path.cwd()), processor)
