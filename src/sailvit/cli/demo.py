"""`sailvit demo`: refine the shipped base tower, train a model on it and one on the base, and
compare them.
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from sailvit.cli.terminal.tables import print_table
from sailvit.core.run import RunFolder


def demo(
    run: Annotated[
        Path, typer.Option(help="Run folder; an earlier demo in it is replaced.")
    ] = Path("runs/demo"),
    quick: Annotated[
        bool,
        typer.Option("--quick", help="The same road in under a minute, without learning much."),
    ] = False,
    compare: Annotated[
        bool,
        typer.Option(
            "--compare",
            help="Also refine a tower all at once, on as many samples, and compare it too.",
        ),
    ] = False,
    seed: Annotated[int, typer.Option(help="Root of every random choice.")] = 0,
) -> None:
    """Show in minutes that refinement helps: base against refined tower, on held-out data."""
    from rich.console import Console

    from sailvit.api.demo import DemoSize, run_demo
    from sailvit.cli.screen import ConsoleScreen

    console = Console()
    # 16 questions per task say nothing about a tower; they only show the way.
    size = DemoSize(quick=quick, per_task=16 if quick else 150, compare=compare)
    summary = run_demo(RunFolder(run), size, seed, ConsoleScreen(console))
    print_table(console, scores_table(summary))
    console.print(
        f"base {summary['base']:.3f}, refined {summary['refined']:.3f}: gain {100 * summary['gain']:+.1f} points of"
        f" mean exact match in {summary['seconds']:.0f} s\nReport: {RunFolder(run).report}\n"
        f'Ask it: {command_here()} ask {run}/target/refined --image {RunFolder(run).picture} "describe everything"',
        highlight=False,
        soft_wrap=True,
        markup=False,
    )


def command_here() -> str:
    """How the command line is called here: `make` installs it outside of the PATH."""
    if shutil.which("sailvit"):
        return "sailvit"
    # `python -m sailvit` names a file that no shell can run.
    called = Path(sys.argv[0])
    return f"{sys.executable} -m sailvit" if called.name == "__main__.py" else str(called)


def scores_table(summary: dict[str, Any]) -> Any:
    """Scores of all models per task, and what refining gains over the base."""
    from rich.table import Table

    from sailvit.api.demo import LABELS

    shown = [name for name in LABELS if name in summary]
    table = Table(title="held-out exact match", title_justify="left")
    table.add_column("task")
    for title in (*(LABELS[name] for name in shown), "gain"):
        table.add_column(title, justify="right")
    for task, score in [*summary["tasks"].items(), ("mean", summary)]:
        gain = 100 * (score["refined"] - score["base"])
        table.add_row(task, *(f"{score[name]:.3f}" for name in shown), f"{gain:+.1f}")
    return table
