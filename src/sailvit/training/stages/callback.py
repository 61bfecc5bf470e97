"""Hooks: side effects of training at three moments, plus a close."""

from __future__ import annotations

from sailvit.training.stages.stage_run import StageRun, StepRecord


class Callback:
    """Base of all callbacks: does nothing at any moment."""

    def stage_started(self, run: StageRun) -> None:
        """Before the first step, or the first after a resume."""

    def step_ended(self, run: StageRun, record: StepRecord) -> None:
        """After every optimizer step."""

    def stage_ended(self, run: StageRun) -> None:
        """After the last step, also when the stage was stopped."""

    def close(self) -> None:
        """When the run is over, however it ended."""
