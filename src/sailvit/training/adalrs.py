"""AdaLRS: a search for the learning rate that watches nothing but how fast the loss falls (arXiv 2506.13274).

Window by window, a line is fitted through the losses. After one at the rate in force the rate is raised by
alpha' = max(lambda^t alpha, 1) for one window more. If the loss then falls faster by more than 2e, e being the error of
the slopes, the raise is kept; if it falls more slowly by more than 2e, everything goes back to before the raise and the
rate is divided by beta' = max(lambda^t beta, 1); otherwise the rate is what it was, and training goes on. t counts the
changes of the rate, so both factors shrink to 1 and the search ends by itself.

Three rules are this project's own. A raise that leaves the loss higher than it found it is worse whatever its slope:
far too high a rate jumps to a plateau, and a plateau is flat. A loss that is no number ends a trial at once. And an
undecided trial doubles the window, because the error of a slope falls with the window to the power of 1.5: a window
that is long enough need not be known beforehand.
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass, field
from typing import Any, Literal

from sailvit.core.schedule import SearchConfig
from sailvit.training.slopes import Line, fit_line

Kind = Literal["raised", "kept", "left", "lowered", "found"]
"""What became of the rate: a trial begins; its raise is kept; nothing is decided; all goes back; the search is over."""

_SETTLED = 1.02
"""A raise by less than this is not worth a trial."""


@dataclass(frozen=True)
class Event:
    """One thing that the search did."""

    kind: Kind
    """What it was."""
    factor: float
    """Factor on the schedule's rate from here on."""
    line: Line | None
    """The last window's losses; none when they were no numbers, and at the end."""
    base: Line | None
    """The window before the raise that was judged; none where none was."""


@dataclass
class SearchState:
    """Where a search stands: numbers only, so that a checkpoint holds it exactly."""

    window: int
    """Steps per window."""
    factor: float = 1.0
    """Factor on the schedule's rate."""
    before: float | None = None
    """Factor to go back to from the trial in progress; none outside trials."""
    changes: int = 0
    """Changes of the rate that were decided: t of the method."""
    losses: list[float] = field(default_factory=list)
    """Losses of the window in progress."""
    base: Line | None = None
    """The last window at the rate before the trial."""
    ended: bool = False
    """Whether the search is over."""


class RateSearch:
    """The search as a machine: losses in, decisions out."""

    def __init__(self, config: SearchConfig) -> None:
        self.config = config
        self.state = SearchState(window=config.window)

    @property
    def factor(self) -> float:
        """What the schedule's rate is multiplied by now."""
        return self.state.factor

    @property
    def trying(self) -> bool:
        """Whether a trial is in progress."""
        return self.state.before is not None

    def observe(self, done: float, loss: float) -> list[Event]:
        """What follows from the loss of one step after warm-up, the share `done` of the stage being over."""
        state = self.state
        if state.ended:
            return []
        if not self.trying and not self._goes_on(done):
            state.ended = True
            return [Event("found", state.factor, None, None)]
        if not math.isfinite(loss):
            state.losses = []
            return [self._go_back(None)] if self.trying else []
        state.losses.append(loss)
        if len(state.losses) < state.window:
            return []
        line, state.losses = fit_line(state.losses), []
        if not self.trying:
            return [self._try(line)]
        event = self._judge(line)
        return [event, self._try(line)] if event.kind == "kept" and self._goes_on(done) else [event]

    def values(self) -> dict[str, Any]:
        """The state as JSON."""
        return dataclasses.asdict(self.state)

    def load(self, values: dict[str, Any]) -> None:
        """Go on from what `values` gave."""
        base = values["base"]
        self.state = SearchState(**{**values, "base": None if base is None else Line(**base)})

    def _goes_on(self, done: float) -> bool:
        """Whether it is time for a trial, and there is something left to try."""
        return done <= self.config.until and self._raised() >= self.state.factor * _SETTLED

    def _raised(self) -> float:
        config, state = self.config, self.state
        return min(state.factor * max(config.shrink**state.changes * config.raise_by, 1.0), config.most)

    def _try(self, line: Line) -> Event:
        state = self.state
        state.base, state.before, state.factor = line, state.factor, self._raised()
        return Event("raised", state.factor, line, None)

    def _judge(self, line: Line) -> Event:
        state, base = self.state, self.state.base
        assert base is not None
        assert state.before is not None
        needed = self.config.errors / 2
        faster = base.slope - line.slope
        margin = needed * (base.slope_error + line.slope_error)
        higher = line.end - base.end > needed * (base.end_error + line.end_error)
        if higher or -faster > margin:
            return self._go_back(line)
        if faster > margin:
            state.before, state.changes = None, state.changes + 1
            return Event("kept", state.factor, line, base)
        state.factor, state.before = state.before, None
        state.window = min(2 * state.window, self.config.widest * self.config.window)
        return Event("left", state.factor, line, base)

    def _go_back(self, line: Line | None) -> Event:
        config, state = self.config, self.state
        assert state.before is not None
        state.factor = max(state.before / max(config.shrink**state.changes * config.lower_by, 1.0), config.least)
        state.before, state.changes = None, state.changes + 1
        return Event("lowered", state.factor, line, state.base)
