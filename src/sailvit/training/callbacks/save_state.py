"""When the training state is saved: by time, by steps, at stage ends, and before a run stops."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from sailvit.checkpoint.store import Checkpoints
from sailvit.core.errors import ProofError, SailvitError
from sailvit.core.recipe import CheckpointConfig
from sailvit.distributed.processes import rank, sum_counts
from sailvit.training.callbacks.state import (
    callback_states,
    changed_weights,
    stage_tensors,
    stage_values,
)
from sailvit.training.stages.callback import Callback
from sailvit.training.stages.journal import Journal
from sailvit.training.stages.stage_run import StageRun, StepRecord

UNPROVED = "unproved"
"""Prefix of the name of a state that failed its proof."""


class Timer:
    """Says when the next save is due by the clock: soon after the start, then at its interval."""

    def __init__(self, config: CheckpointConfig, clock: Callable[[], float]) -> None:
        self._minutes = config.minutes
        self._clock = clock
        self._next = clock() + 60 * min(config.first_minutes, config.minutes or 0)

    def due(self, device: torch.device) -> bool:
        """Whether it is time, by the first process's clock; every process must call it."""
        if self._minutes is None:
            return False
        return sum_counts([int(rank() == 0 and self._clock() >= self._next)], device)[0] > 0

    def restart(self) -> None:
        """The state has just been saved."""
        self._next = self._clock() + 60 * (self._minutes or 0)


class SaveState(Callback):
    """Saves the training state; it is the last callback, so that the state holds what the
    others did after the step.
    """

    def __init__(
        self,
        checkpoints: Checkpoints,
        journal: Journal,
        callbacks: Sequence[Callback],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`callbacks` are all callbacks of the run, whose states are saved too."""
        self._checkpoints = checkpoints
        self._callbacks = callbacks
        self._journal = journal
        self._clock = clock
        self._timer: Timer | None = None
        self._losses: list[float] = []
        self._sound: dict[str, Any] = {}
        self._tried: Any = None

    def stage_started(self, run: StageRun) -> None:
        """The clock starts with the run's first step."""
        self._timer = self._timer or Timer(run.recipe.checkpoint, self._clock)
        self._note_sound(run)

    def step_ended(self, run: StageRun, record: StepRecord) -> None:
        """Save when it is time and the step was sound, or when this is the last step before a
        stop.
        """
        assert self._timer is not None
        if not record.skipped:
            self._losses.append(sum(record.loss.values()))
        if not run.skipped_in_row or self._interventions() != self._tried:
            self._note_sound(run)
        every = run.recipe.checkpoint.every
        due = self._timer.due(run.device) or (every is not None and record.step % every == 0)
        if run.stop or (due and not run.skipped_in_row):
            self._save(run, stage_values(run, self._callbacks), wait=run.stop)

    def save_end(self, run: StageRun, finished: dict[str, Any]) -> None:
        """Save the state from which the next stage begins; `finished` holds what this stage's
        export needs.
        """
        values = {"stage": run.index + 1, "step": 0, "finished": finished}
        values["callbacks"] = callback_states(self._callbacks)
        self._write(run, changed_weights(run), values, wait=True)

    def save_before_stop(self, run: StageRun, error: SailvitError) -> Path | None:
        """Save the newest sound state before `error` stops the run; returns its folder, None if
        that state is saved already.

        A state that failed its proof is kept under a name from which nothing resumes. Steps
        that were not finite changed no weight, so the saved state is that of the last finite
        one, and the data after it are read again.

        Raises:
            RunError: it could not be written.
        """
        if isinstance(error, ProofError):
            return self._save(run, stage_values(run, self._callbacks), wait=True, aside=UNPROVED)
        values = self._values_to_keep(run)
        if values is None or not values["step"]:
            return None
        self._checkpoints.wait()
        if self._checkpoints.has((run.index, values["step"])):
            return None
        return self._save(run, values, wait=True)

    def close(self) -> None:
        """Wait for this process's part of the save in progress."""
        self._checkpoints.finish()

    def _values_to_keep(self, run: StageRun) -> dict[str, Any] | None:
        """The values that belong to the weights as they are now; None when there are none."""
        if run.updating:
            return None
        if self._sound.get("step") == run.step or run.skipped_in_row:
            return self._sound
        # A callback failed before this one was called. Those before it may have changed weights
        # or rate, and a state with half of their changes is none to resume from.
        passive = all(each is None for each in self._interventions())
        return stage_values(run, self._callbacks) if passive else None

    def _interventions(self) -> list[Any]:
        return [callback.intervention() for callback in self._callbacks]

    def _note_sound(self, run: StageRun) -> None:
        self._sound, self._tried = stage_values(run, self._callbacks), self._interventions()

    def _save(
        self, run: StageRun, values: dict[str, Any], *, wait: bool, aside: str | None = None
    ) -> Path:
        if self._losses:
            values = {**values, "score": sum(self._losses) / len(self._losses)}
        tensors = {**changed_weights(run), **stage_tensors(run, self._callbacks)}
        return self._write(run, tensors, {"stage": run.index, **values}, wait=wait, aside=aside)

    def _write(
        self,
        run: StageRun,
        tensors: dict[str, torch.Tensor],
        values: dict[str, Any],
        *,
        wait: bool,
        aside: str | None = None,
    ) -> Path:
        # Lines before state: a resumed run would lack those of the steps that it does not
        # repeat.
        self._journal.settle()
        self._losses = []
        place = (values["stage"], values["step"])
        found = self._checkpoints.save(place, tensors, values, wait=wait, aside=aside)
        if self._timer is not None:
            self._timer.restart()
        return found
