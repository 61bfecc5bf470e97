"""Callbacks: side effects of training at three moments, plus a close, with a state of their own."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from sailvit.training.stages.stage_run import StageRun, StepRecord


class Callback:
    """Base of all callbacks: does nothing at any moment and has no state.

    One with a state overrides `state_dict` and `load_state_dict`: checkpoints hold what it
    gives and hand it back, under the name of its class, before `stage_started` of a resumed
    stage (`run.step` is then above 0). A stage that begins anew has step 0.
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
        """What a resumed run must know, as JSON; steps to come must not change what was given."""
        return {}

    def state_tensors(self, run: StageRun) -> dict[str, torch.Tensor]:
        """Tensors of the state. One named `key/parameter` comes back sharded as that parameter
        is.
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
        """Weights and moments are those of an earlier step, with this state then; data goes on."""

    def intervention(self) -> Any:
        """A value that changes with all that the callback does to weights or rates; None:
        nothing.
        """
