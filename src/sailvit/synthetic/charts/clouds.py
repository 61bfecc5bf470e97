"""Scatter plots: groups of points whose coordinates can be read off the grid, and questions
about them.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sailvit.synthetic.charts.colours import Colours, some_colours
from sailvit.synthetic.charts.questions import ChartQuestion, only
from sailvit.synthetic.charts.topics import KINS, some_names

_MEASURES = (
    ("age", "years", "height", "centimetres"),
    ("distance", "kilometres", "price", "euros"),
    ("study time", "hours", "score", "points"),
    ("temperature", "degrees Celsius", "visitors", "thousands"),
    ("weight", "kilograms", "range", "metres"),
    ("speed", "kilometres per hour", "fuel use", "litres"),
    ("floor area", "square metres", "rent", "hundred euros"),
    ("dose", "milligrams", "growth", "millimetres"),
)
_GROUPS = ("brands", "cities", "teams", "crops", "animals", "methods")


@dataclass(frozen=True)
class Cloud:
    """The content of a scatter plot. Every coordinate lies on a grid line or half-way between
    two, and no two points are at the same place.
    """

    title: str
    """The title."""
    x: str
    """Measure of the horizontal axis."""
    y: str
    """Measure of the vertical axis."""
    units: tuple[str, str]
    """Units of both measures."""
    noun: str
    """What a group is, such as `team`."""
    groups: tuple[str, ...]
    """Names in the legend; one empty name for a single group."""
    points: tuple[tuple[tuple[int, int], ...], ...]
    """The points of each group."""
    steps: tuple[int, int]
    """Distance of grid lines along both axes."""
    tops: tuple[int, int]
    """Ends of both axes, which start at 0."""
    colours: Colours
    """Colours of the groups."""

    @property
    def everything(self) -> list[tuple[int, int]]:
        """The points of all groups."""
        return [point for group in self.points for point in group]


def draw_cloud(rng: np.random.Generator) -> Cloud:
    """A random scatter plot."""
    x, x_unit, y, y_unit = _MEASURES[rng.integers(len(_MEASURES))]
    kin = KINS[_GROUPS[rng.integers(len(_GROUPS))]]
    count = int(rng.integers(1, 4))
    steps = tuple(int(step) for step in rng.choice((2, 4, 10, 20), 2))
    lines = rng.integers(5, 9, 2)
    slope = rng.choice((-1, 0, 1))
    places = _places(rng, 2 * lines, int(rng.integers(3 * count, 6 * count + 1)), slope)
    points = [(int(i) * steps[0] // 2, int(j) * steps[1] // 2) for i, j in places]
    # Every group gets one point, the other points are dealt at random.
    owners = np.concatenate([np.arange(count), rng.integers(0, count, len(points) - count)])
    return Cloud(
        title=f"{y.capitalize()} and {x}" + (f" by {kin.noun}" if count > 1 else ""),
        x=x,
        y=y,
        units=(x_unit, y_unit),
        noun=kin.noun,
        groups=some_names(rng, kin, count) if count > 1 else ("",),
        points=tuple(
            tuple(point for point, owner in zip(points, owners, strict=True) if owner == group)
            for group in range(count)
        ),
        steps=(steps[0], steps[1]),
        tops=(int(lines[0]) * steps[0], int(lines[1]) * steps[1]),
        colours=some_colours(rng, count),
    )


def _places(
    rng: np.random.Generator, sides: NDArray[np.int64], count: int, slope: int
) -> list[tuple[int, int]]:
    """`count` different places inside the frame, in half steps of the grid; along a slope of 1
    or -1, or anywhere for 0.
    """
    # Not a set, whose order is Python's affair: drawn data must be the same everywhere.
    taken: dict[tuple[int, int], None] = {}
    while len(taken) < count:
        across = rng.uniform(0, 1)
        up = rng.uniform(0, 1) if slope == 0 else 0.5 + slope * (across - 0.5) + rng.normal(0, 0.12)
        place = (
            # Never on the frame, which would cut a mark in half.
            round(1 + across * (sides[0] - 2)),
            round(1 + float(np.clip(up, 0, 1)) * (sides[1] - 2)),
        )
        taken[place] = None
    return list(taken)


def cloud_questions(rng: np.random.Generator, cloud: Cloud, count: int) -> list[ChartQuestion]:
    """Up to `count` questions of different forms."""
    every = [*_about_points(rng, cloud), *_about_groups(rng, cloud)]
    return [every[index] for index in rng.permutation(len(every))[:count].tolist()]


def _about_points(rng: np.random.Generator, cloud: Cloud) -> list[ChartQuestion]:
    points = cloud.everything
    found = [
        ChartQuestion("points", "How many points does the chart show?", str(len(points))),
        ChartQuestion("title", "What is the title of the chart?", cloud.title),
        ChartQuestion("kind", "What kind of chart is this?", "scatter plot"),
    ]
    for axis, names in enumerate(((cloud.x, cloud.y), (cloud.y, cloud.x))):
        along = [point[axis] for point in points]
        word, wanted = (("highest", max(along)), ("lowest", min(along)))[rng.integers(2)]
        place = only(along, wanted)
        if place is not None:
            text = f"What is the {names[1]} of the point with the {word} {names[0]}"
            text += f", in {cloud.units[1 - axis]}?"
            found.append(ChartQuestion("end point", text, str(points[place][1 - axis])))
    return found


def _about_groups(rng: np.random.Generator, cloud: Cloud) -> list[ChartQuestion]:
    if len(cloud.groups) == 1:
        return []
    sizes = [len(group) for group in cloud.points]
    index = int(rng.integers(len(cloud.groups)))
    found = [
        ChartQuestion(
            "group size", f"How many points belong to {cloud.groups[index]}?", str(sizes[index])
        )
    ]
    if (most := only(sizes, max(sizes))) is not None:
        found.append(
            ChartQuestion(
                "most points", f"Which {cloud.noun} has the most points?", cloud.groups[most]
            )
        )
    if cloud.colours.names:
        colour = cloud.colours.names[index]
        found.append(
            ChartQuestion("colour", f"Which colour stands for {cloud.groups[index]}?", colour)
        )
    return found
