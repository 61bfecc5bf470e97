"""The tasks: which scenes a task shows, and what it asks about them. Every question has exactly
one answer.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from sailvit.synthetic.world.scenes import (
    Chart,
    Crowd,
    Draw,
    Objects,
    Scene,
    Strip,
    Sum,
    Thing,
    Writing,
    draw_chart,
    draw_crowd,
    draw_digit,
    draw_objects,
    draw_strip,
    draw_sum,
    draw_writing,
    pick,
    pick_some,
)
from sailvit.synthetic.world.vocabulary import COMMA, PLURALS

READ = "read_"
"""Prefix of the tasks that give a description in place of the picture."""
Ask = Callable[[Any, np.random.Generator], tuple[str, str]]


@dataclass(frozen=True)
class Task:
    """A kind of question."""

    kind: str
    """Kind of its records; the contrastive objective uses those of kind `caption`."""
    scenes: tuple[Draw, ...]
    """Kinds of scenes to ask about, each equally often; one that is listed twice, twice as
    often."""
    ask: Ask
    """Makes the question and its answer from a scene."""
    picture: bool = True
    """Whether the scene is shown; false: its description is given as text."""


def describe(scene: Scene) -> str:
    """The full description of a scene, in a fixed order."""
    return f" {COMMA} ".join(scene.phrases())


def _coarse(scene: Scene, rng: np.random.Generator) -> tuple[str, str]:
    return "what is it ?", f" {COMMA} ".join(scene.gist())


def _fine(scene: Scene, rng: np.random.Generator) -> tuple[str, str]:
    return "describe everything", describe(scene)


def _ocr(scene: Writing | Strip, rng: np.random.Generator) -> tuple[str, str]:
    return "what is written ?", scene.text


def _colour(scene: Objects, rng: np.random.Generator) -> tuple[str, str]:
    thing = pick(rng, scene.things)
    return f"which colour is at the {thing.place} ?", thing.colour


def _shape(scene: Objects, rng: np.random.Generator) -> tuple[str, str]:
    thing = pick(rng, scene.things)
    return f"which shape is at the {thing.place} ?", thing.shape


def _size(scene: Objects, rng: np.random.Generator) -> tuple[str, str]:
    thing = pick(rng, scene.things)
    return f"how large is the {thing.name} ?", thing.size


def _where(scene: Objects, rng: np.random.Generator) -> tuple[str, str]:
    thing = pick(rng, scene.things)
    return f"where is the {thing.name} ?", thing.place


def _beside(scene: Objects, rng: np.random.Generator) -> tuple[str, str]:
    # Only sides with a single thing on it are asked for, so that there is one answer; with two
    # or three things, such a side always exists.
    sides = {
        (thing, side): _on_side(scene, thing, side) for thing in scene.things for side in _SIDES
    }
    (thing, side), (found,) = pick(
        rng, [(key, found) for key, found in sides.items() if len(found) == 1]
    )
    return f"what is {side} the {thing.name} ?", f"{found.size} {found.name}"


def _relation(scene: Objects, rng: np.random.Generator) -> tuple[str, str]:
    first, second = pick_some(rng, scene.things, 2)
    # Things in one row are neither above nor below each other: such a question would be unfair.
    apart = [side for side in _SIDES if _lies(first, side, second) or _lies(second, side, first)]
    side = pick(rng, apart)
    return f"is the {first.name} {side} the {second.name} ?", "yes" if _lies(
        first, side, second
    ) else "no"


def _count(scene: Crowd, rng: np.random.Generator) -> tuple[str, str]:
    group = pick(rng, scene.groups)
    return f"how many {PLURALS.get(group, f'{group} shapes')} are there ?", str(scene.count(group))


def _tallest(scene: Chart, rng: np.random.Generator) -> tuple[str, str]:
    order = sorted(scene.bars, key=lambda bar: bar[1])
    word, (colour, _) = pick(rng, (("shortest", order[0]), ("tallest", order[-1])))
    return f"which bar is {word} ?", colour


def _height(scene: Chart, rng: np.random.Generator) -> tuple[str, str]:
    colour, height = pick(rng, scene.bars)
    return f"how tall is the {colour} bar ?", str(height)


def _sum(scene: Sum, rng: np.random.Generator) -> tuple[str, str]:
    # Digit by digit, as the vocabulary has no word for 12.
    return "how much is it ?", " ".join(str(scene.result))


# Axis of the 2x2 grid (0 across, 1 down), and the way along it.
_SIDES = {"left of": (0, -1), "right of": (0, 1), "above": (1, -1), "below": (1, 1)}


def _lies(thing: Thing, side: str, other: Thing) -> bool:
    axis, sign = _SIDES[side]
    steps = (thing.cell % 2 - other.cell % 2, thing.cell // 2 - other.cell // 2)
    return steps[axis] * sign > 0


def _on_side(scene: Objects, thing: Thing, side: str) -> list[Thing]:
    return [other for other in scene.things if _lies(other, side, thing)]


_OBJECTS, _CROWD, _WRITING, _CHART = (draw_objects,), (draw_crowd,), (draw_writing,), (draw_chart,)

_ASKED_OF_PICTURES = {
    "coarse": Task(
        "caption", (draw_objects, draw_objects, draw_crowd, draw_writing, draw_chart), _coarse
    ),
    "fine": Task(
        "caption", (draw_objects, draw_objects, draw_objects, draw_writing, draw_chart), _fine
    ),
    "ocr": Task("ocr", _WRITING, _ocr),
    "digit": Task("ocr", (draw_digit,), _ocr),
    "strip": Task("ocr", (draw_strip,), _ocr),
    "colour": Task("qa", _OBJECTS, _colour),
    "shape": Task("qa", _OBJECTS, _shape),
    "size": Task("qa", _OBJECTS, _size),
    "where": Task("qa", _OBJECTS, _where),
    "beside": Task("qa", _OBJECTS, _beside),
    "relation": Task("qa", _OBJECTS, _relation),
    "count": Task("count", _CROWD, _count),
    "tallest": Task("chart", _CHART, _tallest),
    "height": Task("chart", _CHART, _height),
}

TASKS: dict[str, Task] = {
    **_ASKED_OF_PICTURES,
    **{
        READ + name: Task("reading", task.scenes, task.ask, picture=False)
        for name, task in _ASKED_OF_PICTURES.items()
    },
    "sum": Task("text", (draw_sum,), _sum, picture=False),
}
"""Every task by name."""

IMAGE_TASKS = tuple(_ASKED_OF_PICTURES)
"""Tasks that show a picture."""
READING_TASKS = tuple(READ + name for name in IMAGE_TASKS)
"""The same questions about descriptions, from which a language learns without a tower."""
TEXT_TASKS = ("sum",)
"""Tasks without any scene to show."""
EVAL_TASKS = ("fine", "ocr", "colour", "shape", "where", "beside", "count", "tallest", "height")
"""Tasks that measure a tower: no coarse captions, and no question with two possible answers,
half of which are guessed right."""
