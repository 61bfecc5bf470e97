"""Completes a folder of shards: the costs of all records, the list of bad records, and at last
the manifest.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from sailvit.core.atomic import whole_file
from sailvit.core.bad_records import BadRecord
from sailvit.core.run import read_lines, write_json
from sailvit.core.version import __version__
from sailvit.data.lengths.fingerprints import layout_fingerprint, tokenizer_fingerprint
from sailvit.data.processing.processor import Processor
from sailvit.data.processing.template_source import is_dated, template_source
from sailvit.data.shards.manifest import COSTS, MANIFEST, Manifest, Measured, ShardMark, index_name
from sailvit.dataprep.prepare.entries import write_costs

BAD = "bad.jsonl"
"""Name of the list of records left out."""


def counted_by(processor: Processor) -> dict[str, Any]:
    """What tokens and tiles were counted with, as fingerprints and in words: the fields of
    `Measured` but `costs`.
    """
    tokenizer = processor.tokenizer
    dated = is_dated(template_source(tokenizer))
    return {
        "tokenizer": tokenizer_fingerprint(tokenizer, processor.day),
        "layout": layout_fingerprint(processor.layout),
        "tokenizer_values": {
            "name": Path(tokenizer.name_or_path).name,
            "vocabulary": len(tokenizer),
            # A date that the template does not write changes no count.
            **({"model.chat_date": processor.day.isoformat()} if dated else {}),
        },
        "layout_values": asdict(processor.layout),
    }


def complete(
    folder: Path,
    marks: Sequence[ShardMark],
    bad: Iterable[BadRecord],
    *,
    counted: dict[str, Any] | None,
    settings: dict[str, Any],
) -> Manifest:
    """Write costs, bad records and manifest of finished shards into `folder`; `settings` are
    fields of the manifest.

    `counted` is the result of `counted_by`; None: tokens were not counted. Shards without
    records are noted apart. The manifest is written last, so a folder that has one is complete.
    """
    shards = [mark for mark in marks if mark.samples]
    samples = sum(mark.samples for mark in shards)
    measured = None
    if counted is not None:
        costs = write_costs(
            folder / COSTS, (folder / index_name(mark.name) for mark in shards), samples
        )
        measured = Measured(costs=costs, **counted)
    left_out = _write_bad(folder / BAD, bad)
    made = {"by": f"sailvit {__version__}", **settings["made"]}
    manifest = Manifest(
        samples=samples,
        bad=left_out,
        shards=shards,
        empty=[mark for mark in marks if not mark.samples],
        measured=measured,
        **{**settings, "made": made},
    )
    write_json(folder / MANIFEST, manifest.model_dump())
    return manifest


def read_bad(folder: Path) -> Iterator[BadRecord]:
    """The records that were left out of a folder."""
    return map(BadRecord.from_line, read_lines(folder / BAD))


def _write_bad(path: Path, bad: Iterable[BadRecord]) -> int:
    """Write one line per record that was left out; returns their number."""
    count = 0
    # A reason may quote text with lone surrogates, which UTF-8 refuses.
    with (
        whole_file(path) as part,
        part.open("w", encoding="utf-8", errors="backslashreplace") as file,
    ):
        for record in bad:
            file.write(json.dumps(asdict(record), ensure_ascii=False) + "\n")
            count += 1
    return count
