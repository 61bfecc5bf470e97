"""A drawn source as files: PNG images and one JSONL of LLaVA rows, written by several
processes, resumable.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from sailvit.core.atomic import whole_file
from sailvit.core.errors import DataError
from sailvit.core.outputs import refuse_foreign_folder
from sailvit.core.records import Source
from sailvit.core.run import read_json, write_json
from sailvit.data.process_pool import map_ordered
from sailvit.dataprep.llava_rows import encoded, llava_row

_PORTION = 250
"""Records per task and per folder of images: a few seconds' work, so that a killed run loses
little."""


@dataclass(frozen=True)
class Portion:
    """A stretch of a source that one task writes."""

    source: Source
    """What is written."""
    out: Path
    """Folder of everything."""
    number: int
    """Which stretch it is."""

    @property
    def rows(self) -> Path:
        """Its rows; the file appears when all of them and their images are there."""
        return self.out / "parts" / f"{self.number:06d}.jsonl"

    @property
    def positions(self) -> range:
        """Its records."""
        start = self.number * _PORTION
        return range(start, min(start + _PORTION, len(self.source)))


def render(
    source: Source,
    out: Path,
    name: str,
    *,
    workers: int = 1,
    report: Callable[[int], None] = lambda count: None,
) -> Path:
    """The JSONL `out/name.jsonl` with every record of `source`, its images in `out/images`.

    What an earlier call has written is kept, and the files do not depend on the number of
    workers. `report` is told how many records have been added, first those that were there.
    """
    rows = out / f"{name}.jsonl"
    _claim(out, source)
    if rows.exists():
        report(len(source))
        return rows
    portions = [Portion(source, out, number) for number in range(-(-len(source) // _PORTION))]
    missing = [portion for portion in portions if not portion.rows.exists()]
    report(sum(len(portion.positions) for portion in portions if portion.rows.exists()))
    for count in map_ordered(write, missing, workers=workers):
        report(count)
    _join(portions, rows)
    return rows


def write(portion: Portion) -> int:
    """Write one portion's images and then its rows; returns how many records it has."""
    images = portion.out / "images" / f"{portion.number:06d}"
    images.mkdir(parents=True, exist_ok=True)
    portion.rows.parent.mkdir(exist_ok=True)
    lines = []
    for position in portion.positions:
        record, names = portion.source[position], []
        for index, image in enumerate(record.images):
            data, kind = encoded(image)
            path = images / (
                f"{position:09d}.{kind}"
                if len(record.images) == 1
                else f"{position:09d}-{index}.{kind}"
            )
            path.write_bytes(data)
            names.append(path.relative_to(portion.out).as_posix())
        lines.append(json.dumps(llava_row(record, names), ensure_ascii=False) + "\n")
    with whole_file(portion.rows) as draft:
        draft.write_text("".join(lines), encoding="utf-8")
    return len(lines)


def _claim(out: Path, source: Source) -> None:
    """Mark the folder with what it holds; refuse one that holds something else."""
    ours = {"records": len(source), "fingerprint": source.fingerprint}
    note = out / "rendered.json"
    refuse_foreign_folder(out, note.name)
    if note.exists():
        if (found := read_json(note)) != ours:
            raise DataError(
                f"{out} holds {found}, not {ours}; choose another folder, or the options it was begun with"
            )
    else:
        write_json(note, ours)


def _join(portions: list[Portion], rows: Path) -> None:
    """All rows in one file, in order; the portions' own files go."""
    with whole_file(rows) as draft, draft.open("wb") as file:
        for portion in portions:
            file.write(portion.rows.read_bytes())
    shutil.rmtree(rows.parent / "parts")
