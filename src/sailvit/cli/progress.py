"""How a run shows itself: a progress bar per stage on a terminal, plain lines elsewhere, and the proof as a table."""

from __future__ import annotations

from typing import Any

from rich.box import SIMPLE
from rich.console import Console
from rich.markup import escape
from rich.progress import (
    BarColumn,
    Progress,
    SpinnerColumn,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Table

from sailvit.core.recipe import TrainConfig
from sailvit.training.output.quarantine import left_out
from sailvit.training.stages.callback import Callback
from sailvit.training.stages.stage_run import StageRun, StepRecord

_LINES_PER_STAGE = 10
"""Plain lines that a stage prints when its output is not a terminal."""

_MEMORY = 0.95
"""Weight of the past in the shown rates and losses: about the last 20 steps."""


class ProgressCallback(Callback):
    """Shows where a run stands."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._progress: Progress | None = None
        self._bar: TaskID | None = None
        self._shown: dict[str, float] = {}
        self._next = 0.0

    def stage_started(self, run: StageRun) -> None:
        """Start the stage's bar, or say what it does."""
        trained = ", ".join(
            f"{part} {_how(train)}" for part, train in run.stage.train.items() if train.lr
        )
        self._console.print(
            f"[bold]stage {run.stage.name}[/bold] trains {trained}, peak rate {run.stage.optim.lr:g}"
        )
        asked = run.stage.length.samples
        if asked is not None and run.target < asked:
            self._console.print(
                f"  [yellow]its sources end after {run.target:,.0f} records, by their `epochs`, and the stage with"
                f" them; length.samples asks for {asked:,}[/yellow]",
                highlight=False,
                soft_wrap=True,
            )
        self._shown, self._next = {}, 1 / _LINES_PER_STAGE
        if self._console.is_terminal:
            columns = (
                SpinnerColumn(),
                TextColumn("{task.description}"),
                BarColumn(bar_width=20),
                TextColumn("{task.percentage:>3.0f}%"),
                TimeElapsedColumn(),
                TextColumn("ETA"),
                TimeRemainingColumn(),
            )
            self._progress = Progress(*columns, console=self._console)
            self._progress.start()
            self._bar = self._progress.add_task(run.stage.name, total=1.0)

    def step_ended(self, run: StageRun, record: StepRecord) -> None:
        """Move the bar, or print a line at every tenth of the stage."""
        # A stage's first step also pays for what libraries set up once, so its rates are not worth remembering.
        if record.step <= 2:
            self._shown = {}
        for name, value in self._values(record).items():
            self._shown[name] = _MEMORY * self._shown.get(name, value) + (1 - _MEMORY) * value
        done = run.share_done(record.samples, record.tokens)
        if self._progress is not None and self._bar is not None:
            self._progress.update(self._bar, completed=done, description=self._line(record))
        elif done >= self._next:
            left = run.seconds / done * (1 - done)
            self._console.print(
                f"  {done:4.0%} {self._line(record)}  {left:.0f} s left",
                highlight=False,
                soft_wrap=True,
            )
            self._next = done + 1 / _LINES_PER_STAGE

    def stage_ended(self, run: StageRun) -> None:
        """Close the bar and sum the stage up."""
        self.close()
        rate = run.samples / run.seconds if run.seconds else 0.0
        self._console.print(
            f"  {run.step} steps, {run.samples} samples, {run.tokens} tokens in {run.seconds:.1f} s"
            f" ({rate:.0f} samples/s)",
            highlight=False,
        )
        for source, kinds in left_out(run.folder, run.index).items():
            shown = ", ".join(f"{count} {kind}" for kind, count in kinds.most_common())
            self._console.print(
                f"  [yellow]left out of {source}: {shown}[/yellow] ({run.folder.quarantine.name})",
                highlight=False,
            )

    def close(self) -> None:
        """Leave the terminal as it was."""
        if self._progress is not None:
            self._progress.stop()
            self._progress = self._bar = None

    @staticmethod
    def _values(record: StepRecord) -> dict[str, float]:
        rates = {
            "samples": record.samples_per_s,
            "answers": record.answer_tokens_per_s,
            "mfu": record.mfu,
        }
        return {
            **rates,
            "padding": record.padding,
            **{f"loss/{name}": value for name, value in record.loss.items()},
        }

    def _line(self, record: StepRecord) -> str:
        shown = self._shown
        losses = " ".join(f"{name} {shown[f'loss/{name}']:.3f}" for name in record.loss)
        return (
            f"step {record.step}  {losses}  {shown['samples']:.0f} samples/s  {shown['answers']:.0f} answer tokens/s"
            f"  padding {shown['padding']:.1%}  MFU {shown['mfu']:.0%}"
        )


def _how(train: TrainConfig) -> str:
    """At which share of the rate a part trains, and where within it."""
    blocks = "" if train.last_blocks is None else f", last {train.last_blocks} blocks"
    decay = "" if train.layer_decay is None else f", x{train.layer_decay:g} per layer down"
    return f"x{train.lr:g}" + (
        f" ({(blocks + decay).removeprefix(', ')})" if blocks or decay else ""
    )


def announcement(line: dict[str, Any]) -> Table | str:
    """What a run has to say between steps: a proof, an event, or a note."""
    if "rows" in line:
        return proof_table(line)
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
        table.add_row(row["part"], *map(_short, counts), f"{row['lr']:.2g}", row["verdict"])
    return table


def _short(count: int) -> str:
    """A count with three digits: 775552 is 776k."""
    for unit, size in (("G", 10**9), ("M", 10**6), ("k", 10**3)):
        if count >= size:
            return f"{count / size:.3g}{unit}"
    return str(count)
