"""`sailvit study STUDY.yaml`: cells of trainings, measured and compared."""

from __future__ import annotations

import os
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sailvit.cli.terminal.tables import print_table
from sailvit.core.errors import RecipeError
from sailvit.core.formatting import counted, duration, short, size

if TYPE_CHECKING:
    from rich.console import Console

    from sailvit.api.study.planning import StudyPlan
    from sailvit.api.study.running import Event
    from sailvit.core.study.cells import Cell
    from sailvit.core.study.definition import Study
    from sailvit.core.study.folder import StudyFolder

_Ray = Annotated[
    bool,
    typer.Option("--ray", help="Train on the Ray cluster of $RAY_ADDRESS, else on a local one."),
]
_Cells = Annotated[
    list[str] | None,
    typer.Option(
        metavar="NAME",
        help="Only this cell, measured again and compared with its file; may be repeated.",
    ),
]


def study(  # noqa: PLR0913, PLR0917 - the options of a command
    path: Annotated[
        Path, typer.Argument(metavar="STUDY", help="A study's YAML file, or its folder.")
    ],
    plan: Annotated[
        bool, typer.Option("--plan", help="Show cells, trainings, time and memory; run nothing.")
    ] = False,
    report: Annotated[
        bool, typer.Option("--report", help="Write the report from the cells that are there.")
    ] = False,
    out: Annotated[
        Path | None, typer.Option(help="Folder of cells and report; left out, STUDY's own.")
    ] = None,
    runs: Annotated[
        Path | None, typer.Option(help="Folder of trainings; left out, runs/study-NAME.")
    ] = None,
    jobs: Annotated[
        int | None, typer.Option(min=1, help="Processes; left out, one per core or GPU.")
    ] = None,
    shard: Annotated[
        str | None,
        typer.Option(metavar="I/N", help="Only every N-th cell, from the I-th; I is 1 to N."),
    ] = None,
    cell: _Cells = None,
    ray: _Ray = False,
) -> None:
    """Run a study: train what its cells need, each training once, measure and compare.

    Start the same command again to go on: what is there is not computed again.
    """
    from rich.console import Console

    from sailvit.api.study.studies import chosen_cells, report_study
    from sailvit.core.study.folder import StudyFolder
    from sailvit.recipes.studies import load_study

    console = Console(markup=False)
    loaded = None if path.is_dir() else load_study(path)
    folder = StudyFolder(out or (path if path.is_dir() else path.with_suffix("")))
    if report:
        tell_results(console, report_study(folder, loaded), folder)
        return
    loaded = loaded or folder.study()
    cells = chosen_cells(loaded, cell or [], read_shard(shard))
    place = (runs or Path("runs") / f"study-{loaded.name}").absolute()
    if plan:
        _plan(console, loaded, folder, place, cells, jobs)
        return
    _run(console, loaded, folder, place, cells, jobs=jobs, ray=ray, again=bool(cell))


def read_shard(given: str | None) -> tuple[int, int] | None:
    """Index, from 0, and number of the shards: from `I/N`, else from Slurm's array; None without
    either.
    """
    if given is None:
        task = {name: os.environ.get(f"SLURM_ARRAY_TASK_{name}") for name in _ARRAY}
        if task["ID"] is None or task["COUNT"] is None:
            return None
        first, step = int(task["MIN"] or 0), int(task["STEP"] or 1)
        return (int(task["ID"]) - first) // step, int(task["COUNT"])
    index, _, count = given.partition("/")
    if not (index.isdigit() and count.isdigit() and 1 <= int(index) <= int(count)):
        raise RecipeError(f"--shard {given}: expected I/N with I from 1 to N, such as 2/4")
    return int(index) - 1, int(count)


_ARRAY = ("ID", "COUNT", "MIN", "STEP")


def _plan(
    console: Console,
    loaded: Study,
    folder: StudyFolder,
    runs: Path,
    cells: list[Cell],
    jobs: int | None,
) -> None:
    from sailvit.api.study.studies import plan_cells
    from sailvit.api.study.workers import default_count
    from sailvit.distributed.processes import my_device
    from sailvit.models.measures.peak import device_peak

    with TemporaryDirectory(prefix="sailvit-") as scratch, console.status("planning every cell"):
        # Nothing is written where the study will be.
        made = plan_cells(loaded, folder, runs if runs.is_dir() else Path(scratch), cells)
    peak = device_peak(my_device(), made.precision)
    tell_plan(console, loaded.name, made, _MFU * peak, jobs or default_count())


_MFU = 0.4
"""Share of the device's peak that a training is taken to reach, as `sailvit plan` does, where
none was measured."""


def tell_plan(console: Console, name: str, made: StudyPlan, speed: float, jobs: int) -> None:
    """Print a study's plan."""
    from rich.table import Table

    table = Table(title=f"{name}: trainings", title_justify="left", padding=(0, 0, 0, 1))
    table.add_column("step and stage", overflow="fold")
    for heading in ("needed", "used", "there", "samples", "FLOPs", "time", "memory"):
        table.add_column(heading, justify="right", no_wrap=True)
    for row in made.rows:
        seconds = row.flops / speed if row.seconds is None else row.seconds
        basis = "~" if row.seconds is None and row.flops else ""
        table.add_row(
            row.name,
            str(row.needed),
            str(row.uses),
            str(row.done),
            short(row.samples),
            f"{row.flops:.1e}",
            basis + duration(seconds),
            size(row.memory),
        )
    print_table(console, table)
    whole = made.seconds(speed)
    console.print(
        f"{counted(made.cells, 'cell')}, {made.done} of them there. {counted(made.needed, 'training')}, where"
        f" cells that shared none would need {made.alone:,}.\nTime: {duration(whole)} of one process,"
        f" {duration(whole / jobs)} with {counted(jobs, 'process', 'processes')}, without measuring cells.\n"
        f"Memory: {size((made.memory + _libraries()) * jobs)} for {counted(jobs, 'process', 'processes')}, of"
        f" which {size(_libraries())} each are torch and other libraries.",
        highlight=False,
    )
    for sentence in made.alike:
        _warn(console, sentence)
    if any(row.seconds is None and row.flops for row in made.rows):
        console.print(
            f"~: at {_MFU:g} of the device's peak, as none was measured here; small models reach far"
            " less. Run one cell (--cell NAME) and plan again.",
            highlight=False,
        )


def _libraries() -> float:
    """Bytes that this process takes, which has loaded what those that train load."""
    import resource
    import sys

    # In KiB, but on macOS (man 2 getrusage).
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (
        1 if sys.platform == "darwin" else 1024
    )


def _run(
    console: Console,
    loaded: Study,
    folder: StudyFolder,
    runs: Path,
    cells: list[Cell],
    *,
    jobs: int | None,
    ray: bool,
    again: bool,
) -> None:
    from sailvit.api.study.ray_workers import RayWorkers
    from sailvit.api.study.studies import run_study
    from sailvit.api.study.workers import LocalWorkers
    from sailvit.models.loading.quiet import quiet_libraries

    quiet_libraries()
    console.print(f"Cells: {folder.cells}\nTrainings: {runs}", highlight=False, soft_wrap=True)
    failed: list[str] = []

    def seen(event: Event) -> None:
        """Print an event, and keep what failed."""
        tell_event(console, event)
        failed.extend([event.name] if event.kind == "failed" else [])

    warned = partial(_warn, console)
    workers = RayWorkers(jobs) if ray else LocalWorkers(jobs)
    found = run_study(
        loaded, folder, runs, cells, workers=workers, again=again, seen=seen, warned=warned
    )
    tell_results(console, found, folder)
    if failed:
        raise typer.Exit(1)


def _warn(console: Console, sentence: str) -> None:
    console.print(f"Note: {sentence}.", highlight=False, soft_wrap=True)


def tell_event(console: Console, event: Event) -> None:
    """Print what happened, with how far the study is."""
    done, needed = event.trained
    place = f"[{done}/{needed} trainings, {event.cells[0]}/{event.cells[1]} cells]"
    took = f" in {duration(event.seconds)}" if event.seconds else ""
    why = f": {event.told}" if event.told else ""
    console.print(
        f"{place} {event.kind} {event.name}{took}{why}",
        highlight=False,
        soft_wrap=True,
    )


def tell_results(console: Console, found: Mapping[str, Any], folder: StudyFolder) -> None:
    """Print a table per dimension, every claim's sentence, and the cells that failed."""
    from rich.table import Table

    from sailvit.report.study import row_cells, tables

    for each in tables(found["differences"]):
        than = each.rows[0][1]["than"]
        table = Table(title=each.title, title_justify="left", padding=(0, 0, 0, 1))
        table.add_column(f"against {than}", overflow="fold")
        for heading in each.heads:
            table.add_column(heading, justify="right", no_wrap=True)
        for name, row in each.rows:
            table.add_row(name, *row_cells(row))
        print_table(console, table)
    for claim in found["claims"]:
        console.print(claim["sentence"], highlight=False)
    cells = found["cells"]
    for name, reason in cells["failed"].items():
        console.print(f"failed {name}: {reason}", highlight=False, soft_wrap=True)
    missing = f", {len(cells['missing'])} not run yet" if cells["missing"] else ""
    console.print(
        f"{cells['done']} of {counted(cells['all'], 'cell')}{missing}. Report:"
        f" {folder.results.with_name('report.html')}",
        highlight=False,
        soft_wrap=True,
    )
