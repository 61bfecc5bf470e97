"""The subcommands of `sailvit data`."""

from __future__ import annotations

from typing import Annotated

import typer

from sailvit.cli.data.charts import charts
from sailvit.cli.data.check import check
from sailvit.cli.data.curate import curate
from sailvit.cli.data.documents import documents
from sailvit.cli.data.index import index
from sailvit.cli.data.judge import judge
from sailvit.cli.data.prepare import prepare
from sailvit.cli.data.qa import qa
from sailvit.cli.data.quarantine import quarantine
from sailvit.cli.data.stats import stats
from sailvit.cli.data.view import view
from sailvit.cli.terminal.repeated import RepeatedArgument

data = typer.Typer(no_args_is_help=True, help="Prepare, check, look at and curate training data.")
data.command(cls=RepeatedArgument)(prepare)
data.command()(index)
data.command(cls=RepeatedArgument)(check)
data.command()(charts)
data.command()(documents)
data.command()(judge)
data.command()(qa)
data.command()(view)
data.command()(quarantine)
data.command(cls=RepeatedArgument)(stats)
data.command()(curate)


@data.command(cls=RepeatedArgument, hidden=True, context_settings={"ignore_unknown_options": True})
def pages(
    given: Annotated[list[str] | None, typer.Argument(help="What `data documents` takes.")] = None,
) -> None:
    """Say how the command is called now."""
    from sailvit.core.errors import DataError

    raise DataError(
        "`sailvit data pages` is called `sailvit data documents` now, with the same options:"
        " write that"
    )


@data.callback()
def about() -> None:
    """Prepare, check, look at and curate training data."""
