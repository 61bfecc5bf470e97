"""Packs as the model sees them, as JSON values: the text of each token, which tokens are
trained on, tiles, sample borders and padding.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, replace
from itertools import islice
from typing import Any

from sailvit.core.records import Source, faults_of
from sailvit.data.loading.reader import BatchReader, BatchTask
from sailvit.data.processing.processor import Processor
from sailvit.data.sampling.draws import Drawn
from sailvit.data.sampling.loader_config import LoaderConfig
from sailvit.data.sampling.planner import PackPlan
from sailvit.dataprep.inspect.costs import LazyCosts
from sailvit.dataprep.inspect.pictures import Album
from sailvit.dataprep.inspect.segments import Segment, segments


def view_packs(
    sources: Mapping[str, Source], processor: Processor, loader_config: LoaderConfig, *, packs: int
) -> dict[str, Any]:
    """The first `packs` packs of a loader as JSON values, read back from the same batches that
    training gets.
    """
    costs = {name: LazyCosts(sources[name], processor) for name in loader_config.shares}
    # How packs are grouped into steps does not change them; planning whole steps would measure
    # far more records.
    steps = PackPlan(replace(loader_config, global_batch=1, micro_batch=1), costs).steps()
    viewer = _Viewer(sources, costs, processor, loader_config)
    shown = [viewer.pack(number, step.packs[0]) for number, step in enumerate(islice(steps, packs))]
    return {
        "sources": {name: len(sources[name]) for name in loader_config.shares},
        "faults": [
            asdict(fault)
            for name in loader_config.shares
            for fault in faults_of(sources[name], name)
        ],
        "stage": loader_config.name,
        "seed": loader_config.seed,
        "sequence": loader_config.sequence,
        "tile_budget": loader_config.tiles,
        "tile_size": processor.layout.tile_size,
        "tokens_per_tile": processor.layout.tokens_per_tile,
        "native": processor.layout.native is not None,
        "left_out": viewer.album.left_out,
        "packs": shown,
    }


class _Viewer:
    """Reads planned packs and describes them."""

    def __init__(
        self,
        sources: Mapping[str, Source],
        costs: Mapping[str, LazyCosts],
        processor: Processor,
        loader_config: LoaderConfig,
    ) -> None:
        self.album = Album()
        self._sources = sources
        self._costs = costs
        self._processor = processor
        self._loader_config = loader_config
        self._reader = BatchReader(
            sources, processor, tiles=loader_config.tiles, timeout=loader_config.quarantine.timeout
        )

    def pack(self, number: int, draws: tuple[Drawn, ...]) -> dict[str, Any]:
        """A pack's samples, and the records that were left out of it."""
        step = number // self._loader_config.global_batch + 1
        reading = self._reader[BatchTask(step, (draws,))]
        lost = {(bad.source, bad.position) for bad in reading.bad}
        kept = [draw for draw in draws if (draw.source, draw.position) not in lost]
        found = segments(reading.batch, len(kept), self._processor.layout)
        samples = [self._sample(draw, segment) for draw, segment in zip(kept, found, strict=True)]
        used = sum(sample["tokens"] for sample in samples)
        return {
            "step": step,
            "tokens": used,
            "padding": self._loader_config.sequence - used,
            "tiles": sum(sample["tiles"] for sample in samples),
            "image_tokens": sum(sample["image_tokens"] for sample in samples),
            "trained": sum(sample["trained"] for sample in samples),
            "problems": sum(len(sample["problems"]) for sample in samples),
            "samples": samples,
            "bad": [asdict(bad) for bad in reading.bad],
        }

    def _sample(self, draw: Drawn, segment: Segment) -> dict[str, Any]:
        record = self._sources[draw.source][draw.position]
        uncut = self._costs[draw.source].of(draw.position)[0]
        grids = segment.grids(record.images, self._processor.layout)
        return {
            "id": segment.id,
            "kind": record.kind,
            "position": draw.position,
            "pair": segment.pair,
            "start": segment.start,
            "tokens": len(segment),
            "cut_from": uncut if uncut > len(segment) else None,
            "images": len(segment.images),
            "tiles": segment.tile_count,
            "image_tokens": segment.tile_count * self._processor.layout.tokens_per_tile,
            "trained": int(segment.trained.sum()),
            "problems": segment.problems(),
            "stretches": segment.stretches(),
            "pieces": segment.pieces(self._processor.tokenizer, self.album, grids),
        }
