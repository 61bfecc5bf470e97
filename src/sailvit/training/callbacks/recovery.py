"""Recovery: steps that are not finite are skipped; too many in a row lead back to the last
checkpoint, or to a stop.
"""

from __future__ import annotations

import math
import statistics
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch

from sailvit.checkpoint.store import Checkpoints
from sailvit.core.errors import RunError
from sailvit.distributed.processes import as_one, gather_objects, rank
from sailvit.training.callbacks.state import roll_back
from sailvit.training.stages.callback import Callback
from sailvit.training.stages.stage_run import StageRun, StepRecord

_WINDOW = 100
"""Losses that a new one is compared with."""
_ENOUGH = 20
"""Fewest losses against which another can be called unusual."""
_NORMAL = 1.4826
"""Standard deviation of a normal distribution, in units of its median absolute deviation."""
_NAMED = 64
"""Most sample ids in one line."""


class RecoveryCallback(Callback):
    """Checks losses; writes unusual ones to events.jsonl, with the samples of their steps.

    Data always goes on: what led to a rollback lies before the cursor and is not read again.
    """

    def __init__(
        self,
        checkpoints: Checkpoints,
        callbacks: Sequence[Callback],
        announce: Callable[[dict[str, Any]], None],
    ) -> None:
        """`callbacks` are all callbacks of the run: a rollback concerns each of them."""
        self._checkpoints = checkpoints
        self._callbacks = callbacks
        self._announce = announce
        self._losses: deque[float] = deque(maxlen=_WINDOW)
        self._suspects: deque[str] = deque(maxlen=_NAMED)
        self._rollbacks = 0

    def stage_started(self, run: StageRun) -> None:
        """Forget other stages' losses; a stage that was resumed keeps its own."""
        # `load_state_dict` came before, and this would empty what it gave back.
        if run.step:
            return
        self._losses.clear()
        self._suspects.clear()
        self._rollbacks = 0

    def step_ended(self, run: StageRun, record: StepRecord) -> None:
        """Note a spike; after too many skipped steps in a row go back, or stop.

        Raises:
            RunError: there is no checkpoint of this stage to go back to, or the recipe allows
                no more rollbacks.
        """
        loss = sum(run.stage.objectives[name] * value for name, value in record.loss.items())
        if record.skipped:
            self._suspects.extend(_sample_ids(run))
            if run.skipped_in_row >= run.recipe.recovery.streak:
                self._go_back(run)
            return
        # A step that went well frees those before it: they did not break the model.
        self._suspects.clear()
        score = robust_score(loss, self._losses)
        self._losses.append(loss)
        if score > run.recipe.recovery.spike:
            self._write(
                run,
                {
                    "event": "spike",
                    "loss": loss,
                    "score": round(score, 1),
                    "samples": _sample_ids(run),
                },
            )

    def state_dict(self) -> dict[str, Any]:
        """Losses to compare with, samples under suspicion, and rollbacks so far."""
        return {
            "losses": list(self._losses),
            "suspects": list(self._suspects),
            "rollbacks": self._rollbacks,
        }

    def load_state_dict(
        self, run: StageRun, state: dict[str, Any], tensors: Mapping[str, torch.Tensor]
    ) -> None:
        """Go on as if the run had not stopped: neither the window nor the limit begins anew."""
        del run, tensors
        self._losses = deque(state["losses"], maxlen=_WINDOW)
        self._suspects = deque(state["suspects"], maxlen=_NAMED)
        self._rollbacks = state["rollbacks"]

    def _go_back(self, run: StageRun) -> None:
        limits, names = run.recipe.recovery, ", ".join(self._suspects)
        found, _ = self._checkpoints.newest()
        usable = found is not None and found.values["stage"] == run.index and found.values["step"]
        if self._rollbacks >= limits.rollbacks or not usable:
            self._write(
                run,
                {
                    "event": "not finite",
                    "skipped": run.skipped_in_row,
                    "samples": list(self._suspects),
                },
            )
            why = (
                f"after {self._rollbacks} rollbacks"
                if usable
                else "with no checkpoint of this stage to go back to"
            )
            stopped = RunError(
                f"stage {run.stage.name} stopped at step {run.step}: {run.skipped_in_row} steps in a row had a loss or"
                f" gradient that is not finite, {why}. Their samples: {names}. Look at these with `sailvit data view`,"
                " lower the learning rate, or save more often (`checkpoint`), so that there is a state to go back to"
            )
            with as_one():
                raise stopped
        assert found is not None
        roll_back(run, self._callbacks, found)
        self._rollbacks += 1
        run.skipped_in_row = 0
        self._write(
            run,
            {"event": "rollback", "to_step": found.values["step"], "samples": list(self._suspects)},
        )
        self._suspects.clear()

    def _write(self, run: StageRun, values: dict[str, Any]) -> None:
        line = {"stage": run.stage.name, "stage_index": run.index, "step": run.step, **values}
        if rank() == 0:
            run.journal.write(run.folder.events, line)
        self._announce(line)


def robust_score(value: float, before: deque[float]) -> float:
    """How many standard deviations `value` lies above the others, by median and median absolute
    deviation; 0 if there are few.
    """
    # Mean and standard deviation would follow earlier spikes, and hide the next one.
    if len(before) < _ENOUGH:
        return 0.0
    middle = statistics.median(before)
    spread = _NORMAL * statistics.median(abs(other - middle) for other in before)
    # Losses that hardly scatter: a thousandth of the loss is not yet a deviation.
    return (value - middle) / max(spread, 1e-3 * abs(middle), math.ulp(1.0))


def _sample_ids(run: StageRun) -> list[str]:
    """Ids of the step's samples on all processes."""
    return [name for names in gather_objects(list(run.sample_ids)) for name in names][:_NAMED]
