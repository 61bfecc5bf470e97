"""`sailvit affinity TOWER...`: how near towers lie to languages, and how far from each other."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sailvit.cli.terminal.models import Device, Remote

if TYPE_CHECKING:
    from rich.console import Console

TITLES = {
    "nearest": "nearest, mean",
    "wasserstein": "Wasserstein",
    "mean": "all pairs, mean",
    "centroids": "between the means",
    "sliced_wasserstein": "sliced Wasserstein",
    "mutual_knn": "mutual neighbours",
    "linear_cka": "linear CKA",
    "kernel_cka": "kernel CKA",
    "image_to_text_at_1": "image to text at 1",
    "image_to_text_at_5": "image to text at 5",
    "text_to_image_at_1": "text to image at 1",
    "text_to_image_at_5": "text to image at 5",
}
"""Measures as tables call them."""


Towers = Annotated[
    list[str], typer.Argument(metavar="TOWER...", help="Towers or runs; drift is from the first.")
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

    quiet_libraries()
    console = Console()
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
    console.print(f"All numbers: {out / FILE}", highlight=False, soft_wrap=True)


def _tell(console: Console, found: Mapping[str, Any]) -> None:
    """Print all measures, and what could not be measured."""
    for title, rows in _tables(found):
        if rows:
            _print_table(console, title, rows)
    for each in found["drift"]:
        _print_drift(console, each)
    for each in found["left_out"]:
        console.print(f"not measured: {each['what']}: {each['why']}", highlight=False, markup=False)


Row = tuple[str, str, Mapping[str, Any]]


def _tables(found: Mapping[str, Any]) -> Iterator[tuple[str, list[Row]]]:
    """Titles and rows: a measure, a tower, and what was measured."""
    languages = dict.fromkeys(each["language"] for each in found["published"])
    for name in languages:
        beside = [each for each in found["published"] if each["language"] == name]
        yield f"patches and {name}, as published (smaller: closer)", _rows(beside, "distances")
        paired = [each for each in found["paired"] if each["language"] == name]
        yield f"pictures and captions in {name} (larger: more alike)", _rows(paired, "measures")
    yield (
        "behind the connector, in full width (smaller: closer)",
        _rows(found["joint"], "distances"),
    )
    yield "captions found by pictures and the reverse", _rows(found["joint"], "retrieval")
    scores = [
        ("integration rate (smaller)", each["tower"], each["integration"]["rate"])
        for each in found["joint"]
        if each["integration"]
    ]
    scores += [
        ("alignment score", each["tower"], each["alignment"])
        for each in found["joint"]
        if each["alignment"]
    ]
    scores += [
        (f"correspondence, {each['set']}", each["tower"], each["score"])
        for each in found["correspondence"]
    ]
    yield "scores", scores


def _rows(entries: list[Mapping[str, Any]], section: str) -> list[Row]:
    measures = dict.fromkeys(name for each in entries for name in each[section])
    return [
        (_title(name), each["tower"], each[section][name])
        for name in measures
        for each in entries
        if name in each[section]
    ]


def _title(name: str) -> str:
    plain = name.removeprefix("unit_")
    return TITLES.get(plain, plain) + (", unit rows" if plain != name else "")


def _print_table(console: Console, title: str, rows: list[Row]) -> None:
    from rich.table import Table

    table = Table(title=title, title_justify="left")
    table.add_column("measure")
    table.add_column("tower", overflow="fold")
    for name in ("value", "95 %", "by chance"):
        table.add_column(name, justify="right", no_wrap=True)
    last = None
    for measure, tower, each in rows:
        table.add_row(measure if measure != last else "", tower, *cells(each))
        last = measure
    console.print(table)


def cells(measured: Mapping[str, Any]) -> tuple[str, str, str]:
    """Value, interval and chance as a table shows them."""
    low, high, chance = (measured[name] for name in ("low", "high", "chance"))
    interval = "" if low is None else f"{low:.3g} {high:.3g}"
    return f"{measured['value']:.3g}", interval, "" if chance is None else f"{chance:.3g}"


def _print_drift(console: Console, each: Mapping[str, Any]) -> None:
    from rich.table import Table

    table = Table(title=f"drift of {each['tower']} from {each['base']}", title_justify="left")
    for name in ("block", "CKA", "95 %", "by chance", "change", "95 %"):
        table.add_column(name, justify="right")
    for block in each["blocks"]:
        change = cells(block["change"])[:2]
        table.add_row(str(block["block"]), *cells(block["cka"]), *change)
    console.print(table)
