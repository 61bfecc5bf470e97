"""`sailvit data stats SRC...`: what data sets hold, as a table, JSON and a page with pictures."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sailvit.cli.data.opening import Format, Images, Overwrite, Workers
from sailvit.cli.terminal.tables import print_table
from sailvit.core.formatting import counted, percent, rate
from sailvit.core.outputs import refuse_foreign_file, write_output

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

LABELS = {
    "width": "image width",
    "height": "image height",
    "aspect": "width / height",
    "bytes": "image bytes",
    "answer_characters": "answer characters",
    "characters": "all characters",
    "tokens": "tokens",
    "tiles": "tiles",
    "turns": "turns",
    "images_per_record": "images",
}
"""How the table names measures, by their names in the JSON."""


Sources = Annotated[
    list[str], typer.Argument(metavar="SRC", help="Files, folders, globs or URLs of data.")
]
CountedBy = Annotated[
    Path | None,
    typer.Option(help="Recipe whose tokenizer and tiles are counted with; left out, they are not."),
]
Samples = Annotated[
    int | None,
    typer.Option(min=1, help="Read this many records, evenly spaced, instead of all."),
]
Near = Annotated[bool, typer.Option("--near/--no-near", help="Decode images, to find near copies.")]
JsonFile = Annotated[Path | None, typer.Option("--json", help="Write all figures to this file.")]
Html = Annotated[
    Path | None, typer.Option(help="Write a page with charts and pictures to this file.")
]


def stats(  # noqa: PLR0913, PLR0917 - the options of a command
    sources: Sources,
    format_name: Format = None,
    images: Images = None,
    recipe: CountedBy = None,
    samples: Samples = None,
    near: Near = True,
    words: Annotated[int, typer.Option(min=1, help="Words of an n-gram.")] = 4,
    json_file: JsonFile = None,
    html: Html = None,
    workers: Workers = 0,
    overwrite: Overwrite = False,
) -> None:
    """Count kinds, sizes, lengths, languages, copies and repeated phrases of data, in one pass."""
    # torch takes seconds to import; `sailvit --help` should not wait for it.
    from rich.console import Console

    from sailvit.cli.data.opening import fault_lines, open_named, processor_of
    from sailvit.cli.terminal.steps import steps_shown
    from sailvit.dataprep.stats.stats import survey

    if json_file is not None:
        refuse_foreign_file(json_file, dict.fromkeys(("sources", "read")), overwrite=overwrite)
    if html is not None:
        refuse_foreign_file(html, overwrite=overwrite)
    console = Console()
    opened = open_named(sources, format_name, images)
    for line in fault_lines(opened):
        console.print(line, highlight=False, soft_wrap=True)
    with steps_shown(console) as shown:
        values = survey(
            opened,
            processor=processor_of(recipe),
            samples=samples,
            near=near,
            n=words,
            workers=workers,
            progress=lambda done, total: shown("records", done, total),
        )
    _show(console, values)
    if json_file is not None:
        write_output(json_file, json.dumps(values, indent=1) + "\n")
        console.print(f"figures: {json_file}", highlight=False, soft_wrap=True, markup=False)
    if html is not None:
        _write_page(html, opened, values)
        console.print(f"page: {html}", highlight=False, soft_wrap=True, markup=False)


def _write_page(path: Path, opened: Mapping[str, Any], values: Mapping[str, Any]) -> None:
    from sailvit.dataprep.stats.pictures import copy_pictures, sample_pictures
    from sailvit.report.data_stats import render_stats

    pairs = copy_pictures(opened, values["copies"].get("picture", {}).get("examples", []))
    write_output(path, render_stats(values, sample_pictures(opened), pairs))


def _show(console: Console, values: Mapping[str, Any]) -> None:
    from rich.markup import escape

    from sailvit.cli.data.check import show_unread

    total = sum(source["records"] for source in values["sources"])
    names = ", ".join(source["name"] for source in values["sources"])
    read = (
        f"{values['read']:,} of {total:,} records"
        if values["read"] < total
        else counted(total, "record")
    )
    images = counted(values["images"], "image")
    console.print(f"[bold]{escape(names)}[/bold]: {read}, {images}", highlight=False)
    print_table(console, measures_table(values["measures"]))
    for name, counts in (("kinds", values["kinds"]), ("languages", values["languages"]["counts"])):
        by = " (by script)" if name == "languages" and values["languages"]["by"] == "script" else ""
        console.print(
            f"{name}{by}: {_shares(counts, values['records'])}", highlight=False, markup=False
        )
    console.print(f"copies: {_copies(values)}", highlight=False, markup=False)
    console.print(_phrases(values["ngrams"]), highlight=False, markup=False)
    show_unread(console, values["unread"])
    for kind, count in values["unreadable"].items():
        example = next(note for note in values["damage"] if note["kind"] == kind)
        place = f"{example['source']} at {example['position']}"
        text = f"{count} unreadable ({kind}), for instance {place}: {example['error']}"
        console.print(f"[red]{escape(text)}[/red]", highlight=False, soft_wrap=True)


def measures_table(measures: Mapping[str, Mapping[str, Any] | None]) -> Table:
    """Range, quantiles and mean of every measure; quantiles are exact within 2 %."""
    from rich.table import Table

    table = Table()
    table.add_column("measure")
    for heading in ("count", "min", "5 %", "median", "95 %", "max", "mean"):
        table.add_column(heading, justify="right")
    for name, label in LABELS.items():
        found = measures.get(name)
        if found is not None:
            figures = [found[key] for key in ("min", "p5", "median", "p95", "max", "mean")]
            table.add_row(label, f"{found['count']:,}", *map(rate, figures))
    return table


def _shares(counts: Mapping[str, int], total: int, most: int = 8) -> str:
    shown = [f"{name} {percent(count / total)}" for name, count in list(counts.items())[:most]]
    more = len(counts) - most
    return ", ".join([*shown, *([f"and {more} more"] if more > 0 else [])]) or "none"


def _copies(values: Mapping[str, Any]) -> str:
    copies = values["copies"]
    parts = [
        counted(copies["text"]["count"], "text"),
        f"{counted(copies['image']['count'], 'image')} byte for byte",
    ]
    if "picture" in copies:
        parts.append(f"{counted(copies['picture']['count'], 'image')} to the eye")
    return ", ".join(parts)


def _phrases(ngrams: Mapping[str, Any]) -> str:
    if not ngrams["total"]:
        return f"phrases of {ngrams['n']} words: none"
    first = ngrams["top"][0]
    return (
        f"phrases of {ngrams['n']} words: {percent(ngrams['distinct_share'])} distinct,"
        f" {ngrams['entropy']:.1f} bits each; the 100 most frequent are {percent(ngrams['top100_share'])} of all;"
        f" {first['words']!r} is in {percent(first['share'])} of the records"
    )
