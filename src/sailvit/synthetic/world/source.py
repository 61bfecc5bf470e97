"""The world as a source of records."""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from pydantic import Field, field_validator

from sailvit.core.config import Config
from sailvit.core.recipe import Count, Positive, SourceConfig
from sailvit.core.records import IMAGE_MARK, Record, Turn
from sailvit.synthetic.drawn_source import DrawnSource, drawn_options, named_shares
from sailvit.synthetic.world.rendering import draw, size_of
from sailvit.synthetic.world.scenes import Scene, Split, Strip, Sum, pick, split_of
from sailvit.synthetic.world.tasks import TASKS, Task, describe


class WorldOptions(Config):
    """Options of a world."""

    tasks: Annotated[dict[str, Positive], Field(min_length=1)]
    """Share of the records per task; a single name or a list of names gives equal shares."""
    size: Count
    """Number of records."""
    split: Split = "train"
    """`train` or `held_out`; no scene is in both."""
    seed: int = 0
    """Seed of all random choices."""

    @field_validator("tasks", mode="before")
    @classmethod
    def _named(cls, value: Any) -> Any:
        return named_shares(value, TASKS, "the world has no task")


@dataclass(frozen=True, eq=False)
class Picture:
    """A scene that is drawn when its pixels are needed; drawing takes two thirds of a record's
    time.
    """

    scene: Scene
    """The scene that it shows."""
    rng: np.random.Generator
    """The record's generator after its other choices. It is copied before it is used, so that
    every drawing is the same."""

    @property
    def size(self) -> tuple[int, int]:
        """Width and height, in pixels."""
        return size_of(self.scene)

    def pixels(self) -> np.ndarray:
        """uint8[H, W, 3]."""
        return draw(self.scene, deepcopy(self.rng))


class WorldSource(DrawnSource):
    """The world's records."""

    noun = "scenes"

    def __init__(
        self, split: Split, tasks: str | Mapping[str, float], size: int, seed: int = 0
    ) -> None:
        given = tasks if isinstance(tasks, str) else dict(tasks)
        self.options = _options({"split": split, "tasks": given, "size": size, "seed": seed})
        super().__init__(size, seed, self.options.tasks, "world", split)

    def record(self, position: int, kind: str, rng: np.random.Generator) -> Record:
        """A scene, as a picture or as a description, with a question of the task `kind`."""
        split = self.options.split
        return _record(f"{kind}-{split}-{position}", TASKS[kind], split, rng)

    @property
    def determined_by(self) -> list[Any]:
        """The options."""
        return [self.options.model_dump()]


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
    # Drawn anew until the split is right: eight draws on average for the held-out one.
    while True:
        scene = pick(rng, task.scenes)(rng)
        # The few sums and single digits are facts to know, not scenes to generalise to: both
        # splits ask all of them.
        known = isinstance(scene, Sum) or (isinstance(scene, Strip) and len(scene.glyphs) == 1)
        if known or split_of(scene) == split:
            return scene
