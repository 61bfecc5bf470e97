"""The world as a source of records."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from copy import deepcopy
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from pydantic import Field, field_validator

from sailvit.core.config import Config
from sailvit.core.recipe import Count, Positive, SourceConfig
from sailvit.core.records import IMAGE_MARK, Record, Turn
from sailvit.core.seeding import derive_seed, numpy_generator
from sailvit.synthetic.mixture import drawn_options, named_shares
from sailvit.synthetic.world.rendering import SIDE, draw
from sailvit.synthetic.world.scenes import Scene, Split, Sum, pick, split_of
from sailvit.synthetic.world.tasks import TASKS, Task, describe

VERSION = 1
"""Raised whenever the same options give other records."""


class WorldOptions(Config):
    """What determines the records of a world."""

    tasks: Annotated[dict[str, Positive], Field(min_length=1)]
    """Shares of the records per task; a bare name or a list of names stands for equal
    shares."""
    size: Count
    """Number of records."""
    split: Split = "train"
    """`train` or `held_out`; no scene is in both."""
    seed: int = 0
    """Root of every random choice."""

    @field_validator("tasks", mode="before")
    @classmethod
    def _named(cls, value: Any) -> Any:
        return named_shares(value, TASKS, "the world has no task")


@dataclass(frozen=True, eq=False)
class Picture:
    """A scene that is drawn when its pixels are asked for; drawing is two thirds of what a
    record costs.
    """

    scene: Scene
    """What it shows."""
    rng: np.random.Generator
    """Where the record's random choices have come to; never advanced, so that every drawing is
    the same."""

    @property
    def size(self) -> tuple[int, int]:
        """Width and height, in pixels."""
        return SIDE, SIDE

    def pixels(self) -> np.ndarray:
        """uint8[64, 64, 3]."""
        return draw(self.scene, deepcopy(self.rng))


class WorldSource:
    """`size` records, each a pure function of the options and its position."""

    def __init__(
        self, split: Split, tasks: str | Mapping[str, float], size: int, seed: int = 0
    ) -> None:
        given = tasks if isinstance(tasks, str) else dict(tasks)
        self.options = _options({"split": split, "tasks": given, "size": size, "seed": seed})
        # Other mixtures get other streams: two sources of one seed must not show the same
        # scenes in the same order.
        self._stream = derive_seed(
            seed, "world", split, *map(str, sorted(self.options.tasks.items()))
        )
        self._names = sorted(self.options.tasks)
        self._limits = list(accumulate(self.options.tasks[name] for name in self._names))

    def __len__(self) -> int:
        """Number of records."""
        return self.options.size

    def __getitem__(self, position: int) -> Record:
        """The record at `position`."""
        if not 0 <= position < self.options.size:
            raise IndexError(f"position {position} of a world of {self.options.size} records")
        rng = numpy_generator(self._stream, position)
        threshold = rng.random() * self._limits[-1]
        name = self._names[int(np.searchsorted(self._limits, threshold, side="right"))]
        return _record(
            f"{name}-{self.options.split}-{position}", TASKS[name], self.options.split, rng
        )

    @property
    def fingerprint(self) -> str:
        """Hash of the options and the world's version."""
        text = json.dumps([VERSION, self.options.model_dump()], sort_keys=True)
        return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()


def open_world(config: SourceConfig, folder: Path) -> WorldSource:
    """The world that `config.options` describes; it reads no file, so `folder` is not used."""
    options = _options(config.options)
    return WorldSource(options.split, options.tasks, options.size, options.seed)


def _options(values: Mapping[str, Any]) -> WorldOptions:
    return drawn_options(WorldOptions, values, "world")


def _record(name: str, task: Task, split: Split, rng: np.random.Generator) -> Record:
    scene = _scene(task, split, rng)
    question, answer = task.ask(scene, rng)
    shown = IMAGE_MARK if task.picture else describe(scene)
    turns = (Turn("user", f"{shown}\n{question}"), Turn("assistant", answer))
    return Record(name, turns, (Picture(scene, rng),) if task.picture else (), task.kind)


def _scene(task: Task, split: Split, rng: np.random.Generator) -> Scene:
    while True:
        scene = pick(rng, task.scenes)(rng)
        # The few sums of two digits are facts to know, not scenes to generalise over: both
        # splits ask all of them.
        if isinstance(scene, Sum) or split_of(scene) == split:
            return scene
