"""The `sailvit` command."""

from __future__ import annotations

import errno
import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from sailvit.cli.affinity import affinity
from sailvit.cli.ask import ask
from sailvit.cli.bench import bench
from sailvit.cli.chat import chat
from sailvit.cli.convert import convert
from sailvit.cli.data.app import data
from sailvit.cli.demo import demo
from sailvit.cli.equip import equip
from sailvit.cli.evaluate import evaluate
from sailvit.cli.export import export
from sailvit.cli.init import init
from sailvit.cli.parts import parts
from sailvit.cli.plan import plan
from sailvit.cli.probe import probe
from sailvit.cli.recipe import formats, recipe, towers
from sailvit.cli.report import report
from sailvit.cli.score import score
from sailvit.cli.serve import serve
from sailvit.cli.soup import soup
from sailvit.cli.study import study
from sailvit.cli.terminal.repeated import RepeatedArgument
from sailvit.cli.train import train
from sailvit.cli.watch import watch
from sailvit.cli.world import world
from sailvit.core.errors import InterruptedRunError, SailvitError
from sailvit.core.version import __version__

_DISK = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)
"""Errors of a disk that is full, full for this user, or read-only: a traceback does not help."""
_MODE = (errno.EACCES, errno.EPERM)
"""Errors of what this account may not read or write."""

# No completion: its two options would stand in the help before ours.
app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)
app.command()(demo)
app.command()(init)
app.command()(train)
app.command()(plan)
app.command()(ask)
app.command()(chat)
app.command()(serve)
app.command()(watch)
app.command()(report)
app.command(cls=RepeatedArgument)(evaluate)
app.command()(score)
app.command(cls=RepeatedArgument)(probe)
app.command(cls=RepeatedArgument)(affinity)
app.command()(convert)
app.command()(parts)
app.command()(export)
app.command()(equip)
app.command(cls=RepeatedArgument)(soup)
app.command()(study)
app.command()(formats)
app.command()(towers)
app.add_typer(recipe, name="recipe")
app.add_typer(data, name="data")
app.add_typer(bench, name="bench")
app.add_typer(world, name="world")


def _tell_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"sailvit {__version__}")
        raise typer.Exit


@app.callback()
def about(
    tell_version: Annotated[
        bool,
        typer.Option(
            "--version", is_eager=True, callback=_tell_version, help="Show the version and exit."
        ),
    ] = False,
) -> None:
    """Refine any pretrained ViT in stages against a small LLM; keep the ViT for MLLMs."""


def main() -> None:
    """Run the command line; errors of the input end it with a sentence and exit code 1."""
    # As `python -m` does: recipes may name modules that lie in the current folder. Last, so
    # that no file there stands in for an installed module.
    if str(Path.cwd()) not in sys.path and "" not in sys.path:
        sys.path.append(str(Path.cwd()))
    try:
        app(prog_name="sailvit")
    except InterruptedRunError as error:
        # Once, not by every process of a run.
        if os.environ.get("RANK", "0") == "0":
            print(f"\n{error}", file=sys.stderr)
        # 75 is "try again" (sysexits.h): schedulers can be told to restart on it. 130 is a
        # person's Ctrl-C.
        sys.exit(75 if error.preempted else 130)
    except SailvitError as error:
        print(f"\nerror: {error}", file=sys.stderr)
        sys.exit(1)
    except OSError as error:
        if error.errno not in _DISK + _MODE:
            raise
        advice = (
            "free space there, or write elsewhere"
            if error.errno in _DISK
            else "change its mode or that of its folder, or name another place"
        )
        print(f"\nerror: {error}; {advice}", file=sys.stderr)
        sys.exit(1)
