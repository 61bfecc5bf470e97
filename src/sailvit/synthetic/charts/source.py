"""Charts as a source of records: captions, and conversations of several questions about one
chart.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, get_args

import numpy as np
from pydantic import Field, field_validator

from sailvit.core.config import Config
from sailvit.core.recipe import Count, Positive, Share, SourceConfig
from sailvit.core.records import IMAGE_MARK, Record, Turn
from sailvit.synthetic.charts.captions import REQUESTS, caption_of
from sailvit.synthetic.charts.clouds import Cloud, cloud_questions, draw_cloud
from sailvit.synthetic.charts.figure import ChartDrawing
from sailvit.synthetic.charts.questions import ChartQuestion, some_questions
from sailvit.synthetic.charts.styles import some_style
from sailvit.synthetic.charts.tables import Table, TableKind, draw_table
from sailvit.synthetic.drawn_source import DrawnSource, drawn_options, named_shares

KINDS = (*get_args(TableKind), "scatter")
"""Every kind of chart."""
Pixels = Annotated[int, Field(ge=300, le=4000)]
Sides = tuple[Pixels, Pixels]


class ChartsOptions(Config):
    """Options of drawn charts."""

    size: Count
    """Number of records."""
    seed: int = 0
    """Seed of all random choices."""
    kinds: Annotated[dict[str, Positive], Field(min_length=1)] = dict.fromkeys(KINDS, 1.0)
    """Shares of the kinds of charts; a single name or a list of names gives equal shares."""
    captions: Share = 0.3
    """Share of the records that are captions; the others ask questions."""
    questions: Count = 4
    """Most questions about one chart."""
    width: Sides = (360, 900)
    """Smallest and largest width, in pixels."""
    height: Sides = (300, 680)
    """Smallest and largest height, in pixels."""

    @field_validator("kinds", mode="before")
    @classmethod
    def _named(cls, value: Any) -> Any:
        return named_shares(value, KINDS, "there is no kind of chart")

    @field_validator("width", "height")
    @classmethod
    def _rising(cls, value: Sides) -> Sides:
        if value[0] > value[1]:
            raise ValueError(f"found {value[0]} to {value[1]}; write the smaller number first")
        return value


class ChartsSource(DrawnSource):
    """Drawn charts with captions or questions."""

    noun = "charts"

    def __init__(self, options: ChartsOptions) -> None:
        self.options = options
        super().__init__(options.size, options.seed, options.kinds, "charts")

    def record(self, position: int, kind: str, rng: np.random.Generator) -> Record:
        """A chart with a caption, or with questions about it."""
        chart = draw_chart(rng, kind)
        drawing = ChartDrawing(chart, some_style(rng, self.options.width, self.options.height))
        name = f"{kind}-{position}"
        if rng.random() < self.options.captions:
            request = REQUESTS[rng.integers(len(REQUESTS))]
            return _record(
                name,
                [ChartQuestion("caption", request, caption_of(rng, chart))],
                drawing,
                "caption",
            )
        count = int(rng.integers(1, self.options.questions + 1))
        return _record(name, ask_about(rng, chart, count), drawing, "chart")

    @property
    def determined_by(self) -> list[Any]:
        """The options."""
        return [self.options.model_dump()]


def open_charts(config: SourceConfig, folder: Path) -> ChartsSource:
    """The charts that `config.options` describes; it reads no file, so `folder` is not used."""
    return ChartsSource(drawn_options(ChartsOptions, config.options, "charts"))


def draw_chart(rng: np.random.Generator, kind: str) -> Table | Cloud:
    """A random chart of one kind."""
    return draw_cloud(rng) if kind == "scatter" else draw_table(rng, _table_kind(kind))


def ask_about(rng: np.random.Generator, chart: Table | Cloud, count: int) -> list[ChartQuestion]:
    """Up to `count` questions of different forms about a chart."""
    return (
        cloud_questions(rng, chart, count)
        if isinstance(chart, Cloud)
        else some_questions(rng, chart, count)
    )


def _table_kind(name: str) -> TableKind:
    return next(kind for kind in get_args(TableKind) if kind == name)


def _record(name: str, questions: list[ChartQuestion], drawing: ChartDrawing, kind: str) -> Record:
    turns: list[Turn] = []
    for question in questions:
        shown = "" if turns else f"{IMAGE_MARK}\n"
        turns += [Turn("user", shown + question.text), Turn("assistant", question.answer)]
    return Record(name, tuple(turns), (drawing,), kind)
