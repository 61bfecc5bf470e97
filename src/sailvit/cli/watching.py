"""Draws a run that `sailvit watch` follows, for a terminal."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from itertools import pairwise
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.markup import escape
from rich.panel import Panel
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from sailvit.cli.live import fitting
from sailvit.core.formatting import counted, duration, percent, short
from sailvit.core.run import RunFolder
from sailvit.report.following import RunSoFar, StageSoFar

_ENDED = {
    "complete": "[green]complete[/green]",
    "stopped": "[yellow]stopped before its end[/yellow]",
    "crashed": "[red]crashed: its process is gone[/red]",
}
_LEVELS = 5
"""Ways to draw a run, from all there is to the least."""
BARS = "▁▂▃▄▅▆▇█"
WIDE = 112
"""Columns from which the lower part stands side by side."""
RECENT = 20
"""Steps whose mean is shown as the present value."""
STALE = 120.0
"""Seconds without a step after which a run is said to be silent, if its steps were shorter than
that."""


def sparkline(values: Sequence[float], width: int) -> str:
    """The values as a line of `width` bars at most, each the mean of its stretch, between their
    own extremes.
    """
    finite = [value for value in values if math.isfinite(value)]
    if not finite:
        return ""
    count = min(width, len(finite))
    edges = [index * len(finite) // count for index in range(count + 1)]
    means = [sum(finite[a:b]) / (b - a) for a, b in pairwise(edges)]
    low, high = min(means), max(means)
    scale = (len(BARS) - 1) / (high - low) if high > low else 0.0
    return "".join(BARS[round((mean - low) * scale)] for mean in means)


def picture(run: RunSoFar, width: int, height: int | None = None) -> RenderableType:
    """The run, `width` columns wide, and as much of it as fits into `height` rows; None: all."""
    drawn = _picture(run, width, 0)
    # Rendered to count rows, as names and tables fold in ways that nobody foresees.
    for level in range(1, _LEVELS):
        # Every level is a whole drawing, but there are five at most, and one update a second.
        if height is None or len(Console(width=width).render_lines(drawn, pad=False)) <= height:
            break
        drawn = _picture(run, width, level)
    return drawn


def ending(run: RunSoFar) -> str:
    """What to do about a run that has ended and is not complete; empty for all others."""
    if run.ended in (None, "complete"):
        return ""
    recipe = escape(str(RunFolder(run.path).recipe))
    return f"Continue with: sailvit train {recipe} --resume\n"


def _picture(run: RunSoFar, width: int, level: int) -> RenderableType:
    """The run in full at level 0; from 1 on without blank lines, from 2 brief, from 3 without
    monitoring points, at 4 without parts.
    """
    inner = width - 4
    wide = width >= WIDE
    column = (inner - 3) // 2 if wide else inner
    left = [*_losses(run.stage, column), *_speed(run.stage, column, brief=level >= 2)]
    right = [
        *(_parts(run) if level < 4 else ()),
        *(_monitoring(run, column) if level < 3 else ()),
        *_happenings(run),
    ]
    if level:
        left, right = ([each for each in side if not _is_blank(each)] for side in (left, right))
    body = _beside(Group(*left), Group(*right), column) if wide else Group(*left, *right)
    title = f"[bold]{escape(run.name)}[/bold] [dim]{escape(str(run.path))}[/dim]"
    return Panel(
        Group(_stages(run), *_progress(run, inner), body),
        title=title,
        title_align="left",
        subtitle=_state(run),
        subtitle_align="right",
        width=width,
        padding=(0, 1),
    )


def _is_blank(drawn: RenderableType) -> bool:
    return isinstance(drawn, Text) and not drawn.plain


def _beside(left: RenderableType, right: RenderableType, width: int) -> Table:
    grid = Table.grid(padding=(0, 3, 0, 0), expand=True)
    for _ in range(2):
        grid.add_column(width=width)
    grid.add_row(left, right)
    return grid


def _state(run: RunSoFar) -> str:
    """Whether it runs, as far as its files tell."""
    if run.ended is not None:
        return _ENDED[run.ended]
    if run.quiet is None:
        return "[dim]no step yet[/dim]"
    stage = run.stage
    # A run of long steps is not silent after two minutes: it has ten times its last step.
    longest = 10 * max(stage.last["seconds"], STALE / 10) if stage else STALE
    if run.quiet > longest:
        return f"[yellow]silent for {duration(run.quiet)}: saving, or stuck[/yellow]"
    return f"[green]running[/green] [dim]· last step {duration(run.quiet)} ago[/dim]"


def _stages(run: RunSoFar) -> Text:
    """The stages in a row."""
    line = Text()
    for stage in run.stages:
        mark, style = (
            ("✓", "green")
            if stage.finished
            else ("▶", "bold")
            if stage is run.stage
            else ("○", "dim")
        )
        line.append(f"{mark} {stage.name}   ", style=style)
    if run.resumed:
        line.append(f"resumed {counted(run.resumed, 'time')}", style="yellow")
    return line


def _progress(run: RunSoFar, width: int) -> Iterable[RenderableType]:
    """The bar of the stage that runs, and its numbers."""
    stage = run.stage
    if stage is None:
        return [Text("the first step has not been taken yet", style="dim")]
    last, done = stage.last, stage.done
    facts = [f"step {last['step']:,}"]
    if stage.left and not stage.finished:
        facts += [f"ETA {duration(stage.left)}"]
        later = any(each.index > stage.index for each in run.stages)
        facts += [f"run ETA {duration(run.left)}"] if later and run.left else []
    facts += [
        f"{short(last['tokens'])} tokens",
        counted(last["samples"], "sample"),
        f"{duration(stage.seconds)} in steps",
    ]
    text = Text(fitting(facts, width))
    if done is None:
        return [text, Text()]
    bar = Table.grid(padding=(0, 1, 0, 0))
    bar.add_row(
        ProgressBar(total=1.0, completed=done, width=max(10, width - 6)),
        Text(percent(done, 0)),
    )
    return [bar, text, Text()]


def _losses(stage: StageSoFar | None, width: int) -> Iterable[RenderableType]:
    rows = [
        (name.removeprefix("loss/"), values)
        for name, values in _columns(stage)
        if name.startswith("loss/")
    ]
    return _lines(
        "loss", [(name, f"{_recent(values):.4g}", values) for name, values in rows], width
    )


def _speed(
    stage: StageSoFar | None, width: int, *, brief: bool = False
) -> Iterable[RenderableType]:
    """Throughput and what it is lost to; `brief` leaves the latter out."""
    columns = dict(_columns(stage))
    shown: dict[str, tuple[str, Callable[[float], str]]] = {
        "samples_per_s": ("samples/s", short),
        "answer_tokens_per_s": ("answer tokens/s", short),
        "mfu": ("MFU", percent),
        "padding": ("padding", percent),
        "wait": ("waiting for data", percent),
        "grad_norm": ("gradient norm", lambda value: f"{value:.3g}"),
    }
    rows = [
        (label, say(_recent(columns[name])), columns[name])
        for name, (label, say) in list(shown.items())[: 3 if brief else None]
        if name in columns
    ]
    return _lines("steps", rows, width)


def _parts(run: RunSoFar) -> Iterable[RenderableType]:
    """Learning rates by part, with the norms of the stage's last monitoring point."""
    stage = run.stage
    if stage is None:
        return []
    points = [
        point
        for point in run.monitoring
        if "gradient" in point and point["stage_index"] == stage.index
    ]
    norms: dict[str, Any] = points[-1] if points else {}
    # Columns of norms only where the stage has measured some: a small run never does.
    kinds = {"gradient": "gradient", "update": "update / weight"} if norms else {}
    table = _table("part", "learning rate", *kinds.values())
    for part, rate in stage.last["lr"].items():
        told = [norms.get(kind, {}).get(part) for kind in kinds]
        table.add_row(
            part, f"{rate:.3g}", *("" if value is None else f"{value:.2g}" for value in told)
        )
    return [table, Text()]


def _monitoring(run: RunSoFar, width: int) -> Iterable[RenderableType]:
    """Drift, perplexity and affinity over the whole run."""
    if not run.monitoring:
        return []
    last = run.monitoring[-1]
    series = {
        "tower like the base (CKA)": [point["cka"] for point in run.monitoring],
        "perplexity of texts": [point["perplexity"] for point in run.monitoring],
        "images to words (nearest)": [
            (point["affinity"] or {}).get("nearest") for point in run.monitoring
        ],
    }
    rows = []
    for label, found in series.items():
        values = [value for value in found if value is not None]
        rows += [(label, f"{values[-1]:.4g}", values)] if values else []
    title = f"monitored {counted(len(run.monitoring), 'time')}"
    # At the first point monitoring is all that the run has done.
    if len(run.monitoring) > 1:
        title += f", {percent(last['share'])} of the run"
    return _lines(title, rows, width)


def _happenings(run: RunSoFar) -> Iterable[RenderableType]:
    """What is out of the ordinary, and the proofs."""
    table = Table.grid(padding=(0, 2, 0, 0))
    wrong = [proof for proof in run.proofs if not proof["ok"]]
    if run.proofs:
        verdict = (
            f"[red]{len(wrong)} of {len(run.proofs)} FAIL[/red]"
            if wrong
            else f"[green]{len(run.proofs)} as planned[/green]"
        )
        table.add_row("[dim]proofs[/dim]", verdict)
    if skipped := sum(stage.skipped for stage in run.stages):
        table.add_row(
            "[dim]skipped[/dim]",
            f"[yellow]{counted(skipped, 'step')} without a finite loss[/yellow]",
        )
    for line in _events(run.events):
        table.add_row("[dim]events[/dim]", line)
    for source, kinds in run.left_out.items():
        told = ", ".join(f"{count} {kind}" for kind, count in kinds.most_common())
        table.add_row("[dim]left out[/dim]", escape(f"{kinds.total()} of {source}: {told}"))
    return [table] if table.row_count else []


def _events(events: Sequence[dict[str, Any]]) -> Iterable[str]:
    """Counts by kind, and the last one in full."""
    if not events:
        return
    counts = Counter(event["event"] for event in events)
    yield ", ".join(f"{count} {kind}" for kind, count in counts.most_common())
    last = events[-1]
    facts = [f"{key} {last[key]:.4g}" for key in ("lr", "loss", "score", "to_step") if key in last]
    yield f"last: {last['event']} in {escape(last['stage'])} after step {last['step']:,} ({', '.join(facts)})"


def _lines(
    title: str, rows: Sequence[tuple[str, str, Sequence[float]]], width: int
) -> Iterable[RenderableType]:
    """Rows of a name, its value and its course, under a title."""
    if not rows:
        return []
    table = _table(title, "", "")
    names, values = (max(len(row[side]) for row in rows) for side in (0, 1))
    room = min(48, width - max(names, len(title)) - values - 5)
    for name, value, course in rows:
        table.add_row(name, value, Text(sparkline(course, room), style="cyan"))
    return [table, Text()]


def _table(first: str, *others: str) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim", pad_edge=False)
    table.add_column(first, no_wrap=True)
    for name in others:
        table.add_column(
            name,
            justify="right" if name != others[-1] or len(others) == 3 else "left",
            no_wrap=True,
        )
    return table


def _columns(stage: StageSoFar | None) -> list[tuple[str, list[float]]]:
    return [] if stage is None else list(stage.columns.items())


def _recent(values: Sequence[float]) -> float:
    # Skipped steps have losses that are not finite, and one would take the mean with it.
    last = [value for value in values[-RECENT:] if math.isfinite(value)]
    return sum(last) / len(last) if last else math.nan
