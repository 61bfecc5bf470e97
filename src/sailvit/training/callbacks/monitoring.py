"""Monitoring: norms, drift, perplexity and affinity at a cadence, within a share of the time."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sailvit.core.disk import DISK_ERRORS, reason
from sailvit.distributed.processes import as_one, broadcast, rank
from sailvit.models.measures.drift import linear_cka
from sailvit.training.monitoring.measure import distances, model_features, perplexity, undisturbed
from sailvit.training.monitoring.monitored import MonitoringData
from sailvit.training.monitoring.norms import gradient_norms, update_norms
from sailvit.training.output.loggers import Loggers
from sailvit.training.stages.callback import Callback
from sailvit.training.stages.stage_run import StageRun, StepRecord

if TYPE_CHECKING:
    import torch


class Budget:
    """The time that monitoring may take: another point is allowed if one at the last one's cost
    keeps the share.
    """

    def __init__(self, share: float | None, clock: Callable[[], float] = time.perf_counter) -> None:
        self.share = share
        self.spent = 0.0
        self.last = 0.0
        self._clock = clock
        self._began = clock()

    @property
    def used(self) -> float:
        """Share of this process's run that monitoring has taken so far."""
        return self.spent / max(self._clock() - self._began, 1e-9)

    def allows(self) -> bool:
        """Whether there is time for another point, by rank 0's clock; every process must call
        it.
        """
        if self.share is None:
            return True
        return bool(broadcast(self.spent + self.last <= self.share * (self._clock() - self._began)))

    @contextmanager
    def spend(self) -> Iterator[None]:
        """A context whose time counts for the current point, which `begin` has begun."""
        began = self._clock()
        try:
            yield
        finally:
            self.last += self._clock() - began
            self.spent += self._clock() - began

    def begin(self) -> None:
        """Begin another point."""
        self.last = 0.0


class MonitoringCallback(Callback):
    """Measures the run as every stage starts and ends and every so many steps between, into
    monitoring.jsonl.

    Monitoring changes nothing: training gives the same bits with it as without. All processes
    measure at the same steps; only rank 0 writes.
    """

    def __init__(
        self,
        choose: Callable[[], MonitoringData],
        loggers: Loggers | None = None,
        announce: Callable[[dict[str, Any]], None] = lambda line: None,
    ) -> None:
        """`choose` gives the tiles and texts of a run that has not chosen them yet; `loggers`
        get the numbers.
        """
        self._choose = choose
        self._loggers = loggers
        self._announce = announce
        self._budget: Budget | None = None
        self._data: MonitoringData | None = None
        self._gradients: dict[str, float] | None = None
        self._measured: tuple[int, int] | None = None
        self._seen: dict[str, Any] | None = None
        self._handle: Any = None
        self._unwritten = False

    def stage_started(self, run: StageRun) -> None:
        """Choose what to measure on and take the stage's first point, unless the stage is
        resumed; hook into the optimizer.
        """
        if run.recipe.monitoring.every is None:
            return
        if self._data is None:
            self._budget = Budget(run.recipe.monitoring.share)
            self._prepare(run, fresh=run.index == 0 and run.step == 0)
        if self._data is None:
            return
        if run.step == 0 and self._measured != (run.index, 0):
            # The last stage's end saw these weights, if no part was given others since.
            self._measure(run, {}, seen=None if run.stage.start_from else self._seen)
        self._handle = run.optimizer.register_step_pre_hook(lambda *given: self._before_step(run))

    def step_ended(self, run: StageRun, record: StepRecord) -> None:
        """Take a point, if the step was one to measure."""
        if self._gradients is not None and not run.stop:
            self._measure(run, self._norms(run, record))
        self._gradients = None

    def stage_ended(self, run: StageRun) -> None:
        """Take a last point, also when the time is used up: without it the next stage's first
        point would be joined to one from before this stage changed the model. A stage that was
        stopped goes on later.
        """
        if self._handle is not None:
            self._handle.remove()
            self._handle = None
        missing = self._measured != (run.index, run.step)
        if missing and not run.stop and self._data is not None and self._budget is not None:
            self._budget.begin()
            self._measure(run, {})

    def state_dict(self) -> dict[str, Any]:
        """The place of the last point, so that a resumed run does not take it again."""
        return {"measured": list(self._measured)} if self._measured else {}

    def load_state_dict(
        self, run: StageRun, state: dict[str, Any], tensors: Mapping[str, torch.Tensor]
    ) -> None:
        """Take over the place of the last point."""
        self._measured = (state["measured"][0], state["measured"][1])

    def _prepare(self, run: StageRun, *, fresh: bool) -> None:
        """Choose what to measure on, or load what the run has chosen; no monitoring where
        neither works.
        """
        assert self._budget is not None
        file = run.folder.monitoring_data
        there = bool(broadcast(file.exists())) and not fresh
        with self._budget.spend():
            if not there and not self._chosen(file):
                return
            self._data = MonitoringData.load(file)
        if not fresh and self._data.base is None:
            self._announce(
                {
                    "note": f"{file.name} {'lacks the base features' if there else 'is missing'}; the tower's drift"
                    " counts from here on"
                }
            )
        if not there:
            given = {"tiles": len(self._data.tiles), "texts": len(self._data.texts)}
            self._measure(run, {"monitored": {**given, "texts_from": self._data.texts_from}})

    def _chosen(self, file: Path) -> bool:
        """Whether what is measured on has been chosen and written, the same answer on every
        process.
        """
        problem: str | None = None
        with as_one():
            if rank() == 0:
                problem = self._kept(self._choose(), file)
        problem = broadcast(problem)
        if problem:
            self._announce(
                {
                    "note": f"{file} cannot be written ({problem}): nothing is monitored until the next stage"
                }
            )
        return problem is None

    def _kept(self, data: MonitoringData, file: Path) -> str | None:
        """Write what is measured on; returns why that failed, None if it did not.

        Nothing is raised, as monitoring is no reason to stop a run.
        """
        try:
            data.save(file)
        except DISK_ERRORS as error:
            with suppress(OSError):
                file.with_name(file.name + ".part").unlink(missing_ok=True)
            return reason(error)
        return None

    def _before_step(self, run: StageRun) -> None:
        """Called by the optimizer before its step, when gradients are complete and clipped:
        decide whether to measure this step.
        """
        every = run.recipe.monitoring.every
        assert every is not None
        assert self._budget is not None
        if (run.step + 1) % every == 0 and self._budget.allows():
            self._budget.begin()
            with self._budget.spend():
                self._gradients = gradient_norms(run.optimizer, run.device)

    def _norms(self, run: StageRun, record: StepRecord) -> dict[str, Any]:
        """Norms of the step by part, those of gradients from before clipping."""
        assert self._budget is not None
        clipped = self._gradients or {}
        total = math.sqrt(sum(norm**2 for norm in clipped.values()))
        # Clipping scaled all gradients by one factor, which the total norm gives back.
        factor = record.grad_norm / total if total else 1.0
        with self._budget.spend():
            update = update_norms(run.optimizer, run.device)
        return {
            "gradient": {part: norm * factor for part, norm in clipped.items()},
            "update": update,
        }

    def _measure(
        self, run: StageRun, known: dict[str, Any], seen: dict[str, Any] | None = None
    ) -> None:
        """Write a point; `seen` is what would be measured, where that is known."""
        assert self._budget is not None
        seconds = 0.0
        if seen is None:
            with self._budget.spend():
                seen = self._measured_now(run)
            seconds = round(self._budget.last, 4)
        self._measured, self._seen = (run.index, run.step), seen
        if rank() != 0:
            return
        place = {
            "stage": run.stage.name,
            "stage_index": run.index,
            "step": run.step,
            "samples": run.samples,
        }
        cost = {"seconds": seconds, "share": round(self._budget.used, 5)}
        run.journal.write(run.folder.monitoring, {**place, **known, **seen, **cost})
        if self._loggers is not None:
            self._loggers.add(run, logged_values({**known, **seen, **cost}))

    def _measured_now(self, run: StageRun) -> dict[str, Any]:
        """Drift, perplexity and affinity, complete on rank 0; the first point keeps the base
        tower's features.
        """
        assert self._data is not None
        with undisturbed(run):
            features = model_features(run, self._data)
            words = perplexity(run, self._data)
        if features is not None and self._data.base is None:
            self._data = replace(self._data, base=features.tower.cpu())
            self._unwritten = True
        if self._unwritten and rank() == 0:
            # Tried again at the next point: without the file a resumed run would measure drift
            # from another tower.
            self._unwritten = self._kept(self._data, run.folder.monitoring_data) is not None
        base = self._data.base
        if features is None or base is None or rank() != 0:
            return {"cka": None, "perplexity": words, "affinity": None}
        cka = linear_cka(features.tower, base.to(run.device))
        return {"cka": cka, "perplexity": words, "affinity": distances(features)}


def logged_values(line: dict[str, Any]) -> dict[str, float]:
    """A line's numbers by the names for loggers: `monitoring/cka`, `monitoring/gradient/tower`,
    ...
    """
    nested = [(name, line.get(name) or {}) for name in ("gradient", "update", "affinity")]
    found = {
        f"monitoring/{name}/{key}": value
        for name, values in nested
        for key, value in values.items()
    }
    plain = ("cka", "perplexity", "seconds", "share")
    return found | {f"monitoring/{name}": line[name] for name in plain if line[name] is not None}
