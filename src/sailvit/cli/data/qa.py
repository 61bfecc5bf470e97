"""`sailvit data qa SRC`: turn captions into questions with answers."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

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

_TOKENS = 1024
"""Most tokens of a reply: the 20 pairs that one record may give, at 50 tokens each."""


def qa(  # noqa: PLR0913, PLR0917 - the options of a command
    path: Source,
    out: Out,
    templates: Annotated[
        Path | None,
        typer.Option(help="Text file of prompts with {caption}, separated by lines of ---."),
    ] = None,
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
    """Ask a model for questions and answers that follow from captions; write LLaVA rows.

    Start the same command again to go on: replies are kept, and only what is missing is asked.
    """
    from rich.console import Console

    from sailvit.cli.data.opening import open_named
    from sailvit.dataprep.annotate.pairs import write_pairs
    from sailvit.dataprep.annotate.prompts import PAIRS, read_prompts

    _check_out(path, out, overwrite=overwrite)
    console = Console(markup=False)
    prompts = PAIRS if templates is None else read_prompts(templates)
    ((_, source),) = open_named([path], format_name, images).items()
    count = min(len(source), limit or len(source))
    choice = Choice(endpoint, model, key_variable, mllm, stage, concurrency, timeout, _TOKENS)
    kept = cache or out.with_name(out.name + ".cache")
    with asking(choice, kept, console, count) as (responder, report):
        harvest = write_pairs(
            source, prompts, responder, out=out, positions=range(count), report=report
        )
    console.print(
        f"{counted(harvest.pairs, 'question')} about {counted(harvest.records, 'record')} in {out};"
        f" {counted(harvest.bad, 'reply', 'replies')} without a list of questions,"
        f" {counted(harvest.failed, 'failure')}: {out.stem}-bad.jsonl says which",
        highlight=False,
        soft_wrap=True,
    )
    if not harvest.records:
        raise typer.Exit(1)


def _check_out(path: str, out: Path, *, overwrite: bool) -> None:
    refuse_same(path, out)
    rows = {"id": None, "conversations": None, "kind": "qa"}
    refuse_foreign_file(out, rows, overwrite=overwrite)
    # The list of refused replies is written from the start too, so it must be ours as well.
    refused = dict.fromkeys(("position", "id", "raw", "error"))
    refuse_foreign_file(out.with_name(f"{out.stem}-bad.jsonl"), refused, overwrite=overwrite)
