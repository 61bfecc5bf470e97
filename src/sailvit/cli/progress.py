"""Shows a run's progress and proofs: two live lines on a terminal, plain lines elsewhere."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from rich.box import SIMPLE
from rich.console import Console
from rich.live import Live
from rich.markup import escape
from rich.table import Table

from sailvit.cli.live import LiveLines
from sailvit.cli.terminal.steps import steps_shown
from sailvit.core.bad_records import left_out, read_quarantine
from sailvit.core.formatting import counted, duration, percent, short
from sailvit.core.recipe import Recipe, TrainConfig
from sailvit.core.remaining import seconds_ahead
from sailvit.core.run import read_json
from sailvit.distributed.processes import world
from sailvit.training.stages.callback import Callback
from sailvit.training.stages.stage_run import StageRun, StepRecord

_LINES_PER_STAGE = 10
"""Plain lines that a stage prints when its output is not a terminal."""

_LARGE = 20_000
"""Records from which measuring a source takes long enough to be announced in plain output."""

_MEMORY = 0.95
"""Weight of the past in the shown rates and losses: about the last 20 steps."""


class ProgressCallback(Callback):
    """Shows the progress of each stage of a run."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._live: Live | None = None
        self._lines = LiveLines("")
        self._shown: dict[str, float] = {}
        self._next = 0.0

    def stage_started(self, run: StageRun) -> None:
        """Say what the stage does and, on a terminal, start its live lines."""
        place = f"stage {run.index + 1}/{len(run.recipe.stages)}"
        trained = ", ".join(
            f"{part} {_how(train)}" for part, train in run.stage.train.items() if train.lr
        )
        self._console.print(
            f"[bold]{place} {run.stage.name}[/bold] trains {trained},"
            f" peak learning rate {run.stage.optim.lr:g}",
            highlight=False,
        )
        asked = run.stage.length.samples
        if asked is not None and run.target < asked:
            self._console.print(
                f"  [yellow]its sources end after {run.target:,.0f} records, by their `epochs`,"
                f" and the stage with them; length.samples asks for {asked:,}[/yellow]",
                highlight=False,
                soft_wrap=True,
            )
        self._shown, self._next = {}, 1 / _LINES_PER_STAGE
        if self._console.is_terminal and not self._console.quiet:
            self._lines = LiveLines(f"{place} {run.stage.name}", seconds=run.seconds)
            # Transient: the stage's summary takes their place.
            self._live = Live(self._lines, console=self._console, transient=True)
            self._live.start()

    def step_ended(self, run: StageRun, record: StepRecord) -> None:
        """Move the live lines, or print a line at every tenth of the stage."""
        # A stage's first step also pays for what libraries set up once, so its rates are not
        # worth remembering.
        if record.step <= 2:
            self._shown = {}
        for name, value in self._values(record).items():
            self._shown[name] = _MEMORY * self._shown.get(name, value) + (1 - _MEMORY) * value
        done = run.share_done(record.samples, record.tokens)
        left = run.seconds / done * (1 - done)
        if self._live is not None:
            lines = self._lines
            lines.done, lines.seconds, lines.at = done, run.seconds, time.monotonic()
            lines.left, lines.run_left = left, _run_left(run, record, left)
            lines.facts = self._facts(record)
        elif done >= self._next:
            self._console.print(
                f"  {percent(done, 0):>5} {'  '.join(self._facts(record))}  {duration(left)} left",
                highlight=False,
                soft_wrap=True,
            )
            self._next = done + 1 / _LINES_PER_STAGE

    def stage_ended(self, run: StageRun) -> None:
        """Remove the live lines and print a summary of the stage."""
        self.close()
        rate = run.samples / run.seconds if run.seconds else 0.0
        counts = ", ".join(
            [
                counted(run.step, "step"),
                counted(run.samples, "sample"),
                counted(run.tokens, "token"),
            ]
        )
        self._console.print(
            f"  {counts} in {duration(run.seconds)} ({rate:,.0f} samples/s)", highlight=False
        )
        bad = [each for each in read_quarantine(run.folder) if each.stage_index == run.index]
        for source, kinds in left_out(bad).items():
            shown = ", ".join(f"{count} {kind}" for kind, count in kinds.most_common())
            self._console.print(
                f"  [yellow]left out of {source}: {shown}[/yellow] ({run.folder.quarantine.name})",
                highlight=False,
            )

    def close(self) -> None:
        """Remove the live lines."""
        if self._live is not None:
            self._live.stop()
            self._live = None

    @staticmethod
    def _values(record: StepRecord) -> dict[str, float]:
        return {
            "samples": record.samples_per_s,
            "answers": record.answer_tokens_per_s,
            "mfu": record.mfu,
            "padding": record.padding,
            **{f"loss/{name}": value for name, value in record.loss.items()},
        }

    def _facts(self, record: StepRecord) -> list[str]:
        """Step, losses and speed, the most important first: a narrow terminal shows the first
        ones.
        """
        shown = self._shown
        return [
            f"step {record.step:,}",
            *(f"{name} {shown[f'loss/{name}']:.3f}" for name in record.loss),
            f"{shown['answers']:,.0f} answer tokens/s",
            f"{shown['samples']:,.0f} samples/s",
            f"MFU {percent(shown['mfu'], 0)}",
            f"padding {percent(shown['padding'])}",
        ]


def _run_left(run: StageRun, record: StepRecord, left: float) -> float | None:
    """Seconds to the end of the last stage; None in the last, which `left` tells, and where
    unknown.
    """
    # Of the manifest, which has samples also where the recipe counts in epochs.
    planned = read_json(run.folder.manifest)["plan"] if run.folder.manifest.is_file() else ()
    later = [stage["length"] for stage in planned[run.index + 1 :]]
    ahead = seconds_ahead(later, samples=record.samples, tokens=record.tokens, seconds=run.seconds)
    return None if ahead is None or not later else left + ahead


def _how(train: TrainConfig) -> str:
    """At which share of the rate a part trains, and where within it."""
    blocks = "" if train.last_blocks is None else f", last {train.last_blocks} blocks"
    decay = "" if train.layer_decay is None else f", x{train.layer_decay:g} per layer down"
    return f"x{train.lr:g}" + (
        f" ({(blocks + decay).removeprefix(', ')})" if blocks or decay else ""
    )


def opening(recipe: Recipe, folder: Path) -> str:
    """Where a run writes, on which device it trains, and what it loads."""
    where = torch.cuda.get_device_name() if torch.cuda.is_available() else "the CPU"
    processes = f"{world()} x {where}" if world() > 1 else where
    model = recipe.model
    connector = model.connector.source or f"{model.connector.kind}, merge {model.connector.merge}"
    # A path may hold brackets, which rich would read as markup.
    return (
        f"writes to {escape(str(folder))}, trains on {escape(processes)}\n"
        f"loads tower {escape(model.tower)}, connector {escape(connector)},"
        f" language {escape(model.language)}"
    )


@contextmanager
def measuring(console: Console) -> Iterator[Callable[[str, int, int], None]]:
    """Show the progress of measuring sources: a bar on a terminal, else one line per large
    source.
    """
    told: set[str] = set()
    with steps_shown(console) as show:

        def measured(source: str, done: int, total: int) -> None:
            """Move the source's bar."""
            if not console.is_terminal and source not in told and total >= _LARGE:
                console.print(f"measuring {total:,} records of {escape(source)}", highlight=False)
            told.add(source)
            show(f"measuring {source}", done, total)

        yield measured


def announcement(line: dict[str, Any], *, verbose: bool = False) -> Table | str:
    """A proof, an event or a note of a run, to be printed between steps.

    A proof that holds is one line; `verbose`, or a proof that fails, shows its table.
    """
    if "rows" in line:
        return proof_table(line) if verbose or not line["ok"] else _proof_line(line)
    if "parts" in line:
        return f"[dim]{escape(line['note'])}[/dim]"
    if "note" in line:
        return f"[yellow]{escape(line['note'])}[/yellow]"
    shown = {key: line[key] for key in ("lr", "loss", "score", "to_step") if key in line}
    details = "  ".join(f"{key} {value:.4g}" for key, value in shown.items())
    named = line.get("samples")
    samples = (
        f"  samples {', '.join(named[:4])}{', ...' if len(named) > 4 else ''}"
        if isinstance(named, list)
        else ""
    )
    return (
        f"  [yellow]{line['event']}[/yellow] after step {line['step']}: {details}{escape(samples)}"
    )


def _proof_line(line: dict[str, Any]) -> str:
    """A proof that holds, with what moved and what did not."""
    moved, frozen = (sum(row[key] for row in line["rows"]) for key in ("moved", "frozen"))
    return (
        f"  proof of stage {line['stage']} after step {line['step']} [green]holds[/green]:"
        f" {short(moved)} moved, {short(frozen)} frozen"
    )


def proof_table(line: dict[str, Any]) -> Table:
    """The proof of training as a small table; the numbers count parameters."""
    verdict = "[green]holds[/green]" if line["ok"] else "[red]FAILS[/red]"
    title = f"proof of stage {line['stage']} after step {line['step']}: {verdict}"
    table = Table(title=title, title_justify="left", box=SIMPLE, padding=(0, 1, 0, 0))
    table.add_column("part")
    for name in ("to train", "optimizer", "moved", "frozen", "identical", "peak lr"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("verdict", min_width=len("as planned"))
    for row in line["rows"]:
        counts = [
            row[key] for key in ("planned", "in_optimizer", "moved", "frozen", "frozen_identical")
        ]
        table.add_row(row["part"], *map(short, counts), f"{row['lr']:.2g}", row["verdict"])
    return table
