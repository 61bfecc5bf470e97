"""What a run is monitored on: tiles, texts and the base tower's features, chosen once and kept."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from itertools import chain, islice, zip_longest
from pathlib import Path
from typing import Literal

import torch
from safetensors import safe_open
from safetensors.torch import save

from sailvit.core.atomic import whole_file
from sailvit.core.bad_records import UNUSABLE
from sailvit.core.recipe import Recipe
from sailvit.core.records import Record, Sample, Source, Turn
from sailvit.core.seeding import numpy_generator
from sailvit.data.caches import cache_folder
from sailvit.data.lengths.costs import Costs
from sailvit.data.lengths.measuring import measure
from sailvit.data.processing.processor import Processor
from sailvit.data.sources import open_source

_CANDIDATES = 4096
"""Most positions of a source that are candidates: a large source is not permuted as a whole."""

PLAIN = (
    "The river rises in the hills and reaches the sea after three hundred kilometres.",
    "A good map leaves out almost everything and keeps what the traveller needs.",
    "Water boils at a lower temperature on a mountain because the air presses less.",
    "She closed the shop at noon, counted the coins twice, and walked home in the rain.",
    "The committee met on Tuesday, but the decision was put off until the spring.",
    "Bread needs flour, water, salt and yeast, and more patience than most recipes admit.",
    "If every angle of a triangle is equal, then all of its sides are equal as well.",
    "The old bridge was built of stone in 1786 and still carries the morning traffic.",
    "Plants take up carbon dioxide, and in the light they give oxygen back.",
    "He asked the librarian for a book about birds and came back with one about planes.",
    "Seven times eight is fifty-six, and fifty-six divided by seven is eight again.",
    "The moon turns once on its axis while it goes once around the earth.",
)
"""English sentences for recipes whose sources hold no text without images."""


@dataclass(frozen=True)
class MonitoringData:
    """Fixed inputs that the model is measured on at every monitoring point."""

    tiles: torch.Tensor
    """uint8[I, C, H, W]: tiles of as many images; I may be 0."""
    texts: tuple[Sample, ...]
    """Texts without images, with labels on their answers."""
    texts_from: str
    """Where the texts come from: `records`, or `built in`."""
    base: torch.Tensor | None = None
    """float[N, D]: features of the tiles by the tower that the run began with."""

    def save(self, path: Path) -> None:
        """Write everything as safetensors, all or nothing."""
        tensors = {"tiles": self.tiles.contiguous(), **_packed(self.texts)}
        tensors |= {} if self.base is None else {"base": self.base.cpu().contiguous()}
        ids = json.dumps([text.id for text in self.texts])
        with whole_file(path) as draft:
            draft.write_bytes(save(tensors, {"texts_from": self.texts_from, "ids": ids}))

    @classmethod
    def load(cls, path: Path) -> MonitoringData:
        """What `save` wrote."""
        with safe_open(path, "pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - no mapping
            said = file.metadata()
        lengths = tensors["lengths"].tolist()
        sides = (tensors["tokens"].split(lengths), tensors["labels"].split(lengths))
        texts = tuple(_text(*given) for given in zip(json.loads(said["ids"]), *sides, strict=True))
        return cls(tensors["tiles"], texts, said["texts_from"], tensors.get("base"))


def choose(
    recipe: Recipe,
    sources: Mapping[str, Source],
    costs: Mapping[str, Costs],
    processor: Processor,
) -> MonitoringData:
    """Tiles and texts to monitor a run of `recipe` on, from `monitoring.source` or from the
    sources of its stages.

    The same recipe and data give the same choice. Records that cannot be read are skipped.
    """
    name = recipe.monitoring.source
    if name is not None:
        sources = {name: open_source(name, recipe.sources[name], Path.cwd())}
        # Not by all processes together, as only the first chooses.
        cache = cache_folder("costs")
        costs = {name: measure(name, sources[name], processor, workers=recipe.workers, cache=cache)}
    # At the tower's own size in native resolution too, where drift compares like with like.
    squared = Processor(
        processor.tokenizer, processor.layout.squared, processor.longest, day=processor.day
    )
    shows = squared if processor.layout.native is not None else processor
    pictures = [
        _samples(recipe.seed, n, sources[n], costs[n], shows, kind="pictures") for n in sources
    ]
    plain = [
        _samples(recipe.seed, n, sources[n], costs[n], processor, kind="texts") for n in sources
    ]
    # The last tile of an image that was cut up is the one that shows all of it.
    tiles = [sample.tiles[-1] for sample in islice(_alternating(pictures), recipe.monitoring.tiles)]
    size = shows.layout.tile_size
    shown = torch.stack(tiles) if tiles else torch.zeros(0, 3, size, size, dtype=torch.uint8)
    texts = tuple(islice(_alternating(plain), recipe.monitoring.texts))
    if texts:
        return MonitoringData(shown, texts, "records")
    return MonitoringData(shown, tuple(_built_in(processor)), "built in")


def packs(texts: tuple[Sample, ...], longest: int) -> list[list[Sample]]:
    """The texts in order, in packs of at most `longest` tokens."""
    filled: list[list[Sample]] = []
    left = 0
    for text in texts:
        if not filled or len(text.tokens) > left:
            filled.append([])
            left = longest
        filled[-1].append(text)
        left -= len(text.tokens)
    return filled


def _samples(
    seed: int,
    name: str,
    source: Source,
    costs: Costs,
    processor: Processor,
    *,
    kind: Literal["pictures", "texts"],
) -> Iterator[Sample]:
    """Samples of the source's records with or without images, in a random order; nothing is
    read in advance.
    """
    # The name of the stream is part of the choice: another would choose other records.
    rng = numpy_generator(seed, "watch", name)
    few = len(source) <= _CANDIDATES
    positions = rng.permutation(len(source)) if few else rng.integers(0, len(source), _CANDIDATES)
    tokens, tiles = costs.at(positions)
    for position in positions[
        (tiles > 0) if kind == "pictures" else (tiles == 0) & (tokens > 0)
    ].tolist():
        try:
            sample = processor(name, source[position])
        except UNUSABLE:
            continue
        if kind == "texts" or len(sample.tiles):
            yield sample


def _built_in(processor: Processor) -> Iterator[Sample]:
    """The built-in sentences as answers, as far as they fit a pack."""
    asked = Turn("user", "Write a sentence.")
    for number, text in enumerate(PLAIN):
        with suppress(*UNUSABLE):
            yield processor("plain", Record(str(number), (asked, Turn("assistant", text))))


def _alternating(streams: list[Iterator[Sample]]) -> Iterator[Sample]:
    """One sample of every stream in turn, until all are empty."""
    return (sample for sample in chain.from_iterable(zip_longest(*streams)) if sample is not None)


def _packed(texts: tuple[Sample, ...]) -> dict[str, torch.Tensor]:
    lengths = torch.tensor([len(text.tokens) for text in texts], dtype=torch.int64)
    none = torch.zeros(0, dtype=torch.int64)
    tokens, labels = (
        torch.cat([none, *(t.tokens for t in texts)]),
        torch.cat([none, *(t.labels for t in texts)]),
    )
    return {"lengths": lengths, "tokens": tokens, "labels": labels}


def _text(name: str, tokens: torch.Tensor, labels: torch.Tensor) -> Sample:
    no_tiles, no_images = (
        torch.zeros(0, 3, 1, 1, dtype=torch.uint8),
        torch.zeros(0, dtype=torch.int64),
    )
    return Sample(name, tokens, labels, no_tiles, no_images, caption=False)
