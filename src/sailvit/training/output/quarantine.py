"""The run's quarantine: a line for every record that was left out, and what they come to."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict
from pathlib import Path

from sailvit.core.recipe import Stage
from sailvit.core.records import Source, faults_of
from sailvit.core.run import RunFolder, read_lines
from sailvit.data.loading.quarantine import BadRecord
from sailvit.distributed.processes import rank, world
from sailvit.training.stages.journal import Journal


class QuarantineLog:
    """Writes this process's lines: rank 0 to quarantine.jsonl, the others to
    quarantine-<rank>.jsonl.
    """

    def __init__(self, folder: RunFolder, journal: Journal | None = None) -> None:
        self._folder = folder
        self._journal = journal or Journal()

    def reporter(self, index: int, stage: Stage) -> Callable[[BadRecord], None]:
        """What a stage's loader tells its bad records."""
        names = {"stage": stage.name, "stage_index": index}
        return lambda bad: self._journal.write(
            self._path(rank()), {**names, "rank": rank(), **asdict(bad)}
        )

    def note_faults(self, stage: Stage, sources: Mapping[str, Source]) -> None:
        """A line, before the first step, for all that sources found damaged when they opened."""
        for name, source in sources.items():
            for fault in faults_of(source):
                line = {
                    "stage": stage.name,
                    "stage_index": 0,
                    "step": 0,
                    "rank": rank(),
                    "source": name,
                }
                self._journal.write(
                    self._path(rank()), {**line, "position": None, "id": "", **asdict(fault)}
                )

    def files(self) -> Iterator[Path]:
        """The files that this process keeps in order: its own, and rank 0 also those of ranks
        that are no more.
        """
        yield self._path(rank())
        if rank() == 0:
            gone = {*self._folder.quarantines} - {self._path(number) for number in range(world())}
            yield from sorted(gone)

    def _path(self, number: int) -> Path:
        path = self._folder.quarantine
        path.parent.mkdir(parents=True, exist_ok=True)
        return path.with_stem(f"{path.stem}-{number}") if number else path


def left_out(folder: RunFolder, index: int) -> dict[str, Counter[str]]:
    """What stage `index` has left out on all ranks: per source, how often each kind."""
    found: dict[str, Counter[str]] = {}
    for path in folder.quarantines:
        for line in read_lines(path):
            if line["stage_index"] == index:
                found.setdefault(line["source"], Counter())[line["kind"]] += line.get("count", 1)
    return found
