"""The learning-rate search at work: shows it the loss of every step, and carries out what it decides."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping
from typing import Any

import torch

from sailvit.core.recipe import Stage
from sailvit.distributed.processes import rank
from sailvit.training.optim.adalrs import Event, RateSearch
from sailvit.training.optim.snapshot import Snapshot
from sailvit.training.stages.callback import Callback
from sailvit.training.stages.stage_run import StageRun, StepRecord


def make_search(stage: Stage) -> RateSearch | None:
    """The search that a stage's schedule asks for."""
    return None if stage.schedule.search is None else RateSearch(stage.schedule.search)


class SearchCallback(Callback):
    """Raises, keeps or takes back the rate as the stage's search says; parameters and moments go back with it.

    Data does not: it goes on in order, so what a trial that was taken back has read is not read again. The loss is the
    one that is logged, the same on every process, so that all decide alike.
    """

    def __init__(self, announce: Callable[[dict[str, Any]], None] = lambda line: None) -> None:
        """`announce` is given every line that is written to events.jsonl."""
        self._announce = announce

    def step_ended(self, run: StageRun, record: StepRecord) -> None:
        """Show the step's weighted loss to the search once the rate has warmed up, and do what follows."""
        done = run.share_done(run.samples, run.tokens)
        if run.search is None or done <= run.stage.schedule.warmup:
            return
        # A step that was skipped had a gradient that is no number, whatever its loss.
        loss = sum(run.stage.objectives[name] * value for name, value in record.loss.items())
        loss = math.nan if record.skipped else loss
        for event in run.search.observe(done, loss):
            _carry_out(run, event)
            line = event_line(run, event)
            if rank() == 0:
                run.journal.write(run.folder.events, line)
            self._announce(line)


def _carry_out(run: StageRun, event: Event) -> None:
    config = run.stage.schedule.search
    assert config is not None
    if event.kind == "raised":
        run.snapshot = Snapshot.take(run.optimizer, config.keep)
        return
    if event.kind == "taken back":
        assert run.snapshot is not None
        run.snapshot.restore(run.optimizer)
    run.snapshot = None


def event_line(run: StageRun, event: Event) -> dict[str, Any]:
    """One line of events.jsonl: what the search did to the rate after which step, and the slopes that made it."""
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


def search_tensors(run: StageRun, names: Mapping[torch.Tensor, str]) -> dict[str, torch.Tensor]:
    """The way back of a trial in progress as named tensors, for a checkpoint; nothing outside trials."""
    return {} if run.snapshot is None else dict(run.snapshot.tensors(names))


def search_values(run: StageRun) -> dict[str, Any] | None:
    """The search's state as JSON, for a checkpoint; none without a search."""
    return None if run.search is None else run.search.values()


def restore_search(
    run: StageRun,
    values: dict[str, Any] | None,
    tensors: Mapping[str, torch.Tensor],
    names: Mapping[torch.Tensor, str],
) -> None:
    """Go on from what `search_values` and `search_tensors` gave, also in the middle of a trial."""
    config = run.stage.schedule.search
    if run.search is None or config is None or values is None:
        return
    run.search.load(values)
    run.snapshot = Snapshot.load(tensors, names, config.keep) if run.search.trying else None
