"""Several sources as one, so that they are read in one pass."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from sailvit.core.records import Record, Source


@dataclass(frozen=True)
class Joined:
    """Several sources as one, one after the other."""

    sources: Mapping[str, Source]
    """By name."""

    def __len__(self) -> int:
        return sum(len(source) for source in self.sources.values())

    def __getitem__(self, position: int) -> Record:
        name, inside = self.find(position)
        return self.sources[name][inside]

    @property
    def fingerprint(self) -> str:
        """The fingerprints of all sources."""
        return "+".join(source.fingerprint for source in self.sources.values())

    def find(self, position: int) -> tuple[str, int]:
        """The source that holds a position, and the position inside it."""
        for name, source in self.sources.items():
            if position < len(source):
                return name, position
            position -= len(source)
        raise IndexError(f"position {position} lies behind the last source")

    def place(self, source: str, position: int) -> int:
        """The joined position of a source's record; the inverse of `find`."""
        names = list(self.sources)
        return position + sum(len(self.sources[name]) for name in names[: names.index(source)])
