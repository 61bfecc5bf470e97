"""One tower through every probe that a kind of data allows."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np
import torch

from sailvit.core.errors import DataError
from sailvit.distributed.processes import gather_objects, rank, world
from sailvit.evaluation.probes.correspondence import ImageSet, correspondence
from sailvit.evaluation.probes.features.extraction import Extracted, Extraction, extract
from sailvit.evaluation.probes.features.layers import block_count, layered, read_layers
from sailvit.evaluation.probes.features.store import FAILED, tower_hash
from sailvit.evaluation.probes.heads.training import Fitting
from sailvit.evaluation.probes.matching import (
    PROMPT,
    ClassNames,
    Encoder,
    embedded_images,
    retrieval,
    zero_shot,
)
from sailvit.evaluation.probes.recognition import NEIGHBOURS, RECOGNITION, Recognition
from sailvit.evaluation.probes.results import Outcome, Probe
from sailvit.evaluation.probes.segmentation import Segmentation, patch_labels
from sailvit.evaluation.probes.sets.captions import CaptionSet, open_captions
from sailvit.evaluation.probes.sets.class_folder import only_images
from sailvit.evaluation.probes.sets.labelled import Images
from sailvit.evaluation.probes.sets.maps import MapSets, has_maps, open_maps
from sailvit.evaluation.probes.sets.opening import LabelledSets, is_labelled, open_labelled
from sailvit.models.loading.dual_encoder import pair_tower
from sailvit.models.towers.tower import Tower

Kind = Literal["classes", "maps", "images", "captions"]
"""A kind of data."""
PROBES: dict[Kind, tuple[str, ...]] = {
    "classes": (*RECOGNITION, "zero-shot"),
    "maps": ("segmentation",),
    "images": ("correspondence",),
    "captions": ("retrieval", "connector-retrieval"),
}
"""Probes by the kind of data that they need."""
Seen = Callable[[str, int, int], None]
"""Takes what is done, how much of it, and how much there is."""
TEXTUAL = ("zero-shot", "retrieval")
"""Probes that need a text tower."""
Sets = LabelledSets | MapSets | ImageSet | CaptionSet
"""Opened data of any kind."""


@dataclass(frozen=True)
class Probing:
    """How towers are probed."""

    cache: Path
    """Folder of the features."""
    probes: tuple[str, ...] = ()
    """Probes to run; empty: all that the data allow."""
    layers: str = "all"
    """Layers: `all`, `last`, or numbers, of which -1 is the last."""
    epochs: int = 10
    """Passes over the training set."""
    neighbours: int = NEIGHBOURS
    """Images that vote in k-NN."""
    batch: int = 64
    """Images that the tower takes at once."""
    threads: int = field(default=Extraction.threads)
    """Threads that decode images."""
    limit: int | None = None
    """Most images of every set; None: all."""
    seed: int = 0
    """Seed of all that is drawn."""
    text: str | None = None
    """Dual encoder whose text tower belongs to the towers' base; None: no probe of texts."""
    prompts: tuple[str, ...] = (PROMPT,)
    """What classes are called in, with `{}` for the name."""
    names: ClassNames = field(default_factory=dict)
    """Names of classes for people, by those in the data."""


@dataclass(frozen=True)
class Probed:
    """What the probes of one tower found."""

    outcomes: tuple[Outcome, ...]
    """Every number of every layer."""
    own_layer: int
    """The layer whose features the tower gives by itself, or was trained with."""
    left_out: dict[str, int]
    """Images and label maps that could not be used, by set."""


def open_sets(path: Path, how: Probing) -> Sets:
    """The data at `path`, whose kind its files tell.

    Raises:
        DataError: it is of no kind that a probe can use.
    """
    if path.is_dir() and has_maps(path):
        return open_maps(path, limit=how.limit, seed=how.seed)
    if is_labelled(path):
        return open_labelled(path, limit=how.limit, seed=how.seed)
    if path.is_dir() and (images := only_images(path, how.limit)) is not None:
        return ImageSet(path.name, images)
    try:
        return open_captions(path, limit=how.limit, seed=how.seed)
    except DataError as error:
        if not path.exists():
            raise DataError(
                f"{path} does not exist; name images in folders of their classes, images with label"
                " maps or captions, images alone, or sailvit:world",
                kind="missing file",
            ) from error
        raise DataError(
            f"{path} holds no data for a probe: it has no folders of images, one for each class, no"
            " Parquet files or tars with labels, no `images` beside `labels` with label maps, and"
            f" not images alone; and as captions: {error}"
        ) from error


def probe_tower(
    tower: Tower,
    data: Sequence[Sets],
    how: Probing,
    *,
    space: Encoder | None = None,
    seen: Seen = lambda what, done, total: None,
) -> Probed:
    """All outcomes of one tower on all data.

    With several processes each computes a share of the features and of the layers' heads; all
    return the same. `space` is the whole model of a run, where the tower is one's.

    Raises:
        ModelError: the tower does not fit the dual encoder whose texts are asked for.
    """
    count = max(1, block_count(tower))
    run = _TowerRun(tower, how, read_layers(how.layers, count), seen)
    run.space = space
    found = [each for sets in data for each in run.outcomes(sets)]
    layer = tower.choice.layers[-1]
    return Probed(tuple(found), layer if layer > 0 else count + 1 + layer, run.left_out)


class _TowerRun:
    """One tower with what its probes share."""

    def __init__(self, tower: Tower, how: Probing, layers: tuple[int, ...], seen: Seen) -> None:
        self._how, self._layers, self._seen = how, layers, seen
        self._tower = layered(tower, layers) if block_count(tower) else tower
        self._key = tower_hash(tower)
        self._device = tower.mean.device
        self._paired = None if how.text is None else pair_tower(how.text, tower)
        self.space: Encoder | None = None
        self.left_out: dict[str, int] = {}

    def outcomes(self, sets: Sets) -> list[Outcome]:
        """What all probes of these sets find."""
        if isinstance(sets, LabelledSets):
            return [*self._recognition(sets), *self._zero_shot(sets)]
        if isinstance(sets, CaptionSet):
            return self._retrieval(sets)
        if isinstance(sets, MapSets):
            return self._segmentation(sets) if self._asked("segmentation") else []
        return self._correspondence(sets) if self._asked("correspondence") else []

    def _recognition(self, sets: LabelledSets) -> list[Outcome]:
        probes = [each for each in RECOGNITION if self._asked(each)]
        if not probes:
            return []
        tokens = "attentive" in probes
        run = Recognition(
            sets,
            self._features(sets.train, f"{sets.name}/train", tokens=tokens),
            {
                name: self._features(test, f"{sets.name}/{name}", tokens=tokens)
                for name, test in sets.tests.items()
            },
            self._fitting,
            self._how.neighbours,
        )
        jobs = [(probe, layer) for layer in self._layers for probe in probes]
        return self._shared(sets.name, jobs, run.outcomes)

    def _segmentation(self, sets: MapSets) -> list[Outcome]:
        side = self._tower.side
        # Read once for all layers: they differ in features, never in what the maps say.
        labels = patch_labels(sets.train, side, sets.ignored, self._how.threads)
        run = Segmentation(
            sets,
            side,
            self._features(sets.train, f"{sets.name}/train", tokens=True),
            {
                name: self._features(test, f"{sets.name}/{name}", tokens=True)
                for name, test in sets.tests.items()
            },
            labels,
            self._fitting,
        )
        jobs = [("segmentation", layer) for layer in self._layers]
        found = self._shared(sets.name, jobs, run.outcomes)
        for name, count in {"train": len(labels.unusable), **run.unusable}.items():
            if count:
                self.left_out[f"{sets.name}/{name}, label maps"] = count
        return found

    def _correspondence(self, found: ImageSet) -> list[Outcome]:
        outcomes, failed = correspondence(
            self._tower,
            found,
            self._layers,
            batch=self._how.batch,
            threads=self._how.threads,
            seed=self._how.seed,
            seen=lambda done, total: self._seen(f"{found.name}: matches", done, total),
        )
        if failed:
            self.left_out[found.name] = failed
        return outcomes

    def _zero_shot(self, sets: LabelledSets) -> list[Outcome]:
        if self._paired is None or not self._asked("zero-shot"):
            return []
        embed = partial(self._embedded, self._paired)
        return zero_shot(self._paired, sets, self._how.prompts, self._how.names, embed=embed)

    def _retrieval(self, captions: CaptionSet) -> list[Outcome]:
        encoders: dict[Probe, Encoder | None] = {
            "retrieval": self._paired,
            "connector-retrieval": self.space,
        }
        return [
            each
            for probe, encoder in encoders.items()
            if encoder is not None and self._asked(probe)
            for each in retrieval(probe, encoder, captions, embed=partial(self._embedded, encoder))
        ]

    def _embedded(
        self, encoder: Encoder, images: Images, name: str
    ) -> tuple[np.ndarray, torch.Tensor]:
        found = embedded_images(
            encoder,
            images,
            name,
            batch=self._how.batch,
            threads=self._how.threads,
            seen=lambda done, total: self._seen(f"{name}: pairs", done, total),
        )
        if failed := len(images) - len(found[0]):
            self.left_out[name] = failed
        return found

    @property
    def _fitting(self) -> Fitting:
        return Fitting(self._how.epochs, seed=self._how.seed, device=self._device)

    def _shared(
        self,
        name: str,
        jobs: Sequence[tuple[str, int]],
        run: Callable[[str, int], list[Outcome]],
    ) -> list[Outcome]:
        """Outcomes of all jobs, of which every process does a share."""
        mine, found = jobs[rank() :: world()], []
        for done, (probe, layer) in enumerate(mine, start=1):
            found += run(probe, layer)
            self._seen(f"{name}: heads", done, len(mine))
        return [each for share in gather_objects(found) for each in share]

    def _features(self, images: Images, name: str, *, tokens: bool) -> Extracted:
        how = self._how
        settings = Extraction(how.cache, self._layers, tokens, how.batch, how.threads)
        found = extract(
            self._tower,
            images,
            name,
            settings,
            key=self._key,
            seen=lambda done, total: self._seen(f"{name}: features", done, total),
        )
        # Counted in the store: what failed in an earlier run is in no list of this one.
        if failed := int((found.store.states == FAILED).sum()):
            self.left_out[name] = failed
        return found

    def _asked(self, probe: str) -> bool:
        return not self._how.probes or probe in self._how.probes


def best_layers(outcomes: Sequence[Outcome]) -> dict[str, int]:
    """The best layer of every probe: by what was chosen without the test sets, summed over data;
    where nothing is trained, by the numbers themselves.
    """
    found: dict[str, dict[int, dict[tuple[str, str], float]]] = {}
    for each in outcomes:
        # A layer that the test set chose would have its luck in the number that is reported for it.
        score = each.value if each.chosen is None else each.chosen
        place = found.setdefault(each.probe, {}).setdefault(each.layer, {})
        place[each.set, each.metric] = score
    return {
        probe: max(layers, key=lambda layer: sum(layers[layer].values()))
        for probe, layers in found.items()
    }


def at_layer(outcomes: Sequence[Outcome], layer: int) -> list[Outcome]:
    """The outcomes of one layer and those of the whole model."""
    return [each for each in outcomes if each.layer in {layer, -1}]
