"""Scenes: the facts that a picture shows, and how they are written as text. Nothing is drawn
here.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol, TypeVar
from zlib import crc32

import numpy as np

from sailvit.synthetic.world.vocabulary import CELLS, COLOURS, DIGITS, LETTERS, SHAPES, SIZES

Split = Literal["train", "held_out"]
HELD_OUT_SHARE = 8
"""One scene in this many belongs to the held-out split."""
CROWD_SIDE = 4
"""Cells per side of a crowd."""
GROUP_MOST = 4
"""Most things in a group of a crowd."""
BAR_LEVELS = 5
"""Heights of bars go from 1 to this."""
STRIP_LONGEST = 6
"""Most digits in a row or a column of a strip."""
STRIP_MOST = 8
"""Most digits of a strip."""

_STRIPS = tuple(
    (rows, columns)
    for rows in range(1, STRIP_LONGEST + 1)
    for columns in range(1, STRIP_LONGEST + 1)
    if 2 <= rows * columns <= STRIP_MOST
)
T = TypeVar("T")


class Scene(Protocol):
    """The facts of a picture: a description states all of them, a gist only the coarse ones."""

    def gist(self) -> tuple[str, ...]:
        """Coarse words: the kind of picture, its colours and shapes, but no place, size, number
        or order.
        """

    def phrases(self) -> tuple[str, ...]:
        """The description, phrase by phrase: every fact that a question may ask for."""


Draw = Callable[[np.random.Generator], Scene]


@dataclass(frozen=True)
class Thing:
    """A coloured shape in a cell."""

    cell: int
    """Index of its cell in reading order."""
    size: str
    """`small` or `large`."""
    colour: str
    """One of the colours."""
    shape: str
    """One of the shapes."""

    @property
    def name(self) -> str:
        """Colour and shape; no two objects of a scene have the same name."""
        return f"{self.colour} {self.shape}"

    @property
    def place(self) -> str:
        """Name of its cell in a 2x2 grid."""
        return CELLS[self.cell]


@dataclass(frozen=True)
class Objects:
    """Two or three things in the cells of a 2x2 grid, no two of the same colour and shape."""

    things: tuple[Thing, ...]
    """In reading order."""

    def gist(self) -> tuple[str, ...]:
        """The sets of colours and shapes."""
        return ("shapes", *_kinds(self.things))

    def phrases(self) -> tuple[str, ...]:
        """Place, size, colour and shape of every thing."""
        return tuple(f"{thing.place} {thing.size} {thing.name}" for thing in self.things)


@dataclass(frozen=True)
class Crowd:
    """Two groups of one to four small things in the cells of a 4x4 grid; the groups differ in
    colour, or in shape.
    """

    things: tuple[Thing, ...]
    """In reading order."""
    groups: tuple[str, str]
    """The two colours, or the two shapes, to count."""

    def gist(self) -> tuple[str, ...]:
        """The sets of colours and shapes."""
        return ("many shapes", *_kinds(self.things))

    def phrases(self) -> tuple[str, ...]:
        """Colour and shape of every thing; no question asks for its place."""
        return tuple(thing.name for thing in self.things)

    def count(self, group: str) -> int:
        """Number of things of that colour or shape."""
        return sum(group in (thing.colour, thing.shape) for thing in self.things)


@dataclass(frozen=True)
class Writing:
    """Two or three digits, or letters, in one colour."""

    ink: str
    """Colour of the glyphs."""
    glyphs: tuple[str, ...]
    """In reading order, two on a line."""

    @property
    def text(self) -> str:
        """The glyphs as words."""
        return " ".join(self.glyphs)

    def gist(self) -> tuple[str, ...]:
        """Digits or letters, and the colour."""
        return ("digits" if self.glyphs[0] in DIGITS else "letters", self.ink)

    def phrases(self) -> tuple[str, ...]:
        """Everything in one phrase."""
        return (f"{self.ink} {self.gist()[0]} {self.text}",)


@dataclass(frozen=True)
class Strip:
    """Rows of digits in one colour, on a picture that is as wide and as high as they need."""

    ink: str = field(repr=False)
    """Colour of the digits; it and the shape decide nothing about the split, so that no text is
    in both."""
    columns: int = field(repr=False)
    """Digits of a row."""
    glyphs: tuple[str, ...]
    """The digits in reading order; they fill all rows."""

    @property
    def rows(self) -> int:
        """Number of rows."""
        return len(self.glyphs) // self.columns

    @property
    def text(self) -> str:
        """The digits as words."""
        return " ".join(self.glyphs)

    def gist(self) -> tuple[str, ...]:
        """That there are digits."""
        return ("digits",)

    def phrases(self) -> tuple[str, ...]:
        """The digits alone: no question asks for colour or shape."""
        return (self.text,)


@dataclass(frozen=True)
class Chart:
    """Three or four bars of different colours and different heights."""

    bars: tuple[tuple[str, int], ...]
    """Colour and height of each bar, from left to right."""

    def gist(self) -> tuple[str, ...]:
        """The set of colours."""
        colours = {colour for colour, _ in self.bars}
        return ("bars", *(colour for colour in COLOURS if colour in colours))

    def phrases(self) -> tuple[str, ...]:
        """Colour and height of every bar."""
        return tuple(f"{colour} bar {height}" for colour, height in self.bars)


@dataclass(frozen=True)
class Sum:
    """Two digits to add or subtract; a scene without a picture."""

    left: int
    """First number."""
    sign: str
    """`plus` or `minus`."""
    right: int
    """Second number; if it is subtracted, at most the first."""

    @property
    def result(self) -> int:
        """The value, never negative."""
        return self.left + self.right if self.sign == "plus" else self.left - self.right

    def gist(self) -> tuple[str, ...]:
        """The operation."""
        return (self.sign,)

    def phrases(self) -> tuple[str, ...]:
        """The sum as words."""
        return (f"{self.left} {self.sign} {self.right}",)


def pick(rng: np.random.Generator, choices: Sequence[T]) -> T:
    """One of `choices`, each with the same probability."""
    return choices[int(rng.integers(len(choices)))]


def pick_some(rng: np.random.Generator, choices: Sequence[T], count: int) -> list[T]:
    """`count` different ones of `choices`, in random order."""
    return [choices[i] for i in rng.permutation(len(choices))[:count].tolist()]


def draw_objects(rng: np.random.Generator) -> Objects:
    """Random objects."""
    count = int(rng.integers(2, 4))
    # In reading order, so that a scene has a single description.
    cells = sorted(pick_some(rng, range(len(CELLS)), count))
    # All different, as questions name a thing by colour and shape.
    names = pick_some(rng, range(len(COLOURS) * len(SHAPES)), count)
    sizes = rng.integers(len(SIZES), size=count).tolist()
    things = (
        Thing(cell, SIZES[size], COLOURS[name // len(SHAPES)], SHAPES[name % len(SHAPES)])
        for cell, size, name in zip(cells, sizes, names, strict=True)
    )
    return Objects(tuple(things))


def draw_crowd(rng: np.random.Generator) -> Crowd:
    """A random crowd; both counts are uniform, so that guessing a number gains nothing."""
    by_colour = bool(rng.integers(2))
    grouping, other = (COLOURS, SHAPES) if by_colour else (SHAPES, COLOURS)
    first, second = pick_some(rng, grouping, 2)
    counts = rng.integers(1, GROUP_MOST + 1, size=2).tolist()
    groups = [first] * counts[0] + [second] * counts[1]
    others = [other[i] for i in rng.integers(len(other), size=len(groups)).tolist()]
    cells = pick_some(rng, range(CROWD_SIDE**2), len(groups))
    pairs = zip(groups, others, strict=True) if by_colour else zip(others, groups, strict=True)
    things = (Thing(cell, SIZES[0], *pair) for cell, pair in zip(cells, pairs, strict=True))
    return Crowd(tuple(sorted(things, key=lambda thing: thing.cell)), (first, second))


def draw_writing(rng: np.random.Generator) -> Writing:
    """A random writing."""
    alphabet = pick(rng, (DIGITS, LETTERS))
    glyphs = rng.integers(len(alphabet), size=int(rng.integers(2, 4))).tolist()
    return Writing(pick(rng, COLOURS), tuple(alphabet[i] for i in glyphs))


def draw_digit(rng: np.random.Generator) -> Strip:
    """A random strip of a single digit."""
    return _strip(rng, 1, 1)


def draw_strip(rng: np.random.Generator) -> Strip:
    """A random strip; all shapes are equally likely."""
    return _strip(rng, *pick(rng, _STRIPS))


def _strip(rng: np.random.Generator, rows: int, columns: int) -> Strip:
    digits = rng.integers(len(DIGITS), size=rows * columns).tolist()
    return Strip(pick(rng, COLOURS), columns, tuple(DIGITS[i] for i in digits))


def draw_chart(rng: np.random.Generator) -> Chart:
    """A random chart."""
    count = int(rng.integers(3, 5))
    colours = pick_some(rng, COLOURS, count)
    # All different, so that one bar is the tallest and one the shortest.
    heights = pick_some(rng, range(1, BAR_LEVELS + 1), count)
    return Chart(tuple(zip(colours, heights, strict=True)))


def draw_sum(rng: np.random.Generator) -> Sum:
    """A random sum of digits."""
    left, right = rng.integers(10, size=2).tolist()
    sign = pick(rng, ("plus", "minus"))
    return (
        Sum(left, sign, right) if sign == "plus" else Sum(max(left, right), sign, min(left, right))
    )


def split_of(scene: Scene) -> Split:
    """The split that `scene` belongs to: its content decides, so that no scene is in both."""
    # By `repr`: a change of a scene's fields moves scenes to the other split.
    return "train" if crc32(repr(scene).encode()) % HELD_OUT_SHARE else "held_out"


def _kinds(things: tuple[Thing, ...]) -> tuple[str, ...]:
    present = {word for thing in things for word in (thing.colour, thing.shape)}
    return tuple(word for word in (*COLOURS, *SHAPES) if word in present)
