"""The trainer: a recipe's stages in order, each started, run, proved and saved; and continued where it stopped."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from sailvit.checkpoint.state import clear_state, has_state, load_state, save_state
from sailvit.core.errors import InterruptedRunError, ModelError, RecipeError, RunError
from sailvit.core.recipe import PARTS, Part, Recipe
from sailvit.core.records import Source
from sailvit.core.run import RunFolder, read_json
from sailvit.data.formats import open_source
from sailvit.data.index.measuring import measure_all
from sailvit.data.loader import Loader
from sailvit.data.samples import SampleBuilder
from sailvit.distributed.processes import meet, rank
from sailvit.models.build import Assembly, build, load_connector, load_language, load_tower
from sailvit.models.flops import flops_model
from sailvit.models.folders import save_part
from sailvit.models.peak import device_peak
from sailvit.training.feed import make_feed, target_of
from sailvit.training.hooks import Hook, MetricsHook, StopOnSignal
from sailvit.training.job import Evidence, StageJob, StepRecord
from sailvit.training.loop import run_stage
from sailvit.training.manifest import note_resume, note_stage, start_manifest
from sailvit.training.objectives import make_objectives
from sailvit.training.optim import freeze, load_moments, make_optimizer, named_moments
from sailvit.training.plan_checks import file_problems
from sailvit.training.proof import ProofHook
from sailvit.training.quarantine import QuarantineLog
from sailvit.training.searching import SearchHook, make_search, restore_search, search_tensors, search_values


class Trainer:
    """Runs one recipe into one run folder."""

    def __init__(
        self,
        recipe: Recipe,
        folder: RunFolder,
        *,
        hooks: Sequence[Hook] = (),
        announce: Callable[[dict[str, Any]], None] = lambda line: None,
        device: torch.device | None = None,
    ) -> None:
        self.recipe = recipe
        self.folder = folder
        self.device = device or torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self.assembly = build(recipe.model, recipe.seed)
        self.sources = open_sources(recipe)
        self._builder = SampleBuilder(self.assembly.tokenizer, self.assembly.layout, recipe.sequence)
        self._costs = measure_all(self.sources, self._builder, workers=recipe.workers)
        self._quarantine = QuarantineLog(folder)
        self._peak = device_peak(self.device, recipe.precision)
        self._signals = StopOnSignal()
        self._saver = _SaveState()
        # Signals first, so that a step's record, proof and save all see the request to stop; the proof before the save,
        # so that no state is kept of a stage that did something else than planned; between them the search, whose
        # decisions are about the next step and belong to the state.
        metrics = [MetricsHook()] if rank() == 0 else []
        self._hooks: list[Hook] = [
            self._signals,
            *metrics,
            *hooks,
            ProofHook(announce),
            SearchHook(announce),
            self._saver,
        ]
        # Every stage is set up once, so that a mistake in the last shows before the first has trained for days.
        for index in range(len(recipe.stages)):
            self._job(index)

    def run(self, *, resume: bool = False) -> Assembly:
        """Train every stage that is not done yet; returns the model as it stands after the last.

        Raises:
            InterruptedRunError: a signal asked to stop; the state is saved and the message says how to go on.
            ProofError: a stage trained something else than planned.
            RunError: the folder already holds a run, or none to resume.
        """
        tensors, values = self._resume() if resume else self._start()
        self.assembly.mllm.to(self.device).train()
        try:
            for index in range(values.get("stage", 0), len(self.recipe.stages)):
                self._run_stage(index, tensors, values)
                tensors, values = {}, {}
        finally:
            for hook in self._hooks:
                hook.close()
        meet()
        if rank() == 0:
            clear_state(self.folder.state)
        return self.assembly

    def _start(self) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
        taken = self.folder.manifest.exists()
        meet()
        if taken:
            raise RunError(
                f"{self.folder.path} already holds a run; continue it with --resume, or give another folder with --run"
            )
        if problems := list(file_problems(self.recipe)):
            raise RecipeError("; ".join(problems))
        if rank() == 0:
            start_manifest(self.folder, self.recipe, self.assembly, self.sources)
            self._quarantine.note_faults(self.recipe.stages[0], self.sources)
        return {}, {}

    def _resume(self) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
        if not has_state(self.folder.state) and self.folder.manifest.exists():
            done, planned = len(read_json(self.folder.manifest)["stages"]), len(self.recipe.stages)
            if done == planned:
                raise RunError(
                    f"{self.folder.path} is complete, {done} of {planned} stages; there is nothing to resume"
                )
        tensors, values = load_state(self.folder.state)
        for part in PARTS:
            named = dict(self.assembly.mllm.part(part).named_parameters())
            with torch.no_grad():
                for name, tensor in _under(tensors, f"weight/{part}/").items():
                    named[name].copy_(tensor)
        if rank() == 0:
            _keep_lines(self.folder.metrics, values["stage"], values["step"])
            _keep_lines(self.folder.proofs, values["stage"], values["step"])
            _keep_lines(self.folder.events, values["stage"], values["step"])
        for path in self._quarantine.files():
            _keep_lines(path, values["stage"], values["step"])
        return tensors, values

    def _run_stage(self, index: int, tensors: dict[str, torch.Tensor], values: dict[str, Any]) -> None:
        job = self._job(index)
        if values.get("step"):
            self._restore(job, tensors, values)
        else:
            self._start_parts(index)
        run_stage(job, self._hooks)
        if job.stop:
            raise InterruptedRunError(
                f"stopped by {self._signals.received or 'another process'} after step {job.step} of stage"
                f" {job.stage.name}; the state is in {self.folder.state}. Continue with:"
                f" sailvit train {self.folder.recipe} --resume"
            )
        self._save_parts(job)
        self._saver.save(job, stage=index + 1)

    def _job(self, index: int) -> StageJob:
        stage = self.recipe.stages[index]
        model, device = self.assembly.mllm, self.device
        freeze(model, stage)
        objectives = {name: objective.to(device) for name, objective in make_objectives(list(stage.objectives)).items()}
        feed = make_feed(self.recipe, index, {name: len(source) for name, source in self.sources.items()})
        report = self._quarantine.reporter(index, stage)
        return StageJob(
            recipe=self.recipe,
            index=index,
            folder=self.folder,
            assembly=self.assembly,
            objectives=objectives,
            optimizer=make_optimizer(model, objectives.values(), stage),
            flops=flops_model(model, language_runs=any(o.needs_logits for o in objectives.values())),
            peak=self._peak,
            loader=Loader(self.sources, self._costs, self._builder, feed, report=report),
            device=device,
            target=target_of(stage, feed),
            search=make_search(stage),
        )

    def _start_parts(self, index: int) -> None:
        """Give the stage the weights it starts from, where those are not simply the ones at hand."""
        for part, start in self.recipe.stages[index].start_from.items():
            if start != "previous":
                self._load_part(part, None if start == "recipe" else start)

    def _load_part(self, part: Part, folder: str | None) -> None:
        config, mllm = self.recipe.model, self.assembly.mllm
        if part == "connector":
            changed = config.connector if folder is None else config.connector.model_copy(update={"source": folder})
            config = config.model_copy(update={"connector": changed})
            fresh = load_connector(config, mllm.tower, mllm.language, self.recipe.seed).state_dict()
        else:
            config = config if folder is None else config.model_copy(update={part: folder})
            loaded = load_tower(config)[0].model if part == "tower" else load_language(config, self.recipe.seed)[0]
            fresh = loaded.state_dict()
        try:
            mllm.part(part).load_state_dict(fresh)
        except RuntimeError as error:
            raise ModelError(
                f"the {part} to start from in {folder} does not fit the one that the recipe names: {error}"
            ) from error

    def _restore(self, job: StageJob, tensors: dict[str, torch.Tensor], values: dict[str, Any]) -> None:
        for name, objective in job.objectives.items():
            objective.load_state_dict(_under(tensors, f"objective/{name}/"))
        load_moments(job.optimizer, trained_names(job), _under(tensors, "moment/"))
        restore_search(job, values["search"], _under(tensors, "trial/"), trained_names(job))
        job.step, job.samples, job.tokens = values["step"], values["samples"], values["tokens"]
        job.seconds, job.cursor = values["seconds"], values["cursor"]
        job.evidence = Evidence(**values["evidence"])
        job.loader.load(job.cursor)
        if rank() == 0:
            note_resume(self.folder, job)

    def _save_parts(self, job: StageJob) -> None:
        if rank() != 0:
            return
        folder = self.folder.stage(job.index, job.stage.name)
        folder.mkdir(parents=True, exist_ok=True)
        for part in job.stage.save:
            save_part(self.assembly, part, folder / part)
        note_stage(self.folder, job, {part: folder / part for part in job.stage.save})


class _SaveState(Hook):
    """Saves the training state: every so many steps, when the run is stopped, and between stages."""

    def step_ended(self, job: StageJob, record: StepRecord) -> None:
        """Save when it is time, or when this is the last step before a stop."""
        every = job.recipe.checkpoint_every
        if job.stop or (every is not None and record.step % every == 0):
            self.save(job, stage=job.index)

    def save(self, job: StageJob, *, stage: int) -> None:
        """Save the state to go on with `stage`: in its middle if it is the job's own, else at its beginning."""
        if rank() != 0:
            return
        # A part that no stage trained or replaced is still what the recipe names.
        changed = {part for known in job.recipe.stages[: job.index + 1] for part in (*known.train, *known.start_from)}
        tensors: dict[str, torch.Tensor] = {
            f"weight/{part}/{n}": p for part in changed for n, p in job.model.part(part).named_parameters()
        }
        values: dict[str, Any] = {"stage": stage, "step": 0}
        if stage == job.index:
            tensors |= _stage_tensors(job)
            values |= {name: getattr(job, name) for name in ("step", "samples", "tokens", "seconds", "cursor")}
            values |= {"evidence": dataclasses.asdict(job.evidence), "search": search_values(job)}
        save_state(job.folder.state, tensors, values)


def _stage_tensors(job: StageJob) -> dict[str, torch.Tensor]:
    """What a stage holds beside the model: objectives' own parameters, the optimizer's moments, a trial's way back."""
    tensors = {f"moment/{n}": t for n, t in named_moments(job.optimizer, trained_names(job))}
    tensors |= {f"trial/{n}": t for n, t in search_tensors(job, trained_names(job)).items()}
    for name, objective in job.objectives.items():
        tensors |= {f"objective/{name}/{n}": p for n, p in objective.state_dict().items()}
    return tensors


def open_sources(recipe: Recipe) -> dict[str, Source]:
    """Every source that some stage uses, opened."""
    used = {name for stage in recipe.stages for name in stage.data}
    return {name: open_source(name, config, Path.cwd()) for name, config in recipe.sources.items() if name in used}


def trained_names(job: StageJob) -> dict[torch.Tensor, str]:
    """A stable name for every parameter that the stage's optimizer may hold."""
    modules: Mapping[str, torch.nn.Module] = {
        **{part: job.model.part(part) for part in PARTS},
        **{f"objective.{name}": objective for name, objective in job.objectives.items()},
    }
    return {p: f"{owner}/{name}" for owner, module in modules.items() for name, p in module.named_parameters()}


def _under(tensors: Mapping[str, torch.Tensor], prefix: str) -> dict[str, torch.Tensor]:
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}


def _keep_lines(path: Path, stage: int, step: int) -> None:
    """Drop the lines of steps after the state that a run resumes from: those steps are done again."""
    if not path.exists():
        return
    kept = []
    for text in path.read_text(encoding="utf-8").splitlines(keepends=True):
        line = json.loads(text) if text.endswith("\n") else None
        if line and (line["stage_index"], line["step"]) <= (stage, step if step else -1):
            kept.append(text)
    path.write_text("".join(kept), encoding="utf-8")
