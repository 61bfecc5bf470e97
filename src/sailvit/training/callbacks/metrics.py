"""Every step as a line of metrics.jsonl, and in the loggers that the recipe names."""

from __future__ import annotations

import dataclasses

from sailvit.distributed.processes import as_one
from sailvit.training.output.loggers import Loggers
from sailvit.training.stages.callback import Callback
from sailvit.training.stages.stage_run import StageRun, StepRecord


class MetricsCallback(Callback):
    """Writes every step to metrics.jsonl, and to the loggers that the recipe names."""

    def __init__(self, loggers: Loggers | None) -> None:
        """`loggers` are those of the process that writes; others have none."""
        self._loggers = loggers

    def stage_started(self, run: StageRun) -> None:
        """Open the loggers."""
        del run
        with as_one():
            if self._loggers is not None:
                self._loggers.open()

    def step_ended(self, run: StageRun, record: StepRecord) -> None:
        """Write the step."""
        if self._loggers is None:
            return
        run.journal.write(run.folder.metrics, dataclasses.asdict(record))
        values = {f"loss/{name}": value for name, value in record.loss.items()}
        values |= {f"lr/{part}": value for part, value in record.lr.items()}
        values |= {
            name: getattr(record, name)
            for name in ("grad_norm", "padding", "samples_per_s", "wait", "mfu")
        }
        self._loggers.add(run, values)

    def close(self) -> None:
        """Let the loggers finish."""
        if self._loggers is not None:
            self._loggers.close()
