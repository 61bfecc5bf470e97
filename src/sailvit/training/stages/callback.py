"""Hooks: side effects of training at three moments, plus a close."""

from __future__ import annotations

from sailvit.training.stages.stage_run import StageJob, StepRecord


class Hook:
    """Base of all hooks: does nothing at any moment."""

    def stage_started(self, job: StageJob) -> None:
        """Before the first step, or the first after a resume."""

    def step_ended(self, job: StageJob, record: StepRecord) -> None:
        """After every optimizer step."""

    def stage_ended(self, job: StageJob) -> None:
        """After the last step, also when the stage was stopped."""

    def close(self) -> None:
        """When the run is over, however it ended."""
