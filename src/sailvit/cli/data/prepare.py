"""`sailvit data prepare SRC... --out DIR`: any data as plain tars with a manifest and an index."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sailvit.cli.data.opening import Format, Images, Workers, recipe_line
from sailvit.core.formatting import counted, percent

if TYPE_CHECKING:
    from sailvit.data.shards.manifest import Manifest

MEGABYTE = 1_000_000
"""Bytes in the unit of `--shard-size`."""
ALLOWED = 10
"""Bad records that are allowed before their share counts."""


Sources = Annotated[
    list[str], typer.Argument(metavar="SRC", help="Files, folders, globs or URLs of data.")
]
Out = Annotated[Path, typer.Option(help="Folder to write; an unfinished one is continued.")]
CountedBy = Annotated[
    Path | None,
    typer.Option(help="Recipe whose tokens and tiles are counted; left out, training counts them."),
]
ShardSize = Annotated[int, typer.Option(min=1, help="About how many MB a shard has.")]
ShardSamples = Annotated[int | None, typer.Option(min=1, help="Records per shard, instead.")]
Decode = Annotated[
    bool, typer.Option("--decode", help="Decode every image, to find damaged ones now.")
]
MaxBad = Annotated[
    float,
    typer.Option(
        min=0,
        max=1,
        help="Share of bad records above which the exit code is 1, once there are more than 10.",
    ),
]
Ray = Annotated[
    bool,
    typer.Option("--ray", help="Write on the Ray cluster of $RAY_ADDRESS, else on a local one."),
]


def prepare(  # noqa: PLR0913, PLR0917 - the options of a command
    sources: Sources,
    out: Out,
    format_name: Format = None,
    images: Images = None,
    recipe: CountedBy = None,
    shard_size: ShardSize = 256,
    shard_samples: ShardSamples = None,
    decode: Decode = False,
    max_bad: MaxBad = 0.01,
    workers: Workers = 0,
    ray: Ray = False,
) -> None:
    """Write data as plain WebDataset tars, in parallel; a killed run goes on when repeated."""
    # torch takes seconds to import; `sailvit --help` should not wait for it.
    from rich.console import Console

    from sailvit.cli.data.opening import open_named, processor_of
    from sailvit.cli.terminal.steps import steps_shown
    from sailvit.dataprep.prepare.preparing import PrepareConfig
    from sailvit.dataprep.prepare.preparing import prepare as write

    console = Console()
    opened = open_named(sources, format_name, images)
    config = PrepareConfig(
        shard_bytes=shard_size * MEGABYTE, shard_samples=shard_samples, decode=decode
    )
    with steps_shown(console) as shown:
        manifest = write(
            opened,
            out,
            config=config,
            processor=processor_of(recipe),
            workers="ray" if ray else workers,
            progress=lambda done, total: shown("records", done, total),
        )
    for line in summary(manifest, out):
        console.print(line, highlight=False, soft_wrap=True)
    wrong = (
        "no record is left"
        if not manifest.samples
        else f"more than {percent(max_bad, 2)} of the records are bad"
    )
    # By the share alone one bad record of twenty would fail.
    if not manifest.samples or manifest.bad > max(
        ALLOWED, max_bad * (manifest.samples + manifest.bad)
    ):
        console.print(f"[red]{wrong}[/red]", highlight=False)
        raise typer.Exit(1)


def summary(manifest: Manifest, out: Path) -> list[str]:
    """What a folder of shards holds, what was left out of it, and how to use it."""
    from rich.markup import escape

    from sailvit.data.rows.keys import unread_line

    size = sum(shard.bytes for shard in manifest.shards)
    kinds: dict[str, int] = {}
    for shard in manifest.shards:
        for kind, count in shard.kinds.items():
            kinds[kind] = kinds.get(kind, 0) + count
    held = ", ".join(
        f"{count:,} {kind}" for kind, count in sorted(kinds.items(), key=lambda item: -item[1])
    )
    shards = f"{counted(len(manifest.shards), 'shard')}, {size / MEGABYTE:,.1f} MB"
    lines = [f"{counted(manifest.samples, 'record')} ({escape(held or 'none')}) in {shards}"]
    if manifest.bad:
        lines.append(
            f"[yellow]{manifest.bad:,} left out[/yellow]: {escape(str(out / 'bad.jsonl'))} says why"
        )
    if manifest.unread:
        lines.append(f"[yellow]{escape(unread_line(out.name, manifest.unread))}[/yellow]")
    if manifest.measured is None:
        lines.append("Tokens are not counted: training will, or give --recipe.")
    if not manifest.samples:
        return lines
    return [*lines, escape(recipe_line(out.name, "indexed", out))]
