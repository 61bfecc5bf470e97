"""`sailvit data judge SRC`: score records by a model's judgement, for the `scores` filter of
`sailvit data curate`.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sailvit.cli.data.asking import (
    Cache,
    Choice,
    Concurrency,
    Key,
    Mllm,
    Model,
    Out,
    Records,
    Source,
    StageName,
    Timeout,
    Url,
    asking,
    refuse_same,
)
from sailvit.cli.data.opening import Format, Images, Overwrite
from sailvit.core.formatting import counted
from sailvit.core.outputs import refuse_foreign_file

if TYPE_CHECKING:
    from sailvit.dataprep.annotate.judging import Criterion

_TOKENS = 64
"""Most tokens of an answer: a score is one digit, and models put a sentence around it."""


def judge(  # noqa: PLR0913, PLR0917 - the options of a command
    path: Source,
    out: Out,
    ask: Annotated[
        str, typer.Option(help="richness, alignment, or a text file with {caption} in it.")
    ] = "richness",
    scale: Annotated[str, typer.Option(help="What may be answered: 1-5 or yes-no.")] = "1-5",
    format_name: Format = None,
    images: Images = None,
    endpoint: Url = None,
    model: Model = None,
    key_variable: Key = None,
    mllm: Mllm = None,
    stage: StageName = None,
    limit: Records = None,
    concurrency: Concurrency = 8,
    timeout: Timeout = 120,
    cache: Cache = None,
    overwrite: Overwrite = False,
) -> None:
    """Ask a model how rich or fitting each caption is, and write a score per record.

    Start the same command again to go on: replies are kept, and only what is missing is asked.
    """
    from rich.console import Console

    from sailvit.cli.data.opening import open_named
    from sailvit.dataprep.annotate.judging import judge as judge_records

    _check_out(path, out, overwrite=overwrite)
    console, criterion = Console(markup=False), _criterion(ask, scale)
    ((name, source),) = open_named([path], format_name, images).items()
    count = min(len(source), limit or len(source))
    choice = Choice(endpoint, model, key_variable, mllm, stage, concurrency, timeout, _TOKENS)
    kept = cache or out.with_name(out.name + ".cache")
    with asking(choice, kept, console, count) as (responder, report):
        counts = judge_records(
            source, name, criterion, responder, out=out, positions=range(count), report=report
        )
    scores = (
        ", ".join(f"{score}: {counts.scores[score]}" for score in sorted(counts.scores)) or "none"
    )
    console.print(
        f"{counted(count, 'record')} in {out}; scores {scores};"
        f" {counted(counts.bad, 'answer')} without a score, {counted(counts.failed, 'failure')}",
        highlight=False,
        soft_wrap=True,
    )
    if not counts.scores:
        raise typer.Exit(1)


def _check_out(path: str, out: Path, *, overwrite: bool) -> None:
    refuse_same(path, out)
    # The keys of this command's lines: only a file of such lines is its own to replace.
    lines = dict.fromkeys(("source", "position", "id", "question"))
    refuse_foreign_file(out, lines, overwrite=overwrite)


def _criterion(ask: str, scale: str) -> Criterion:
    from sailvit.core.errors import DataError
    from sailvit.dataprep.annotate.judging import SCALES, Criterion
    from sailvit.dataprep.annotate.prompts import QUESTIONS, read_prompts

    chosen = next((known for known in SCALES if known == scale), None)
    if chosen is None:
        raise DataError(f"there is no scale {scale!r}; write {' or '.join(SCALES)}")
    if ask in QUESTIONS:
        if chosen != "1-5":
            raise DataError(
                f"{ask} is answered on the scale 1-5; leave out --scale, or write a question of your own"
            )
        return Criterion(ask, QUESTIONS[ask], chosen)
    prompts = read_prompts(Path(ask))
    if len(prompts) > 1:
        raise DataError(
            f"{ask} holds {len(prompts)} questions; a judge asks one: make it one file each"
        )
    return Criterion(Path(ask).stem, prompts[0], chosen)
