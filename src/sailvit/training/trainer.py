"""The trainer: a recipe's stages in order, each started, run, proved, saved; and resumed."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from functools import partial
from typing import Any

import torch

from sailvit.checkpoint.store import Checkpoints, Saved
from sailvit.core.disk import explained
from sailvit.core.errors import InterruptedRunError, RunError
from sailvit.core.ownership import manifest_of
from sailvit.core.recipe import Recipe
from sailvit.core.recipe.differences import going_on, recorded
from sailvit.core.run import RunFolder, read_json
from sailvit.data.lengths.measuring import Progress, mark_stale, measure_all
from sailvit.data.loading.loader import Loader
from sailvit.data.processing.processor import Processor
from sailvit.data.rows.keys import unread_line
from sailvit.data.sampling.loader_config import LoaderConfig
from sailvit.distributed.processes import arrive, as_one, barrier, broadcast, my_device, rank, world
from sailvit.models.languages.positions import table_length
from sailvit.models.loading.build import ModelBundle, build
from sailvit.models.measures.flops import flops_model
from sailvit.models.measures.peak import device_peak
from sailvit.models.structure.parallel import settle
from sailvit.training.callbacks.claim import Claim, KeepClaim, Wish, claimed
from sailvit.training.callbacks.ema import EmaCallback
from sailvit.training.callbacks.metrics import MetricsCallback
from sailvit.training.callbacks.monitoring import MonitoringCallback
from sailvit.training.callbacks.proof import ProofCallback
from sailvit.training.callbacks.recovery import RecoveryCallback
from sailvit.training.callbacks.save_state import SaveState
from sailvit.training.callbacks.search import SearchCallback
from sailvit.training.callbacks.signals import StopOnSignal
from sailvit.training.callbacks.state import (
    restore_callbacks,
    restore_place,
    restore_stage,
    restore_weights,
)
from sailvit.training.callbacks.stopping import stopping_safely
from sailvit.training.checks.judging import judge, open_sources, refuse
from sailvit.training.checks.problems import balance_remarks, position_remarks, thinking_remarks
from sailvit.training.monitoring.monitored import choose
from sailvit.training.objectives.base import make_objectives
from sailvit.training.optim.optimizer import freeze, make_optimizer
from sailvit.training.output.exports import export_stage
from sailvit.training.output.loggers import Loggers, refuse_missing
from sailvit.training.output.manifest import note_changes, note_resume, run_day, start_manifest
from sailvit.training.output.quarantine import QuarantineLog
from sailvit.training.stages.callback import Callback
from sailvit.training.stages.journal import Journal, keep_lines, parts_note
from sailvit.training.stages.loop import run_stage
from sailvit.training.stages.precision import precision_note, settled
from sailvit.training.stages.stage_loader import (
    make_loader_config,
    supply_remarks,
    target_of,
    token_supply,
)
from sailvit.training.stages.stage_run import StageRun
from sailvit.training.stages.start_from import load_start

_FINISHED = ("step", "samples", "tokens", "seconds")
"""Fields of a stage run that the manifest records of a finished stage."""


class Trainer:
    """Runs one recipe into one run folder."""

    def __init__(
        self,
        recipe: Recipe,
        folder: RunFolder,
        *,
        callbacks: Sequence[Callback] = (),
        announce: Callable[[dict[str, Any]], None] = lambda line: None,
        device: torch.device | None = None,
        progress: Progress | None = None,
    ) -> None:
        self.device = device or my_device()
        asked, recipe = recipe, settled(recipe, self.device, folder)
        self.recipe, self.folder = recipe, folder
        self._announce = announce
        if note := precision_note(asked, recipe):
            announce({"note": note})
        arrive("opening the sources")
        with as_one():
            refuse_missing(recipe)
            self.sources = open_sources(recipe, files=not folder.manifest.exists())
        day = broadcast(run_day(folder, recipe))
        dated = recipe.model.model_copy(update={"chat_date": day})
        self.bundle = build(dated, recipe.seed, recipe.parallel.packing)
        announce(parts_note(self.bundle))
        self._processor = Processor(
            self.bundle.tokenizer, self.bundle.layout, recipe.sequence, day=self.bundle.day
        )
        arrive("measuring the data")
        self._costs = measure_all(
            self.sources, self._processor, workers=recipe.workers, progress=progress
        )
        self._judge()
        self._changed: set[str] = set()
        for remark in self._remarks():
            announce({"note": remark})
        self._journal = Journal(announce)
        self._quarantine = QuarantineLog(folder, self._journal)
        self._peak = device_peak(self.device, recipe.precision)
        self._signals = StopOnSignal()
        self._spread()
        self._checkpoints = Checkpoints(
            folder.state, keep=recipe.checkpoint.keep, keep_best=recipe.checkpoint.best
        )
        self._callbacks: list[Callback] = []
        self._saver = SaveState(self._checkpoints, self._journal, self._callbacks)
        self._callbacks += self._make_callbacks(callbacks)
        # Every stage is set up once, so that a mistake in the last shows before the first has
        # trained for days.
        for index in range(len(recipe.stages)):
            self._stage_run(index)

    @property
    def _sizes(self) -> dict[str, int]:
        """Records of every source."""
        return {name: len(source) for name, source in self.sources.items()}

    def _loader_config(self, index: int) -> LoaderConfig:
        return make_loader_config(self.recipe, index, self._sizes)

    def _judge(self) -> None:
        """Refuse data that would stop any stage; all problems are reported at once."""
        # While the model is on the CPU, where a wrong index is an exception.
        ends = table_length(self.bundle.mllm.language, self.recipe.sequence)
        with as_one():
            refuse(judge(self.recipe, self._costs, self._sizes, positions=ends))

    def _spread(self) -> None:
        """Spread the model over processes, prove how it reads packs there, and announce it."""
        arrive("spreading the model over processes")
        bf16 = self.recipe.precision == "bf16"
        longest = self.recipe.sequence * max(stage.micro_batch for stage in self.recipe.stages)
        model, how = self.bundle.mllm, self.recipe.parallel
        chosen = settle(model, how, self.device, bf16=bf16, longest=longest)
        self._announce({"note": str(chosen)})

    def _remarks(self) -> Iterator[str]:
        """Remarks on the parts, the chat template and the sources, a sentence each."""
        yield from self.bundle.notes
        if (mode := self.recipe.parallel.mode) != "replicate" and world() == 1:
            yield f"parallel.mode is {mode}, but one process has nothing to share"
        yield from self._processor.encoder.remarks()
        yield from thinking_remarks(self.sources, self._processor.encoder)
        yield from position_remarks(self.recipe, self.bundle.mllm.language)
        yield from balance_remarks(self.recipe, self.bundle.mllm.language.config)
        for index, stage in enumerate(self.recipe.stages):
            tokens = token_supply(stage, self._loader_config(index), self._costs)
            for text in supply_remarks(stage, self._sizes, tokens):
                yield f"stages.{index} ({stage.name}): {text}"
        for name, costs in self._costs.items():
            if costs.unread:
                yield unread_line(name, costs.unread)

    def _make_callbacks(self, given: Sequence[Callback]) -> list[Callback]:
        # Signals first, so that a step's record, proof and save all see the request to stop;
        # the proof before the save, so that no state is kept of a stage that did not do what
        # was planned, and before those given, which may set the next step's rate; between them
        # recovery and the search, whose decisions are about the next step and belong to the
        # state, and before these the mean, which has the step that a trial returns to.
        loggers = Loggers(self.recipe, self.folder, self._announce) if rank() == 0 else None
        return [
            self._signals,
            MetricsCallback(loggers),
            MonitoringCallback(
                partial(choose, self.recipe, self.sources, self._costs, self._processor),
                loggers,
                self._announce,
            ),
            ProofCallback(self._announce),
            *given,
            EmaCallback(self._announce),
            RecoveryCallback(self._checkpoints, self._callbacks, self._announce),
            SearchCallback(self._announce, self._callbacks),
            self._saver,
        ]

    def run(self, *, resume: bool = False, claim: Claim | None = None) -> ModelBundle:
        """Train every stage that is not done yet; returns the model as it stands after the last.

        `claim` is the claim on the run folder, if the caller has it already.

        Raises:
            InterruptedRunError: a signal asked to stop; the state is saved and the message says
                how to go on.
            ProofError: a stage did not train what it planned.
            RunError: the folder already holds a run, or none to resume.
        """
        if claim is None:
            wish: Wish = "resume" if resume else "start"
            with claimed(self.folder, wish, len(self.recipe.stages)) as held:
                return self.run(resume=resume, claim=held)
        # First, so that a process that lost the folder writes nothing more.
        self._callbacks.insert(0, KeepClaim(claim))
        saved: Saved | None = None
        if resume:
            saved = self._resume()
        else:
            claim.begin()
            self._start()
        self.bundle.mllm.train()
        with ExitStack() as stack:
            for callback in reversed(self._callbacks):
                stack.callback(callback.close)
            if saved:
                self._export_before(saved)
            for index in range(saved.values["stage"] if saved else 0, len(self.recipe.stages)):
                self._run_stage(index, saved)
                saved = None
        self._checkpoints.clear()
        return self.bundle

    def _start(self) -> None:
        with as_one(), explained(str(self.folder.manifest), "start again"):
            if rank() == 0:
                start_manifest(self.folder, self.recipe, self.bundle, self.sources)
                self._quarantine.note_faults(self.recipe.stages[0], self.sources)

    def _resume(self) -> Saved:
        saved, notes = self._checkpoints.newest()
        for note in notes:
            self._announce({"note": note})
        if saved is None:
            raise RunError(self._why_not(notes))
        self._note_changes(saved)
        # Some stage run is needed to name tensors; weights are the same in all.
        restore_weights(self._stage_run(0), saved)
        own = self.folder.logs if rank() == 0 else ()
        with as_one():
            for path in (*own, *self._quarantine.files()):
                with explained(str(path)):
                    keep_lines(path, saved.values["stage"], saved.values["step"])
        return saved

    def _note_changes(self, saved: Saved) -> None:
        """Refuse a recipe that changes what is learnt; note its other differences."""
        known = manifest_of(self.folder.path).get("recipe")
        # Read before the first process writes.
        barrier()
        if known is not None:
            place = str(self.folder.path)
            self.recipe, found = going_on(recorded(known, place), self.recipe, place)
            stage, step = saved.values["stage"], saved.values["step"]
            with as_one(), explained(str(self.folder.manifest)):
                if rank() == 0:
                    note_changes(self.folder, self.recipe, found, stage=stage, step=step)

    def _why_not(self, notes: Sequence[str]) -> str:
        """Why there is nothing to resume from, and what to do."""
        done = (
            len(read_json(self.folder.manifest)["stages"]) if self.folder.manifest.exists() else 0
        )
        if done == len(self.recipe.stages):
            return f"{self.folder.path} is complete, {done} of {done} stages; there is nothing to resume"
        damaged = "".join(f"\n  {note}" for note in notes)
        return (
            f"{self.folder.state} holds no training state to resume from: the run was stopped before its first save;"
            f" start it anew, with --overwrite{damaged}"
        )

    def _run_stage(self, index: int, saved: Saved | None) -> None:
        run = self._stage_run(index)
        if saved is not None and saved.values["step"]:
            restore_stage(run, self._callbacks, saved)
            restore_place(run, saved.values)
            with as_one(), explained(str(self.folder.manifest)):
                if rank() == 0:
                    note_resume(self.folder, run)
        else:
            load_start(self.recipe, index, self.bundle.mllm)
            if saved is not None:
                restore_callbacks(run, self._callbacks, saved)
        arrive(f"the first step of stage {run.stage.name}")
        with stopping_safely(run, self._saver, self._announce):
            run_stage(run, self._callbacks)
        if run.stop:
            raise InterruptedRunError(
                f"stopped by {self._signals.cause or 'a callback'} after step {run.step} of stage"
                f" {run.stage.name}; the state is in {self.folder.state}. Continue with:"
                f" {'torchrun ... -m -- ' if world() > 1 else ''}sailvit train {self.folder.recipe} --resume",
                preempted=self._signals.cause not in (None, "SIGINT"),
            )
        # The state first: whatever happens to an export, the stage is not lost.
        finished = {name: getattr(run, name) for name in _FINISHED}
        token = broadcast(str(time.time_ns()))
        self._saver.save_end(run, {**finished, "token": token})
        export_stage(run, token)

    def _export_before(self, saved: Saved) -> None:
        """Export what is missing of the stage before, if the state is a stage's beginning."""
        finished, index = saved.values.get("finished"), saved.values["stage"] - 1
        if finished is None or saved.values["step"]:
            return
        run = self._stage_run(index)
        for name in _FINISHED:
            setattr(run, name, finished[name])
        export_stage(run, finished["token"])

    def _stage_run(self, index: int) -> StageRun:
        stage = self.recipe.stages[index]
        model, device = self.bundle.mllm, self.device
        freeze(model, stage)
        objectives = make_objectives(list(stage.objectives), self.recipe, device)
        loader_config = self._loader_config(index)
        report = self._quarantine.reporter(index, stage)
        return StageRun(
            recipe=self.recipe,
            index=index,
            folder=self.folder,
            bundle=self.bundle,
            objectives=objectives,
            optimizer=make_optimizer(model, objectives.values(), stage),
            flops=flops_model(
                model, language_runs=any(o.needs_logits for o in objectives.values())
            ),
            peak=self._peak,
            loader=Loader(
                self.sources,
                self._costs,
                self._processor,
                loader_config,
                report=report,
                changed=self._note_change,
            ),
            device=device,
            journal=self._journal,
            target=target_of(stage, loader_config, self._costs),
        )

    def _note_change(self, source: str) -> None:
        """Say once that a source is not as it was measured, and have it measured again at the
        next start.
        """
        if source not in self._changed:
            self._changed.add(source)
            self._announce({"note": mark_stale(source, self.sources[source], self._processor)})
