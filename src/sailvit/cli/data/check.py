"""`sailvit data check SRC...`: what is wrong with data, by kind, with the place of each."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sailvit.cli.data.opening import Format, Images, Overwrite, Workers
from sailvit.core.formatting import counted
from sailvit.core.outputs import refuse_foreign_file, write_output

if TYPE_CHECKING:
    from rich.console import Console

    from sailvit.core.bad_records import BadRecord
    from sailvit.dataprep.prepare.checking import CheckReport

MARK = dict.fromkeys(("records", "checked", "images", "bad"))
"""Keys of a report of this command."""


def check(  # noqa: PLR0913, PLR0917 - the options of a command
    sources: Annotated[
        list[str], typer.Argument(metavar="SRC", help="Files, folders, globs or URLs of data.")
    ],
    format_name: Format = None,
    images: Images = None,
    recipe: Annotated[
        Path | None,
        typer.Option(help="Recipe to tokenize with; left out, texts are checked but not counted."),
    ] = None,
    samples: Annotated[
        int | None, typer.Option(min=1, help="Read about this many records, drawn at random.")
    ] = None,
    examples: Annotated[int, typer.Option(min=1, help="Most places shown of each kind.")] = 5,
    json_file: Annotated[
        Path | None, typer.Option("--json", help="Write the report to this file.")
    ] = None,
    workers: Workers = 0,
    overwrite: Overwrite = False,
) -> None:
    """Read every record, decode its images, and list faults; exit with 1 if there are any."""
    from rich.console import Console

    from sailvit.cli.data.opening import open_named, processor_of
    from sailvit.cli.terminal.steps import steps_shown
    from sailvit.dataprep.prepare.checking import check as read

    if json_file is not None:
        refuse_foreign_file(json_file, MARK, overwrite=overwrite)
    console = Console()
    opened = open_named(sources, format_name, images)
    with steps_shown(console) as shown:
        report = read(
            opened,
            processor=processor_of(recipe),
            samples=samples,
            most=examples,
            workers=workers,
            progress=shown,
        )
    show(console, report)
    if json_file is not None:
        write_output(json_file, json.dumps(report.model_dump(), indent=1) + "\n")
        console.print(f"report: {json_file}", highlight=False, soft_wrap=True, markup=False)
    # Without records too: a wrong path must not pass for clean data.
    if report.bad or not report.records:
        raise typer.Exit(1)


def show(console: Console, report: CheckReport) -> None:
    """Print what was read and what is wrong, by kind."""
    from rich.markup import escape

    read = f"{report.checked:,} of " if report.checked < report.records else ""
    console.print(
        f"{read}{counted(report.records, 'record')} read, {counted(report.images, 'image')} decoded",
        highlight=False,
    )
    for kind, count in report.bad.items():
        found = [finding for finding in report.examples if finding.kind == kind]
        more = (
            f", the first {len(found)}" if count > sum(finding.count for finding in found) else ""
        )
        console.print(f"[red]{escape(kind)}[/red]: {count:,}{more}", highlight=False)
        for finding in found:
            text = f"  {where(finding)}\n    {finding.reason}"
            console.print(escape(text), highlight=False, soft_wrap=True)
    show_unread(console, report.unread)
    if not report.records:
        console.print("[red]no records[/red]", highlight=False)
    elif not report.bad:
        console.print("[green]nothing is wrong[/green]", highlight=False)


def show_unread(console: Console, unread: Mapping[str, Mapping[str, int]]) -> None:
    """Print, once per source, the keys of its rows that hold something and are not read."""
    from rich.markup import escape

    from sailvit.data.rows.keys import unread_line

    for name, counts in unread.items():
        text = f"[yellow]{escape(unread_line(name, counts))}[/yellow]"
        console.print(text, highlight=False, soft_wrap=True)


def where(finding: BadRecord) -> str:
    """Source, position, file and id of what is wrong, as far as they are known."""
    position = None if finding.position is None else f"position {finding.position}"
    name = None if finding.id is None else f"record {finding.id}"
    return ", ".join(filter(None, [finding.source, position, finding.place, name]))
