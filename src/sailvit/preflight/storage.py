"""How much space a run's states and parts need on disk, and a state's copy in host memory."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

from sailvit.core.formatting import size
from sailvit.core.recipe import PARTS, Part, Recipe
from sailvit.training.output.exports import same_weights

WEIGHT = 4
"""Bytes of a weight: states and parts are fp32."""


@dataclass(frozen=True)
class Storage:
    """Bytes on the disk that the run folder is on, and of the copy that a save may make."""

    state: int
    """The largest state of any stage."""
    states: int
    """How many there are at most: those kept, the best if it is wanted, and the one that is
    being written."""
    parts: int
    """The folders of all stages' parts; a part that a stage leaves as it was counts once."""

    @property
    def disk(self) -> int:
        """The most that all of it takes at one time."""
        return self.states * self.state + self.parts

    @property
    def copy(self) -> int:
        """Host memory that the copy of an accelerator's state takes during a save; on the CPU
        nothing is copied.
        """
        return self.state


def estimate_storage(
    recipe: Recipe,
    parameters: dict[Part, int],
    trained: list[dict[Part, int]],
    moments: list[float],
    *,
    adapters: int | None = None,
) -> Storage:
    """What `recipe` needs, from the parameters of its parts, how many of them train in each
    stage, the bytes of each stage's moments and means, and how many parameters are the
    language's adapters; None: it has none.
    """
    held, saved = dict(parameters), dict(parameters)
    if adapters is not None:
        # States leave out what cannot change; folders hold adapters merged.
        held["language"] = adapters
        saved["language"] -= adapters
    changed: set[Part] = set()
    states, parts = [], 0
    figures = zip(recipe.stages, trained, moments, strict=True)
    for index, (stage, trains, moving) in enumerate(figures):
        # States hold only the parts that no longer are what the recipe names.
        changed |= {*stage.train, *stage.start_from}
        weights = WEIGHT * sum(held[part] for part in PARTS if part in changed)
        # What a learning-rate search returns to: weights and moments.
        back = (WEIGHT * sum(trains.values()) + moving) * (stage.schedule.search is not None)
        states.append(weights + round(moving + back))
        # Unchanged parts are hard links, which take no space.
        written = [part for part in stage.save if not same_weights(recipe, index, part)]
        parts += WEIGHT * sum(saved[part] for part in written)
    kept = recipe.checkpoint.keep + recipe.checkpoint.best + 1
    return Storage(max(states), kept, parts)


def storage_remarks(storage: Storage | None, folder: Path) -> list[str]:
    """A sentence when the disk that `folder` would be on has less room than the run needs."""
    if storage is None:
        return []
    # The folder itself is often not there yet.
    there = next(place for place in (folder, *folder.parents) if place.exists())
    free = shutil.disk_usage(there).free
    if free >= storage.disk:
        return []
    return [
        f"the disk of {there} has {size(free)} free; states and parts take up to"
        f" {size(storage.disk)}: make room, give another folder with --run, lower checkpoint.keep, or save"
        " fewer parts (`save` of a stage)"
    ]
