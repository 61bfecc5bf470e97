"""Tables of what probes found."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from sailvit.cli.terminal.tables import print_table

if TYPE_CHECKING:
    from rich.console import Console

    from sailvit.api.probing import ProbeReport
    from sailvit.evaluation.probes.differences import Difference
    from sailvit.evaluation.probes.results import Outcome

_BARS = "▁▂▃▄▅▆▇█"


def tell_probes(console: Console, report: ProbeReport) -> None:
    """Print the numbers at every tower's own layer, how towers differ, and the layers."""
    for note in report.notes:
        console.print(note, highlight=False, soft_wrap=True)
    for name, probed in report.towers.items():
        for where, count in probed.left_out.items():
            console.print(f"{name}: {count} of {where} cannot be used and are left out")
    _tell_numbers(console, report)
    if report.differences:
        _tell_differences(console, report)
    _tell_layers(console, report)


def _tell_numbers(console: Console, report: ProbeReport) -> None:
    from rich.table import Table

    table = Table(title="percent, at each tower's own layer", title_justify="left")
    for head in ("set", "probe", "metric"):
        # Names of probes are looked for as they are written; other columns break instead.
        table.add_column(head, overflow="fold", no_wrap=head == "probe")
    for name in report.towers:
        table.add_column(name, justify="right", overflow="fold")
    table.add_column("n", justify="right")
    found = {name: {_key(each): each for each in report.own(name)} for name in report.towers}
    for key in dict.fromkeys(key for own in found.values() for key in own):
        cells = [_cell(own.get(key)) for own in found.values()]
        count = next(own[key].count for own in found.values() if key in own)
        table.add_row(*key, *cells, str(count))
    print_table(console, table)


def _tell_differences(console: Console, report: ProbeReport) -> None:
    from rich.table import Table

    base, *others = report.towers
    title = f"points {others[0] + ' ' if len(others) == 1 else ''}against {base}, same images"
    table = Table(title=title, title_justify="left")
    for head in ("set", "probe", *(("tower",) if len(others) > 1 else ()), "comes to"):
        table.add_column(head, overflow="fold")
    for head in ("points", "95 %", "p (Holm)"):
        table.add_column(head, justify="right", no_wrap=head != "95 %")
    for each in report.differences:
        table.add_row(*_difference_cells(each, several=len(others) > 1))
    print_table(console, table)


def _difference_cells(each: Difference, *, several: bool) -> list[str]:
    name = f"{each.probe} {each.metric}"
    return [
        each.set,
        name,
        *([each.other] if several else []),
        each.word,
        f"{each.difference:+.1f}",
        f"{each.low:+.1f} {each.high:+.1f}",
        f"{each.corrected:.2g}",
    ]


def _tell_layers(console: Console, report: ProbeReport) -> None:
    """For every probe and tower: its number at every layer as bars, the layer that it would choose,
    and how a recipe names that.
    """
    from rich.table import Table

    from sailvit.evaluation.probes.running import best_layers

    table = Table(
        title="layers, first to last; best without looking at the test set (model.feature_layer)",
        title_justify="left",
    )
    for head in ("set", "probe", "tower", "layers"):
        table.add_column(head, overflow="fold")
    for head in ("own", "best", "layer"):
        table.add_column(head, justify="right")
    for name, probed in report.towers.items():
        best = best_layers(probed.outcomes)
        for key in dict.fromkeys(map(_key, probed.outcomes)):
            here = [each for each in probed.outcomes if _key(each) == key and each.layer > 0]
            if len(here) > 1 and key[2] == _first_metric(probed.outcomes, key):
                table.add_row(*_layer_cells(name, here, probed.own_layer, best[key[1]]))
    if table.row_count:
        print_table(console, table)


def _layer_cells(name: str, here: Sequence[Outcome], own: int, best: int) -> list[str]:
    values = {each.layer: each.value for each in sorted(here, key=lambda each: each.layer)}
    low, high = min(values.values()), max(values.values())
    bars = "".join(
        _BARS[round((len(_BARS) - 1) * (value - low) / ((high - low) or 1))]
        for value in values.values()
    )
    shown = f"{values[own]:.1f}" if own in values else "-"
    return [here[0].set, here[0].probe, name, bars, shown, f"{values[best]:.1f}", str(best)]


def _first_metric(outcomes: Sequence[Outcome], key: tuple[str, str, str]) -> str:
    return next(each.metric for each in outcomes if _key(each)[:2] == key[:2])


def _key(outcome: Outcome) -> tuple[str, str, str]:
    return outcome.set, outcome.probe, outcome.metric


def _cell(outcome: Outcome | None) -> str:
    if outcome is None:
        return "-"
    low, high = outcome.interval()
    return f"{outcome.value:.1f} ±{(high - low) / 2:.1f}"
