"""`sailvit report RUN`: write a run's page again from its files."""

from pathlib import Path
from typing import Annotated

import typer

from sailvit.core.run import RunFolder


def report(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="Run folder, for instance runs/demo.")],
    evaluation: Annotated[
        Path | None,
        typer.Option(help="Run folder that holds evaluation.json and affinity.json, when another."),
    ] = None,
) -> None:
    """Write report.html in a run folder, from its files alone."""
    # Matplotlib takes half a second to import; `sailvit --help` should not wait for it.
    from sailvit.report.page import write_report

    typer.echo(write_report(RunFolder(run), RunFolder(evaluation) if evaluation else None))
