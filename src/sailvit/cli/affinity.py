"""`sailvit affinity TOWER...`: how near towers lie to languages, and how far from each other."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sailvit.cli.terminal.models import Device, Remote
from sailvit.cli.terminal.tables import print_table

if TYPE_CHECKING:
    from rich.console import Console

    from sailvit.report.evaluation.tables import MeasureTable

Towers = Annotated[
    list[str],
    typer.Argument(
        metavar="TOWER...", help="Towers or runs, or NAME=TOWER; drift is from the first."
    ),
]
Images = Annotated[
    Path, typer.Option(help="Folder of pictures, or data with pictures and captions.")
]
Languages = Annotated[
    list[str] | None,
    typer.Option("--language", metavar="LLM", help="A language; may be repeated."),
]
Out = Annotated[Path, typer.Option(help="Folder of affinity.json and report.html.")]
Reference = Annotated[
    str | None, typer.Option(help="A run with the same language, for the alignment score.")
]


def affinity(  # noqa: PLR0913, PLR0917 - the options of a command
    towers: Towers,
    images: Images,
    languages: Languages = None,
    out: Out = Path("affinity"),
    count: Annotated[int, typer.Option(min=1, help="Pictures of the published protocol.")] = 5,
    pictures: Annotated[int, typer.Option(min=2, help="Pictures of the other measures.")] = 64,
    pairs: Annotated[int, typer.Option(min=8, help="Pictures with captions.")] = 256,
    reference: Reference = None,
    spair: Annotated[Path | None, typer.Option(help="SPair-71k, for correspondence.")] = None,
    seed: Annotated[int, typer.Option(help="Seed of the choice of pictures.")] = 0,
    device: Device = None,
    remote: Remote = False,
) -> None:
    """Measure how near a tower's features lie to a language's embeddings, as SAILViT's paper
    does, with sounder measures beside it, and how far towers have drifted from the first.
    """
    # torch takes seconds to import; `sailvit --help` should not wait for it.
    from rich.console import Console

    from sailvit.api.affinity import FILE, Subjects, measure_affinity
    from sailvit.evaluation.affinity.study import Sizes
    from sailvit.models.loading.quiet import quiet_libraries
    from sailvit.report.evaluation.page import write_evaluation_report

    quiet_libraries()
    console = Console(markup=False)
    with console.status("reading pictures") as status:
        found = measure_affinity(
            Subjects(towers, languages or (), reference, spair),
            images,
            out,
            sizes=Sizes(published=count, pictures=pictures, pairs=pairs),
            seed=seed,
            device=device,
            trust_remote_code=remote,
            step=status.update,
        )
    _tell(console, found)
    page = write_evaluation_report(out)
    console.print(f"All numbers: {out / FILE}\nPage: {page}", highlight=False, soft_wrap=True)


def _tell(console: Console, found: Mapping[str, Any]) -> None:
    """Print all measures, and what could not be measured."""
    from sailvit.report.evaluation.tables import measure_tables

    for each in measure_tables(found):
        _tell_table(console, each)
    for drift in found["drift"]:
        _print_drift(console, drift)
    for each in found["left_out"]:
        console.print(f"not measured: {each['what']}: {each['why']}", highlight=False)


def _tell_table(console: Console, measured: MeasureTable) -> None:
    from rich.table import Table

    better = f" ({measured.better})" if measured.better else ""
    table = Table(title=f"{measured.title}{better}", title_justify="left")
    table.add_column("measure")
    table.add_column("tower", overflow="fold")
    for name in ("value", "95 %", "by chance"):
        table.add_column(name, justify="right", no_wrap=True)
    last = None
    for row in measured.rows:
        name = row.measure if row.measure != last else ""
        table.add_row(name, row.tower, row.value, row.interval, row.chance)
        last = row.measure
    print_table(console, table)


def _print_drift(console: Console, each: Mapping[str, Any]) -> None:
    from rich.table import Table

    from sailvit.report.evaluation.tables import MeasureRow

    table = Table(title=f"drift of {each['tower']} from {each['base']}", title_justify="left")
    for name in ("block", "CKA", "95 %", "by chance", "change", "95 %"):
        table.add_column(name, justify="right")
    for block in each["blocks"]:
        likeness, change = (MeasureRow("", "", block[name]) for name in ("cka", "change"))
        cells = (likeness.value, likeness.interval, likeness.chance, change.value, change.interval)
        table.add_row(str(block["block"]), *cells)
    print_table(console, table)
