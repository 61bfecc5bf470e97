"""The same few records in every format, and broken ones."""

from __future__ import annotations

import base64
import dataclasses
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from sailvit.core.recipe import SourceConfig
from sailvit.core.records import Record, Source
from sailvit.data.sources import open_source


def picture(number: int, kind: str = "PNG") -> bytes:
    """A small image file; the number decides its pixels and its size."""
    pixels = np.random.default_rng(number).integers(0, 256, (6 + number, 9, 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, format=kind)
    return file.getvalue()


def turns(images: int, answer: str) -> list[dict[str, str]]:
    asked = "<image>\n" * images + "what colour is it?"
    return [{"from": "human", "value": asked}, {"from": "gpt", "value": answer}]


def write_llava(folder: Path, count: int = 12, *, bad: tuple[int, ...] = ()) -> SourceConfig:
    """Conversations with no, one and two images of three kinds; the bad ones name an image that is not there."""
    (folder / "images").mkdir(parents=True, exist_ok=True)
    names = []
    for number, (kind, ending) in enumerate([("PNG", "png"), ("JPEG", "jpg"), ("WEBP", "webp")]):
        names.append(f"{number}.{ending}")
        (folder / "images" / names[-1]).write_bytes(picture(number, kind))
    rows = []
    for n in range(count):
        shown = ["gone.png"] if n in bad else [names[(n + k) % 3] for k in range(n % 3)]
        kind = "ocr" if n % 4 == 3 else "chat"
        rows.append(
            {
                "id": f"row-{n}",
                "kind": kind,
                "images": shown,
                "conversations": turns(len(shown), f"réd {n}"),
            }
        )
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return SourceConfig(
        format="llava", path=str(folder / "rows.jsonl"), images=str(folder / "images")
    )


def write_captions(folder: Path) -> SourceConfig:
    folder.mkdir(parents=True, exist_ok=True)
    for n in range(3):
        (folder / f"{n}.jpg").write_bytes(picture(n, "JPEG"))
    rows = [{"image": f"{n}.jpg", "text": f"a red {n}"} for n in range(3)]
    (folder / "captions.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return SourceConfig(format="captions", path=str(folder / "captions.jsonl"))


def write_parquet(folder: Path, *, rows: int = 8) -> SourceConfig:
    folder.mkdir(parents=True, exist_ok=True)
    for shard in range(2):
        images = [{"bytes": picture(n % 5), "path": None} for n in range(rows)]
        table = pa.table({"image": images, "caption": [f"red {shard} {n}" for n in range(rows)]})
        pq.write_table(table, folder / f"part-{shard}.parquet", row_group_size=3)
    return SourceConfig(format="parquet", path=str(folder))


def write_tsv(folder: Path) -> SourceConfig:
    folder.mkdir(parents=True, exist_ok=True)
    image = base64.b64encode(picture(1)).decode()
    (folder / "t.tsv").write_text(
        f"index\tquestion\tanswer\timage\n0\twhat?\tred\t{image}\n1\tand?\tblue\t0\n"
    )
    return SourceConfig(format="tsv", path=str(folder / "t.tsv"))


def write_world(folder: Path) -> SourceConfig:
    return SourceConfig(format="world", options={"tasks": ["ocr", "count", "sum"], "size": 5})


WRITERS = {
    "llava": write_llava,
    "captions": write_captions,
    "parquet": write_parquet,
    "tsv": write_tsv,
    "world": write_world,
}


def opened(config: SourceConfig) -> Source:
    return open_source("set", config, Path())


def indexed(folder: Path, **options: Any) -> Source:
    return opened(SourceConfig(format="indexed", path=str(folder), options=options))


def with_bytes(record: Record) -> Record:
    """The record with its image files read."""
    held = tuple(
        image.read_bytes() if isinstance(image, Path) else image for image in record.images
    )
    return dataclasses.replace(record, images=held)


def tree(folder: Path) -> dict[str, bytes]:
    """Every file below a folder."""
    return {
        str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()
    }
