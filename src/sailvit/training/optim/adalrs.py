"""AdaLRS: a search for the learning rate that uses nothing but how fast the loss falls
(arXiv 2506.13274).

A line is fitted through the losses of each window of steps. After a window at the current rate,
the rate is raised by alpha' = max(lambda^t alpha, 1) for one more window. If the loss then
falls faster by more than 2e, e being the error of the slopes, the raise is kept. If it falls
more slowly by more than 2e, everything goes back to before the raise and the rate is divided by
beta' = max(lambda^t beta, 1). Otherwise the old rate is restored and training goes on. t counts
the changes of the rate, so both factors shrink to 1 and the search ends by itself.

Four rules are this project's own. (1) Every loss falls ever more slowly, so a raise that looks
slower than the window before it is not yet rejected: weights go back, a control window runs
from the same weights at the old rate, and the raise is judged against the control. (2) A raise
that ends at a higher loss than it began with is rejected at once, whatever its slope: far too
high a rate jumps to a plateau, and a plateau is flat. (3) So is a raise whose loss is not
finite. (4) An undecided trial doubles the window, as the error of a slope falls with the window
to the power of 1.5: nobody has to know beforehand which window is long enough.
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass, field
from typing import Any, Literal

from sailvit.core.schedule import SearchConfig
from sailvit.training.optim.slopes import Line, fit_line

Kind = Literal["raised", "kept", "left", "taken back", "lowered", "found"]
"""What happened: a trial begins; its raise is kept; it is undecided; weights and rate go back
to before the raise; the rate is divided; the search is over."""

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
    """The line of the last window; None when a loss was not finite, and at the end."""
    against: Line | None
    """The line that it was compared with, if any."""


@dataclass
class SearchState:
    """Where a search stands: numbers only, so that a checkpoint holds it exactly."""

    window: int
    """Steps per window."""
    factor: float = 1.0
    """Factor on the schedule's rate."""
    before: float | None = None
    """Factor that the trial in progress goes back to; None outside trials."""
    changes: int = 0
    """Changes of the rate that were decided: t of the method."""
    losses: list[float] = field(default_factory=list)
    """Losses of the window in progress."""
    base: Line | None = None
    """The last window at the rate before the trial."""
    suspect: Line | None = None
    """The line of a trial that looked slower, while its control is in progress; else None."""
    ended: bool = False
    """Whether the search is over."""


class RateSearch:
    """The search as a state machine: losses in, decisions out."""

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
        """The decisions after the loss of one step, when the share `done` of the stage is over;
        for steps after warm-up.
        """
        state = self.state
        if state.ended:
            return []
        if not self.trying and state.suspect is None and not self._goes_on(done):
            state.ended = True
            return [Event("found", state.factor, None, None)]
        if not math.isfinite(loss):
            # A line through a window with a gap would not compare with the others: begin anew.
            state.losses = []
            return self._blame(None, None) if self.trying else []
        state.losses.append(loss)
        if len(state.losses) < state.window:
            return []
        line, state.losses = fit_line(state.losses), []
        return self._judge(line, done)

    def values(self) -> dict[str, Any]:
        """The state as JSON."""
        return dataclasses.asdict(self.state)

    def load(self, values: dict[str, Any]) -> None:
        """Go on from what `values` gave."""
        lines = {key: values[key] and Line(**values[key]) for key in ("base", "suspect")}
        self.state = SearchState(**{**values, **lines})

    def _goes_on(self, done: float) -> bool:
        """Whether it is time for a trial, and there is something left to try."""
        return done <= self.config.until and self._raised() >= self.state.factor * _SETTLED

    def _raised(self) -> float:
        config, state = self.config, self.state
        return min(
            state.factor * max(config.shrink**state.changes * config.raise_by, 1.0), config.most
        )

    def _judge(self, line: Line, done: float) -> list[Event]:
        """The decisions after a window: before a raise, of the raise, or of its control."""
        state = self.state
        if state.suspect is not None:
            return [self._settle(state.suspect, line)]
        if not self.trying:
            return [self._try(line)]
        # `errors` counts mean errors of two values: half of it, times the sum of both errors.
        base, needed = state.base, self.config.errors / 2
        assert base is not None
        # The loss is higher than before the raise: no slope is needed to call it too high.
        if line.end - base.end > needed * (line.end_error + base.end_error):
            return self._blame(line, base)
        if self._faster(base, line):
            state.suspect = line
            return [self._take_back(line, base)]
        self._end_trial()
        event = self._settle(line, base)
        return [event, self._try(line)] if event.kind == "kept" and self._goes_on(done) else [event]

    def _try(self, line: Line) -> Event:
        state = self.state
        state.base, state.before, state.factor = line, state.factor, self._raised()
        return Event("raised", state.factor, line, None)

    def _settle(self, raised: Line, other: Line) -> Event:
        """The decision on a raise, against the window before it or against its control."""
        state = self.state
        if self._faster(other, raised):
            return self._lower(raised, other)
        state.suspect = None
        if self._faster(raised, other):
            state.factor, state.changes = self._raised(), state.changes + 1
            return Event("kept", state.factor, raised, other)
        # Undecided: over a longer window the errors of the slopes are smaller.
        state.window = min(2 * state.window, self.config.widest * self.config.window)
        return Event("left", state.factor, raised, other)

    def _faster(self, one: Line, other: Line) -> bool:
        """Whether the loss falls faster along `one`, by more than the errors of both allow."""
        return other.slope - one.slope > self.config.errors / 2 * (
            one.slope_error + other.slope_error
        )

    def _blame(self, line: Line | None, against: Line | None) -> list[Event]:
        back = self._take_back(line, against)
        return [back, self._lower(line, against)]

    def _take_back(self, line: Line | None, against: Line | None) -> Event:
        self._end_trial()
        return Event("taken back", self.state.factor, line, against)

    def _end_trial(self) -> None:
        """The rate is what it was before the raise."""
        assert self.state.before is not None
        self.state.factor, self.state.before = self.state.before, None

    def _lower(self, line: Line | None, against: Line | None) -> Event:
        config, state = self.config, self.state
        state.factor = max(
            state.factor / max(config.shrink**state.changes * config.lower_by, 1.0), config.least
        )
        state.suspect, state.changes = None, state.changes + 1
        return Event("lowered", state.factor, line, against)
