"""The run's quarantine: a line for every record that was left out."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, replace
from pathlib import Path

from sailvit.core.bad_records import QuarantinedRecord, quarantined
from sailvit.core.recipe import Stage
from sailvit.core.records import Source, faults_of
from sailvit.core.run import RunFolder
from sailvit.distributed.processes import rank, world
from sailvit.training.stages.journal import Journal


class QuarantineLog:
    """Writes this process's lines: rank 0 to quarantine.jsonl, the others to
    quarantine-<rank>.jsonl.
    """

    def __init__(self, folder: RunFolder, journal: Journal | None = None) -> None:
        self._folder = folder
        self._journal = journal or Journal()

    def reporter(self, index: int, stage: Stage) -> Callable[[QuarantinedRecord], None]:
        """The function that a stage's loader calls with every bad record."""
        return lambda bad: self._journal.write(
            self._path(rank()),
            asdict(replace(bad, stage=stage.name, stage_index=index, rank=rank())),
        )

    def note_faults(self, stage: Stage, sources: Mapping[str, Source]) -> None:
        """Write a line for each fault that a source found when it opened."""
        report = self.reporter(0, stage)
        for name, source in sources.items():
            for fault in faults_of(source, name):
                report(quarantined(fault, 0))

    def files(self) -> Iterator[Path]:
        """The files from which this process drops lines on resume: its own, and on rank 0 also
        those of ranks that no longer exist.
        """
        yield self._path(rank())
        if rank() == 0:
            gone = {*self._folder.quarantines} - {self._path(number) for number in range(world())}
            yield from sorted(gone)

    def _path(self, number: int) -> Path:
        path = self._folder.quarantine
        path.parent.mkdir(parents=True, exist_ok=True)
        return path.with_stem(f"{path.stem}-{number}") if number else path
