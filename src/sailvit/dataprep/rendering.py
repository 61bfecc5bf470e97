"""Writes a drawn source to files, PNG images and one JSONL of LLaVA rows, with several
processes; a run that was killed can be continued.
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
"""Records per portion and folder of images: a few seconds of work, so a killed run loses
little."""


@dataclass(frozen=True)
class Portion:
    """A stretch of a source that one worker writes at a time."""

    source: Source
    """Gives the records."""
    out: Path
    """Folder that everything is written to."""
    number: int
    """Number of the stretch, from 0."""

    @property
    def rows(self) -> Path:
        """File of its rows; it appears when all rows and their images are written."""
        return self.out / "parts" / f"{self.number:06d}.jsonl"

    @property
    def positions(self) -> range:
        """Positions of its records."""
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
    """Write every record of `source` to `out/name.jsonl`, which is returned, and its images to
    `out/images`.

    Portions that an earlier call has written are kept. The files do not depend on the number of
    workers. `report` is called with the number of records added, first those of earlier calls.
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
            # Need not be whole: a portion without its rows is written again, with images.
            path.write_bytes(data)
            names.append(path.relative_to(portion.out).as_posix())
        lines.append(json.dumps(llava_row(record, names), ensure_ascii=False) + "\n")
    with whole_file(portion.rows) as draft:
        draft.write_text("".join(lines), encoding="utf-8")
    return len(lines)


def _claim(out: Path, source: Source) -> None:
    """Note in the folder what it holds; refuse a folder that holds something else."""
    ours = {"records": len(source), "fingerprint": source.fingerprint}
    note = out / "rendered.json"
    refuse_foreign_folder(out, note.name)
    if note.exists():
        if (found := read_json(note)) != ours:
            raise DataError(
                f"{out} holds {found}, not {ours}; choose another folder, or the options that it"
                " was begun with"
            )
    else:
        write_json(note, ours)


def _join(portions: list[Portion], rows: Path) -> None:
    """Join the portions' files into one, in order, and delete them."""
    with whole_file(rows) as draft, draft.open("wb") as file:
        for portion in portions:
            file.write(portion.rows.read_bytes())
    shutil.rmtree(rows.parent / "parts")
