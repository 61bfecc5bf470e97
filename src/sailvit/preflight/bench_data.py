"""Data to measure speed with: the first records of a recipe's sources, or invented ones where a
source is not here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from sailvit.core.errors import DataError
from sailvit.core.recipe import Recipe
from sailvit.core.records import Record, Source
from sailvit.data.lengths.costs import Costs
from sailvit.data.lengths.measuring import measure
from sailvit.data.processing.processor import Processor
from sailvit.data.sources import open_source
from sailvit.models.loading.build import ModelBundle
from sailvit.preflight.random_source import InventedSource
from sailvit.preflight.samples import ASSUMED_TEXT

RECORDS = 512
"""Records used of every source; to measure all of a large one takes longer than the bench."""


@dataclass(frozen=True)
class BenchData:
    """What loaders read from."""

    sources: Mapping[str, Source]
    """By name."""
    costs: Mapping[str, Costs]
    """Costs of their records, by the same names."""
    processor: Processor
    """Processor of the model's tokenizer and layout."""
    invented: tuple[str, ...]
    """Names of the sources that could not be opened and were invented."""


def gather(recipe: Recipe, bundle: ModelBundle) -> BenchData:
    """Data for every stage of `recipe`; a source that cannot be opened is replaced by an
    invented one.
    """
    processor = Processor(bundle.tokenizer, bundle.layout, recipe.sequence, day=bundle.day)
    sources: dict[str, Source] = {}
    invented = []
    for name in dict.fromkeys(name for stage in recipe.stages for name in stage.data):
        try:
            sources[name] = _First(open_source(name, recipe.sources[name], Path()))
        except DataError:
            invented.append(name)
            paired = any(
                "contrastive" in stage.objectives and name in stage.data for stage in recipe.stages
            )
            # Half of the words ask and half of them answer, as `sailvit plan` assumes.
            sources[name] = InventedSource(
                bundle.layout,
                count=RECORDS,
                words=ASSUMED_TEXT // 2,
                kind="caption" if paired else "chat",
            )
    costs = {name: measure(name, source, processor) for name, source in sources.items()}
    return BenchData(sources, costs, processor, tuple(invented))


class _First:
    """The first records of a source."""

    def __init__(self, source: Source) -> None:
        self._source = source

    def __len__(self) -> int:
        return min(RECORDS, len(self._source))

    def __getitem__(self, position: int) -> Record:
        return self._source[position]

    @property
    def fingerprint(self) -> str:
        """The source's, as no cache is made of it."""
        return self._source.fingerprint
