"""One tower through every probe that a kind of data allows."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from sailvit.core.errors import DataError
from sailvit.distributed.processes import gather_objects, rank, world
from sailvit.evaluation.probes.correspondence import ImageSet, correspondence
from sailvit.evaluation.probes.features.extraction import Extracted, Extraction, extract
from sailvit.evaluation.probes.features.layers import block_count, layered, read_layers
from sailvit.evaluation.probes.features.store import FAILED, tower_hash
from sailvit.evaluation.probes.heads.training import Fitting
from sailvit.evaluation.probes.recognition import NEIGHBOURS, RECOGNITION, Recognition
from sailvit.evaluation.probes.results import Outcome
from sailvit.evaluation.probes.segmentation import Segmentation, patch_labels
from sailvit.evaluation.probes.sets.class_folder import ImageFolder
from sailvit.evaluation.probes.sets.labelled import Images
from sailvit.evaluation.probes.sets.maps import MapSets, has_maps, open_maps
from sailvit.evaluation.probes.sets.opening import LabelledSets, is_labelled, open_labelled
from sailvit.models.towers.tower import Tower

Kind = Literal["classes", "maps", "images"]
"""A kind of data."""
PROBES: dict[Kind, tuple[str, ...]] = {
    "classes": RECOGNITION,
    "maps": ("segmentation",),
    "images": ("correspondence",),
}
"""Probes by the kind of data that they need."""
Seen = Callable[[str, int, int], None]
"""Takes what is done, how much of it, and how much there is."""
Sets = LabelledSets | MapSets | ImageSet
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
    if path.is_dir() and len(images := ImageFolder(path, how.limit)):
        return ImageSet(path.name, images)
    found = "holds no data for a probe" if path.exists() else "does not exist"
    raise DataError(
        f"{path} {found}; expected folders of images, one for each class, Parquet files or tars"
        " with labels, `images` beside `labels` with label maps, or images"
    )


def probe_tower(
    tower: Tower, data: Sequence[Sets], how: Probing, *, seen: Seen = lambda what, done, total: None
) -> Probed:
    """All outcomes of one tower on all data.

    With several processes each computes a share of the features and of the layers' heads; all
    return the same.
    """
    count = max(1, block_count(tower))
    run = _TowerRun(tower, how, read_layers(how.layers, count), seen)
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
        self.left_out: dict[str, int] = {}

    def outcomes(self, sets: Sets) -> list[Outcome]:
        """What all probes of these sets find."""
        if isinstance(sets, LabelledSets):
            return self._recognition(sets)
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
