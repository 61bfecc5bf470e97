"""`sailvit data curate SRC`: choose records by filters and n-grams, without copying them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sailvit.cli.data.opening import Format, Images, Workers
from sailvit.cli.terminal.tables import print_table
from sailvit.core.formatting import percent

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from sailvit.dataprep.curate.settings import Curation

_EXAMPLES = 2
"""Examples printed per filter; the report has more."""


def curate(
    source: Annotated[
        str, typer.Argument(metavar="SRC", help="File, folder, glob or URL of data.")
    ],
    filters: Annotated[Path, typer.Option("--filters", help="YAML of filters and resampling.")],
    out: Annotated[Path, typer.Option("--out", help="Folder for the selection.")],
    format_name: Format = None,
    images: Images = None,
    workers: Workers = 0,
) -> None:
    """Write which records of SRC pass the filters; a recipe reads them with `format: selected`."""
    # torch takes seconds to import; `sailvit --help` should not wait for it.
    from rich.console import Console

    from sailvit.cli.data.opening import fault_lines, recipe_line, source_config
    from sailvit.cli.terminal.steps import steps_shown
    from sailvit.data.sources import open_source
    from sailvit.dataprep.curate.curating import curate as choose
    from sailvit.dataprep.curate.selections import refuse_foreign_selection, write_selection

    # Before the records are read, as the folder is written after all of them.
    refuse_foreign_selection(out)
    console = Console()
    curation = read_filters(filters)
    config = source_config(source, format_name, images)
    opened = open_source(Path(source).stem, config, Path())
    for line in fault_lines({Path(source).stem: opened}):
        console.print(line, highlight=False, soft_wrap=True)
    with steps_shown(console) as shown:
        curated = choose(opened, curation, scorer=_scorer, workers=workers, progress=shown)
    write_selection(out, config, opened, curated)
    _show(console, curated.report)
    if not curated.report["kept"]:
        console.print(
            "[red]no record is left[/red]: loosen the filters, or look at the reasons above",
            highlight=False,
        )
        raise typer.Exit(1)
    console.print(
        recipe_line(out.name, "selected", out), highlight=False, soft_wrap=True, markup=False
    )


def read_filters(path: Path) -> Curation:
    """The settings in a YAML file; paths in it start at its folder."""
    from sailvit.core.errors import DataError
    from sailvit.dataprep.curate.settings import read_curation
    from sailvit.recipes.dialect import read_yaml

    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(
            f"{path} cannot be read ({error}); expected YAML with `filters` and `resampling`"
        ) from error
    try:
        return read_curation(read_yaml(text, str(path)), path.parent)
    except DataError as error:
        raise DataError(f"{path}: {error}") from error


def _scorer(model: str) -> Any:
    from sailvit.models.loading.dual_encoder import DualEncoder
    from sailvit.models.loading.quiet import quiet_libraries

    quiet_libraries()
    return DualEncoder(model)


def _show(console: Console, report: Mapping[str, Any]) -> None:
    from rich.markup import escape

    print_table(console, accounts_table(report))
    for account in report["filters"]:
        for example in account["examples"][:_EXAMPLES]:
            # A record that cannot be read has no id.
            which = example["id"] if "id" in example else example["position"]
            found = f"{account['filter']}: {which} ({example['found']})"
            console.print(f"  {escape(found[:160])}", highlight=False, style="dim")
    if "ngrams" in report:
        print_table(console, ngrams_table(report["ngrams"]))


def accounts_table(report: Mapping[str, Any]) -> Table:
    """Per filter: how many records it judged and dropped, and why."""
    from rich.table import Table

    title = f"{report['kept']:,} of {report['records']:,} records kept"
    table = Table(title=title, title_justify="left")
    for heading, justify in (
        ("filter", "left"),
        ("seen", "right"),
        ("dropped", "right"),
        ("share", "right"),
    ):
        table.add_column(heading, justify=justify)  # type: ignore[arg-type]
    table.add_column("why")
    for account in report["filters"]:
        why = ", ".join(
            f"{reason}: {count:,}" for reason, count in list(account["why"].items())[:6]
        )
        share = account["dropped"] / max(account["seen"], 1)
        table.add_row(
            account["filter"],
            f"{account['seen']:,}",
            f"{account['dropped']:,}",
            percent(share),
            why,
        )
    return table


def ngrams_table(ngrams: Mapping[str, Any]) -> Table:
    """How concentrated the text was before the resampling, and is after it."""
    from rich.table import Table

    before, after = ngrams["before"], ngrams["after"]
    table = Table(
        title=f"n-grams of {before['n']} words, {percent(ngrams['kept'])} of the records kept",
        title_justify="left",
    )
    table.add_column("measure")
    table.add_column("before", justify="right")
    table.add_column("after", justify="right")
    table.add_row("records", f"{before['texts']:,}", f"{after['texts']:,}")
    table.add_row(
        "distinct n-grams", percent(before["distinct_share"]), percent(after["distinct_share"])
    )
    table.add_row("bits per n-gram", f"{before['entropy']:.2f}", f"{after['entropy']:.2f}")
    for name, label in (
        ("top10_share", "share of the 10 most frequent"),
        ("top100_share", "share of the 100"),
    ):
        table.add_row(label, percent(before[name]), percent(after[name]))
    for row in ngrams["top"][:10]:
        table.add_row(
            f"records with {row['words']!r}", percent(row["before"]), percent(row["after"])
        )
    return table
