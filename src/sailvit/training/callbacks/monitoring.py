"""Watching a run: norms, drift, perplexity and affinity at a cadence, within a share of the run's time."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from sailvit.core.disk import DISK_ERRORS, reason
from sailvit.distributed.processes import broadcast, rank
from sailvit.models.measures.drift import linear_cka
from sailvit.training.monitoring.measure import distances, perplexity, see, undisturbed
from sailvit.training.monitoring.monitored import Watched
from sailvit.training.monitoring.norms import gradient_norms, update_norms
from sailvit.training.output.loggers import Curves
from sailvit.training.stages.callback import Callback
from sailvit.training.stages.stage_run import StageRun, StepRecord


class Budget:
    """Time that looks may take: another is allowed if it would cost what the last one did and stay within the share."""

    def __init__(self, share: float | None, clock: Callable[[], float] = time.perf_counter) -> None:
        self.share = share
        self.spent = 0.0
        self.last = 0.0
        self._clock = clock
        self._began = clock()

    @property
    def used(self) -> float:
        """Share of this process's run that looks have taken so far."""
        return self.spent / max(self._clock() - self._began, 1e-9)

    def allows(self) -> bool:
        """Whether there is time for another look, as rank 0 sees it; every process must ask."""
        if self.share is None:
            return True
        return bool(broadcast(self.spent + self.last <= self.share * (self._clock() - self._began)))

    @contextmanager
    def look(self) -> Iterator[None]:
        """A stretch that belongs to a look; the first of several that make one up begins with `begin`."""
        began = self._clock()
        try:
            yield
        finally:
            self.last += self._clock() - began
            self.spent += self._clock() - began

    def begin(self) -> None:
        """What is spent from here on is another look."""
        self.last = 0.0


class MonitoringCallback(Callback):
    """Looks at the run at its start, every so many steps and at stage ends; writes watch.jsonl.

    A look changes nothing: training gives the same bits with it as without. It takes part on every process, at steps
    that all come to together; only rank 0 writes.
    """

    def __init__(
        self,
        choose: Callable[[], Watched],
        curves: Curves | None = None,
        announce: Callable[[dict[str, Any]], None] = lambda line: None,
    ) -> None:
        """`choose` says what is looked at when the run has not chosen yet; `curves` are shown the numbers too."""
        self._choose = choose
        self._curves = curves
        self._announce = announce
        self._budget: Budget | None = None
        self._watched: Watched | None = None
        self._gradients: dict[str, float] | None = None
        self._looked: tuple[int, int] | None = None
        self._handle: Any = None
        self._unwritten = False

    def stage_started(self, run: StageRun) -> None:
        """Choose what to look at and take a first look, unless a resumed run has done so; follow the optimizer."""
        if run.recipe.watch.every is None:
            return
        if self._watched is None:
            self._budget = Budget(run.recipe.watch.share)
            self._prepare(run, fresh=run.index == 0 and run.step == 0)
        if self._watched is None:
            return
        self._handle = run.optimizer.register_step_pre_hook(lambda *given: self._before_step(run))

    def step_ended(self, run: StageRun, record: StepRecord) -> None:
        """Look, if the step was one to look at."""
        if self._gradients is not None and not run.stop:
            self._look(run, self._norms(run, record))
        self._gradients = None

    def stage_ended(self, run: StageRun) -> None:
        """Look once more where there is time; a stage that was stopped goes on later."""
        if self._handle is not None:
            self._handle.remove()
            self._handle = None
        due = not run.stop and self._looked != (run.index, run.step)
        due = due and self._watched is not None
        if due and self._budget is not None and self._budget.allows():
            self._budget.begin()
            self._look(run, {})

    def _prepare(self, run: StageRun, *, fresh: bool) -> None:
        """Choose what to look at, or load what the run has chosen; without looks where neither can be had."""
        assert self._budget is not None
        file = run.folder.watched
        there = bool(broadcast(file.exists())) and not fresh
        with self._budget.look():
            if not there and not self._chosen(file):
                return
            self._watched = Watched.load(file)
        if not fresh and self._watched.base is None:
            self._announce(
                {
                    "note": f"{file.name} {'lacks the base features' if there else 'is missing'}; the tower's drift"
                    " counts from here on"
                }
            )
        if not there:
            given = {"tiles": len(self._watched.tiles), "texts": len(self._watched.texts)}
            self._look(run, {"watched": {**given, "texts_from": self._watched.texts_from}})

    def _chosen(self, file: Path) -> bool:
        """Whether what is looked at has been chosen and written, the same answer on every process."""
        problem = self._kept(self._choose(), file) if rank() == 0 else None
        problem = broadcast(problem)
        if problem:
            self._announce(
                {"note": f"{file} cannot be written ({problem}): no looks until the next stage"}
            )
        return problem is None

    def _kept(self, watched: Watched, file: Path) -> str | None:
        """Write what is looked at; why that failed, if it did. A look is no reason to stop a run."""
        try:
            watched.save(file)
        except DISK_ERRORS as error:
            with suppress(OSError):
                file.with_name(file.name + ".part").unlink(missing_ok=True)
            return reason(error)
        return None

    def _before_step(self, run: StageRun) -> None:
        """Called by the optimizer, when gradients are whole and clipped: decide whether this is a step to look at."""
        every = run.recipe.watch.every
        assert every is not None
        assert self._budget is not None
        if (run.step + 1) % every == 0 and self._budget.allows():
            self._budget.begin()
            with self._budget.look():
                self._gradients = gradient_norms(run.optimizer, run.device)

    def _norms(self, run: StageRun, record: StepRecord) -> dict[str, Any]:
        """Norms of the step by part, gradients as they were before clipping."""
        assert self._budget is not None
        clipped = self._gradients or {}
        total = math.sqrt(sum(norm**2 for norm in clipped.values()))
        factor = record.grad_norm / total if total else 1.0
        with self._budget.look():
            update = update_norms(run.optimizer, run.device)
        return {
            "gradient": {part: norm * factor for part, norm in clipped.items()},
            "update": update,
        }

    def _look(self, run: StageRun, known: dict[str, Any]) -> None:
        assert self._budget is not None
        with self._budget.look():
            seen = self._see(run)
        self._looked = (run.index, run.step)
        if rank() != 0:
            return
        place = {
            "stage": run.stage.name,
            "stage_index": run.index,
            "step": run.step,
            "samples": run.samples,
        }
        cost = {"seconds": round(self._budget.last, 4), "share": round(self._budget.used, 5)}
        run.journal.write(run.folder.watch, {**place, **known, **seen, **cost})
        if self._curves is not None:
            self._curves.add(run, curves_of({**known, **seen, **cost}))

    def _see(self, run: StageRun) -> dict[str, Any]:
        """Drift, perplexity and affinity, complete on rank 0; the first look keeps the base tower's features."""
        assert self._watched is not None
        with undisturbed(run):
            sight = see(run, self._watched)
            words = perplexity(run, self._watched)
        if sight is not None and self._watched.base is None:
            self._watched = replace(self._watched, base=sight.features.cpu())
            self._unwritten = True
        if self._unwritten and rank() == 0:
            # Tried again at the next look, as without it a resumed run would measure drift from elsewhere.
            self._unwritten = self._kept(self._watched, run.folder.watched) is not None
        base = self._watched.base
        if sight is None or base is None or rank() != 0:
            return {"cka": None, "perplexity": words, "affinity": None}
        cka = linear_cka(sight.features, base.to(run.device))
        return {"cka": cka, "perplexity": words, "affinity": distances(sight)}


def curves_of(line: dict[str, Any]) -> dict[str, float]:
    """A line's numbers by the names of their curves: `watch/cka`, `watch/gradient/tower`, ..."""
    nested = [(name, line.get(name) or {}) for name in ("gradient", "update", "affinity")]
    found = {
        f"watch/{name}/{key}": value for name, values in nested for key, value in values.items()
    }
    plain = ("cka", "perplexity", "seconds", "share")
    return found | {f"watch/{name}": line[name] for name in plain if line[name] is not None}
