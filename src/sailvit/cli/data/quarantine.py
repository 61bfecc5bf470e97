"""`sailvit data quarantine RUN`: the records that a run left out because they could not be read."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sailvit.cli.terminal.tables import print_table
from sailvit.core.bad_records import QuarantinedRecord, read_quarantine
from sailvit.core.errors import RunError
from sailvit.core.formatting import counted
from sailvit.core.run import RunFolder

if TYPE_CHECKING:
    from rich.table import Table

_OF_LINES = (".jsonl", ".json", ".tsv")
"""Endings of files in which a place is a line; elsewhere it is a row or a byte."""


def quarantine(
    run: Annotated[Path, typer.Argument(help="Run folder, for instance runs/demo.")],
    everything: Annotated[
        bool, typer.Option("--all", help="List every record, not only counts and examples.")
    ] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print records as JSON lines, and nothing else.")
    ] = False,
) -> None:
    """Count what a run left out, by source and kind, with an example of each."""
    if not RunFolder(run).recipe.is_file():
        raise RunError(
            f"{RunFolder(run).recipe} is not there; expected the folder of a run, for instance"
            " runs/demo"
        )
    records = read_quarantine(RunFolder(run))
    # As text and not through rich, which would wrap and colour the lines.
    if as_json:
        for record in records:
            typer.echo(json.dumps(asdict(record), ensure_ascii=False))
        return
    from rich.console import Console
    from rich.markup import escape

    console = Console()
    if not records:
        console.print(f"{run} left no record out.", highlight=False, soft_wrap=True, markup=False)
        return
    print_table(console, counts_table(records))
    for record in records if everything else examples(records):
        kind, reason = escape(record.kind), escape(record.reason)
        text = f"[bold]{escape(title(record))}[/bold] [red]{kind}[/red] {reason}"
        console.print(text, highlight=False, soft_wrap=True)
    if not everything:
        console.print(
            "One example of each; --all lists every record, --json prints them for programs.",
            style="dim",
        )


def counts(records: Iterable[QuarantinedRecord]) -> dict[tuple[str, str], tuple[int, int]]:
    """Records and how often they were read, by source and kind, the most frequent first."""
    times: Counter[tuple[str, str]] = Counter()
    found: dict[tuple[str, str], dict[tuple[object, ...], int]] = {}
    for bad in records:
        times[bad.source, bad.kind] += bad.count
        # By what they are: a record has a line for every time that it was met, in any epoch.
        found.setdefault((bad.source, bad.kind), {})[bad.what] = bad.count
    return {key: (sum(found[key].values()), met) for key, met in times.most_common()}


def counts_table(records: Iterable[QuarantinedRecord]) -> Table:
    """What was left out, by source and kind."""
    from rich.table import Table

    found = counts(records)
    table = Table(
        title=f"{counted(sum(each for each, _ in found.values()), 'record')} left out",
        title_justify="left",
    )
    table.add_column("source")
    table.add_column("kind")
    table.add_column("records", justify="right")
    table.add_column("times met", justify="right")
    for (source, kind), (each, times) in found.items():
        table.add_row(source, kind, f"{each:,}", f"{times:,}")
    return table


def examples(records: Iterable[QuarantinedRecord]) -> list[QuarantinedRecord]:
    """The first record of every source and kind."""
    first: dict[tuple[str, str], QuarantinedRecord] = {}
    for bad in records:
        first.setdefault((bad.source, bad.kind), bad)
    return list(first.values())


def title(bad: QuarantinedRecord) -> str:
    """Which record is meant, and where it lies."""
    position = "" if bad.position is None else f" {bad.position}"
    name = f"{bad.source}{position}" + (f" ({bad.id})" if bad.id else "")
    place = f" in {bad.shard}" if bad.shard else ""
    unit = " line" if str(bad.shard).endswith(_OF_LINES) else ""
    at = f" at{unit} {bad.offset:,}" if place and bad.offset is not None else ""
    return f"{name}{place}{at}, step {bad.step} of {bad.stage}:"
