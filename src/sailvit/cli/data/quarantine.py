"""`sailvit data quarantine RUN`: the records that a run left out because they could not be read."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sailvit.core.run import RunFolder, read_lines

if TYPE_CHECKING:
    from rich.table import Table

_OF_LINES = (".jsonl", ".json", ".tsv")
"""Endings of files in which a place is a line; elsewhere it is a row or a byte."""
Line = Mapping[str, Any]
"""A record that was left out: stage, step, source, position, id, kind, reason, and shard and
offset where known."""


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
    lines = read_quarantine(RunFolder(run))
    if as_json:
        for line in lines:
            typer.echo(json.dumps(line, ensure_ascii=False))
        return
    from rich.console import Console
    from rich.markup import escape

    console = Console()
    if not lines:
        console.print(f"{run} left no record out.", highlight=False, soft_wrap=True, markup=False)
        return
    console.print(counts_table(lines))
    shown: list[Line] = [*lines] if everything else examples(lines)
    for record in shown:
        text = f"[bold]{escape(title(record))}[/bold] [red]{escape(record['kind'])}[/red] {escape(record['reason'])}"
        console.print(text, highlight=False, soft_wrap=True)
    if not everything:
        console.print(
            "One example of each; --all lists every record, --json prints them for programs.",
            style="dim",
        )


def read_quarantine(run: RunFolder) -> list[dict[str, Any]]:
    """The lines of all ranks in the order of their steps; RunError when there is no such run.

    A step that was repeated after an interruption counts once.
    """
    from sailvit.core.errors import RunError

    if not run.recipe.is_file():
        raise RunError(
            f"{run.recipe} is not there; expected the folder of a run, for instance runs/demo"
        )
    found = {_met(line): line for file in run.quarantines for line in read_lines(file)}
    stages = list(dict.fromkeys(stage for stage, *_ in found))
    return sorted(
        found.values(), key=lambda line: (stages.index(line.get("stage")), line.get("step") or 0)
    )


def counts(lines: Iterable[Line]) -> dict[tuple[str, str], tuple[int, int]]:
    """Records and how often they were met, by source and kind, the most frequent first."""
    times: Counter[tuple[str, str]] = Counter()
    records: dict[tuple[str, str], dict[Any, int]] = {}
    for line in lines:
        key, count = (line["source"], line["kind"]), line.get("count", 1)
        times[key] += count
        records.setdefault(key, {})[_meant(line)] = count
    return {key: (sum(records[key].values()), met) for key, met in times.most_common()}


def _met(line: Line) -> tuple[Any, ...]:
    """What tells a meeting with damage from every other; a step that is repeated repeats it."""
    return (
        line.get("stage"),
        line.get("step"),
        line.get("source"),
        *_meant(line),
        line.get("kind"),
    )


def _meant(line: Line) -> tuple[Any, ...]:
    """Which record or, where no position is known, which place in which file is damaged."""
    position = line.get("position")
    return (None, line.get("shard"), line.get("offset")) if position is None else (position,)


def counts_table(lines: Iterable[Line]) -> Table:
    """What was left out, by source and kind."""
    from rich.table import Table

    found = counts(lines)
    table = Table(
        title=f"{sum(records for records, _ in found.values()):,} records left out",
        title_justify="left",
    )
    table.add_column("source")
    table.add_column("kind")
    table.add_column("records", justify="right")
    table.add_column("times met", justify="right")
    for (source, kind), (records, times) in found.items():
        table.add_row(source, kind, f"{records:,}", f"{times:,}")
    return table


def examples(lines: Iterable[Line]) -> list[Line]:
    """The first record of every source and kind."""
    first: dict[tuple[str, str], Line] = {}
    for line in lines:
        first.setdefault((line["source"], line["kind"]), line)
    return list(first.values())


def title(line: Line) -> str:
    """Which record a line means, and where it lies."""
    position = "" if line.get("position") is None else f" {line['position']}"
    name = f"{line['source']}{position}" + (f" ({line['id']})" if line.get("id") else "")
    place = f" in {line['shard']}" if line.get("shard") else ""
    unit = " line" if str(line.get("shard")).endswith(_OF_LINES) else ""
    at = f" at{unit} {line['offset']:,}" if place and line.get("offset") is not None else ""
    return f"{name}{place}{at}, step {line['step']} of {line['stage']}:"
