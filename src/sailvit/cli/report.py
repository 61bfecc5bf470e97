"""`sailvit report RUN`: write the page of a run or of an evaluation again from its files."""

from pathlib import Path
from typing import Annotated

import typer

from sailvit.core.run import RunFolder


def report(
    run: Annotated[
        Path, typer.Argument(metavar="RUN", help="Run folder, or the folder of an evaluation.")
    ],
    evaluation: Annotated[
        Path | None,
        typer.Option(help="Run folder that holds evaluation.json and affinity.json, when another."),
    ] = None,
) -> None:
    """Write report.html in the folder of a run or of an evaluation, from its files alone."""
    # Matplotlib takes half a second to import; `sailvit --help` should not wait for it.
    from sailvit.report.evaluation.page import write_evaluation_report
    from sailvit.report.evaluation.reading import is_evaluation
    from sailvit.report.page import write_report

    if is_evaluation(run):
        typer.echo(write_evaluation_report(run))
        return
    typer.echo(write_report(RunFolder(run), RunFolder(evaluation) if evaluation else None))
