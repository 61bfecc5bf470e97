"""`sailvit data documents`: write drawn pages of text with transcriptions and questions as
files.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from sailvit.cli.data.rendering import Count, Out, Seed, Workers, write_drawn


def documents(  # noqa: PLR0913, PLR0917 - one option each
    out: Out,
    count: Count,
    seed: Seed = 0,
    workers: Workers = 1,
    kinds: Annotated[
        str | None, typer.Option(help="Kinds of documents, with commas between; all when left out.")
    ] = None,
    transcriptions: Annotated[
        float, typer.Option(min=0, max=1, help="Share of records that ask for all text.")
    ] = 0.5,
    worn: Annotated[
        float, typer.Option(min=0, max=1, help="Share of slanted, blurred, compressed pages.")
    ] = 0.7,
    fonts: Annotated[
        Path | None, typer.Option(help="Folder of .ttf and .otf files to use.")
    ] = None,
    text: Annotated[
        Path | None, typer.Option(help="UTF-8 file whose lines fill the paragraphs.")
    ] = None,
) -> None:
    """Draw pages, receipts, tables, forms and signs, with transcriptions and questions.

    In a recipe, format `documents` gives the same records without files, drawn when they are
    read.
    """
    options = {"size": count, "seed": seed, "transcriptions": transcriptions, "worn": worn}
    files = {name: str(path.resolve()) for name, path in (("fonts", fonts), ("text", text)) if path}
    write_drawn("documents", {**options, **files}, kinds, out, workers)
