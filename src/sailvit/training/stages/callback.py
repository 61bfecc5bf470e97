"""Callbacks: side effects of training at stage starts, steps, stage ends and the run's end."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from sailvit.training.stages.stage_run import StageRun, StepRecord


class Callback:
    """Base of all callbacks: does nothing and has no state.

    A callback with a state overrides `state_dict` and `load_state_dict`. Checkpoints hold the
    state under the name of its class and load it before `stage_started` of a resumed stage,
    where `run.step` is above 0; in a stage that begins it is 0.
    """

    def stage_started(self, run: StageRun) -> None:
        """Before the first step, or the first after a resume."""

    def step_ended(self, run: StageRun, record: StepRecord) -> None:
        """After every optimizer step."""

    def stage_ended(self, run: StageRun) -> None:
        """After the last step, also when the stage was stopped."""

    def close(self) -> None:
        """When the run is over, however it ended."""

    def state_dict(self) -> dict[str, Any]:
        """What a resumed run must know, as JSON; later steps must not change the returned
        value.
        """
        return {}

    def state_tensors(self, run: StageRun) -> dict[str, torch.Tensor]:
        """Tensors of the state. One named `key/parameter` is read back with the sharding of
        that parameter.
        """
        del run
        return {}

    def load_state_dict(
        self, run: StageRun, state: dict[str, Any], tensors: Mapping[str, torch.Tensor]
    ) -> None:
        """Go on from what `state_dict` and `state_tensors` gave."""

    def rolled_back(
        self, run: StageRun, state: dict[str, Any], tensors: Mapping[str, torch.Tensor]
    ) -> None:
        """After weights and moments went back to an earlier step, where the callback had this
        state; the data does not go back.
        """

    def trial_began(self, run: StageRun) -> None:
        """When a trial of another learning rate begins, whose steps may be taken back."""

    def trial_ended(self, run: StageRun, *, taken_back: bool) -> None:
        """When that trial is decided; `taken_back`: weights and moments are what they were when
        it began.
        """

    def intervention(self) -> Any:
        """A value that changes whenever the callback has changed weights or rates; None: it
        never does.
        """
