"""Every step as a line of metrics, and as curves in the tools that the recipe names."""

from __future__ import annotations

import dataclasses

from sailvit.training.output.loggers import Curves
from sailvit.training.stages.callback import Callback
from sailvit.training.stages.stage_run import StageRun, StepRecord


class MetricsCallback(Callback):
    """Writes every step to metrics.jsonl, and its curves to the tools that the recipe names."""

    def __init__(self, curves: Curves) -> None:
        self._curves = curves

    def stage_started(self, run: StageRun) -> None:
        """Open the tools."""
        del run
        self._curves.open()

    def step_ended(self, run: StageRun, record: StepRecord) -> None:
        """Write the step."""
        run.journal.write(run.folder.metrics, dataclasses.asdict(record))
        curves = {f"loss/{name}": value for name, value in record.loss.items()}
        curves |= {f"lr/{part}": value for part, value in record.lr.items()}
        curves |= {
            name: getattr(record, name)
            for name in ("grad_norm", "padding", "samples_per_s", "wait", "mfu")
        }
        self._curves.add(run, curves)

    def close(self) -> None:
        """Let the tools finish."""
        self._curves.close()
