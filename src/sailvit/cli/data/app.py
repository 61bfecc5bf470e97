"""The subcommands of `sailvit data`."""

from __future__ import annotations

import typer

from sailvit.cli.data.charts import charts
from sailvit.cli.data.check import check
from sailvit.cli.data.curate import curate
from sailvit.cli.data.index import index
from sailvit.cli.data.judge import judge
from sailvit.cli.data.pages import pages
from sailvit.cli.data.prepare import prepare
from sailvit.cli.data.qa import qa
from sailvit.cli.data.quarantine import quarantine
from sailvit.cli.data.stats import stats
from sailvit.cli.data.view import view

data = typer.Typer(no_args_is_help=True, help="Prepare, check, look at and curate training data.")
data.command()(prepare)
data.command()(index)
data.command()(check)
data.command()(charts)
data.command()(pages)
data.command()(judge)
data.command()(qa)
data.command()(view)
data.command()(quarantine)
data.command()(stats)
data.command()(curate)


@data.callback()
def about() -> None:
    """Prepare, check, look at and curate training data."""
