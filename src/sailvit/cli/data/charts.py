"""`sailvit data charts`: write drawn charts with captions and questions as files."""

from __future__ import annotations

from typing import Annotated

import typer

from sailvit.cli.data.rendering import Count, Out, Seed, Workers, write_drawn


def charts(
    out: Out,
    count: Count,
    seed: Seed = 0,
    workers: Workers = 1,
    kinds: Annotated[
        str | None, typer.Option(help="Kinds of charts, with commas between; all when left out.")
    ] = None,
    captions: Annotated[
        float, typer.Option(min=0, max=1, help="Share of captions among the records.")
    ] = 0.3,
    questions: Annotated[int, typer.Option(min=1, help="Most questions about one chart.")] = 4,
) -> None:
    """Draw charts of eleven kinds, with captions and questions whose answers are exact.

    In a recipe, format `charts` gives the same records without files, drawn when they are read.
    """
    options = {"size": count, "seed": seed, "captions": captions, "questions": questions}
    write_drawn("charts", options, kinds, out, workers)
