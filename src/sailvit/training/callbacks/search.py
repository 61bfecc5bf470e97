"""The learning-rate search in a run: it gets the loss of every step, and its decisions are
carried out.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch

from sailvit.distributed.processes import rank
from sailvit.training.callbacks.state import trained_names
from sailvit.training.optim.adalrs import Event, RateSearch
from sailvit.training.optim.snapshot import Snapshot
from sailvit.training.stages.callback import Callback
from sailvit.training.stages.stage_run import StageRun, StepRecord


class SearchCallback(Callback):
    """Raises, keeps or takes back the rate as the stage's search decides; weights and moments
    go back with it.

    The data does not go back: samples of a trial that was taken back are not read again. The
    loss is the logged one, which is the same on every process, so all decide alike.
    """

    def __init__(
        self,
        announce: Callable[[dict[str, Any]], None] = lambda line: None,
        callbacks: Sequence[Callback] = (),
    ) -> None:
        """`announce` is given every line that is written to events.jsonl; `callbacks` are all
        callbacks of the run, which are told of trials.
        """
        self._announce = announce
        self._callbacks = callbacks
        self.search: RateSearch | None = None
        self.snapshot: Snapshot | None = None

    def stage_started(self, run: StageRun) -> None:
        """Begin the search that the stage's schedule asks for; one that was resumed goes on."""
        if not run.step or self.search is None:
            config = run.stage.schedule.search
            self.search = None if config is None else RateSearch(config)
            self.snapshot = None
        # Without a search the factor is other callbacks'.
        if self.search is not None:
            run.rate_factor = self.search.factor

    def step_ended(self, run: StageRun, record: StepRecord) -> None:
        """Give the step's weighted loss to the search, once the rate has warmed up, and carry
        out its decisions.
        """
        # During warm-up a slope would measure the rising rate.
        done = run.share_done(run.samples, run.tokens)
        if self.search is None or done <= run.stage.schedule.warmup:
            return
        # A step may be skipped for its gradient alone, with a loss that looks fine.
        loss = sum(run.stage.objectives[name] * value for name, value in record.loss.items())
        loss = math.nan if record.skipped else loss
        for event in self.search.observe(done, loss):
            self._carry_out(run, event)
            line = event_line(run, event)
            if rank() == 0:
                run.journal.write(run.folder.events, line)
            self._announce(line)
        run.rate_factor = self.search.factor

    def state_dict(self) -> dict[str, Any]:
        """Where the search stands; empty without one."""
        return {} if self.search is None else self.search.values()

    def state_tensors(self, run: StageRun) -> dict[str, torch.Tensor]:
        """The copy that the trial in progress returns to; empty outside trials."""
        return {} if self.snapshot is None else dict(self.snapshot.tensors(trained_names(run)))

    def load_state_dict(
        self, run: StageRun, state: dict[str, Any], tensors: Mapping[str, torch.Tensor]
    ) -> None:
        """Go on from the saved state, also in the middle of a trial."""
        config = run.stage.schedule.search
        if config is None:
            return
        self.search = RateSearch(config)
        self.search.load(state)
        self.snapshot = (
            Snapshot.load(tensors, trained_names(run), config.keep) if self.search.trying else None
        )
        run.rate_factor = self.search.factor

    def rolled_back(
        self, run: StageRun, state: dict[str, Any], tensors: Mapping[str, torch.Tensor]
    ) -> None:
        """The search goes back too, as its windows hold losses of the weights."""
        self.load_state_dict(run, state, tensors)

    def intervention(self) -> Any:
        """Changes with the factor on the rate, and with the beginning and end of a trial."""
        return None if self.search is None else (self.search.factor, self.search.trying)

    def _carry_out(self, run: StageRun, event: Event) -> None:
        config = run.stage.schedule.search
        assert config is not None
        if event.kind == "raised":
            self.snapshot = Snapshot.take(run.optimizer, config.keep)
            for callback in self._callbacks:
                callback.trial_began(run)
            return
        back = event.kind == "taken back"
        if back:
            assert self.snapshot is not None
            self.snapshot.restore(run.optimizer)
        if self.snapshot is not None:
            for callback in self._callbacks:
                callback.trial_ended(run, taken_back=back)
        self.snapshot = None


def event_line(run: StageRun, event: Event) -> dict[str, Any]:
    """One line of events.jsonl: what the search did to the rate, after which step, and the
    slopes that decided it.
    """
    return {
        "stage": run.stage.name,
        "stage_index": run.index,
        "step": run.step,
        "event": f"rate {event.kind}",
        "factor": event.factor,
        "lr": run.stage.optim.lr * event.factor,
        "window": None if event.line is None else dataclasses.asdict(event.line),
        "against": None if event.against is None else dataclasses.asdict(event.against),
    }
