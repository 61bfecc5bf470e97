"""How fast a recipe trains here: every stage runs for a few steps, with random weights and, for
sources that are not on this machine, with invented data.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

import torch

from sailvit.core.errors import ModelError
from sailvit.core.formatting import size
from sailvit.core.memory import PeakMemory, free_memory
from sailvit.core.recipe import Length, Recipe
from sailvit.core.run import RunFolder
from sailvit.data.loading.loader import Loader
from sailvit.distributed.processes import sum_counts, world
from sailvit.models.loading.build import ModelBundle, build
from sailvit.models.measures.flops import flops_model
from sailvit.models.measures.peak import datasheet_peak, matmul_rate
from sailvit.models.structure.parallel import parallelize
from sailvit.preflight.bench_data import BenchData, gather
from sailvit.preflight.plan import Plan
from sailvit.training.objectives.base import make_objectives
from sailvit.training.optim.optimizer import freeze, make_optimizer
from sailvit.training.stages.callback import Callback
from sailvit.training.stages.loop import run_stage
from sailvit.training.stages.precision import settled
from sailvit.training.stages.stage_loader import make_loader_config
from sailvit.training.stages.stage_run import StageRun, StepRecord

_ENDLESS = 1 << 50
"""Tokens that no bench reaches."""


@dataclass(frozen=True)
class StageSpeed:
    """The speed of one stage in its steady steps, over all processes."""

    name: str
    """The stage's name."""
    steps: int
    """Steady steps."""
    packs: int
    """Packs of a step."""
    seconds: float
    """Duration of the steady steps."""
    samples_per_s: float
    """Samples per second."""
    tokens_per_s: float
    """Tokens per second, without padding."""
    answer_tokens_per_s: float
    """Tokens with loss per second."""
    tiles_per_s: float
    """Tiles per second."""
    flops_per_s: float
    """FLOP/s of the model's own work; frozen parts count without the gradients that they are
    spared."""
    mfu: float
    """Their share of the measured peak."""
    mfu_datasheet: float | None
    """Their share of the maker's peak, where that is known."""
    waiting: float
    """Share of the time spent waiting for data."""
    padding: float
    """Share of padding, on average over the steps."""
    peak_bytes: int
    """Most memory in use: of this process's device, or on the CPU of this process without its
    loaders."""


@dataclass(frozen=True)
class Speed:
    """The speed of a recipe's stages."""

    recipe: str
    """The recipe's name."""
    device: str
    """What it ran on."""
    processes: int
    """Number of processes."""
    precision: str
    """Precision of forward and backward pass."""
    measured_peak: float
    """FLOP/s of a large matrix product here and now, per device."""
    datasheet_peak: float | None
    """FLOP/s by the maker's datasheet, per device."""
    invented: tuple[str, ...]
    """Sources whose records were invented, as the real ones are not here."""
    stages: tuple[StageSpeed, ...]
    """In order."""


def bench(
    recipe: Recipe,
    *,
    device: torch.device,
    steps: int = 10,
    warmup: int = 3,
    packs: int = 8,
    seconds: float | None = None,
) -> Speed:
    """The speed of every stage of `recipe`, in steps of its `global_batch`, but at most `packs`
    packs per process.

    With `seconds`, each stage ends when its share of them has passed since its first step, though
    not before its first steady step.

    Raises:
        ModelError: a config cannot be found, grid and connector do not fit, or weights and
            optimizer state alone are more than the memory that is free.
    """
    recipe = settled(recipe, device)
    _refuse_too_large(recipe, device)
    recipe = _shortened(recipe, packs * world())
    bf16 = recipe.precision == "bf16"
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
    # Before the model is made, whose memory and caches would slow the product down.
    measured = matmul_rate(device, torch.bfloat16 if bf16 else torch.float32)
    listed = datasheet_peak(name) if bf16 else None
    bundle = build(recipe.model, recipe.seed, weights="random", device=device)
    data = gather(recipe, bundle)
    parallelize(bundle.mllm, recipe.parallel, device, bf16=bf16)
    # As in training: dropout costs time too.
    bundle.mllm.train()
    stages = []
    for index in range(len(recipe.stages)):
        limit = None if seconds is None else seconds / len(recipe.stages)
        watch = _Watch(PeakMemory(device), warmup, steps, limit)
        run = _stage_run(recipe, index, bundle, data, device=device, peak=measured)
        run_stage(run, [watch])
        stages.append(watch.speed(run, listed))
    return Speed(
        recipe=recipe.name,
        device=name,
        processes=world(),
        precision=recipe.precision,
        measured_peak=measured,
        datasheet_peak=listed,
        invented=data.invented,
        stages=tuple(stages),
    )


def quick_speeds(
    recipe: Recipe, made: Plan, speed: float, *, device: torch.device, seconds: float = 10.0
) -> dict[str, StageSpeed]:
    """The speed of each stage by its name, from about `seconds` of training in all.

    The plan `made` and `speed`, the expected FLOP/s, choose how many packs a step has here: few
    enough for several steps of every stage.
    """
    # Two steps of warm-up and, where the expectation is four times too high, one steady step.
    step = seconds / len(made.stages) / 12
    packs = [
        step * speed * stage.steps * asked.global_batch / stage.flops
        for stage, asked in zip(made.stages, recipe.stages, strict=True)
        if stage.flops and stage.steps
    ]
    most = max(1, min(8, *map(int, packs)))
    found = bench(recipe, device=device, steps=1000, warmup=2, packs=most, seconds=seconds)
    return {stage.name: stage for stage in found.stages}


def _refuse_too_large(recipe: Recipe, device: torch.device) -> None:
    """ModelError where the weights and optimizer state of a stage are more than the free
    memory.
    """
    # The kernel or the allocator would end the process with less to go on than this message.
    free, mllm = free_memory(device), build(recipe.model, weights="meta").mllm
    for stage in recipe.stages:
        freeze(mllm, stage)
        need = 4 * sum(parameter.numel() for parameter in mllm.parameters())
        if recipe.parallel.mode == "replicate" and not recipe.parallel.offload:
            # A gradient and AdamW's two moments, in fp32.
            need += 12 * sum(
                parameter.numel() for parameter in mllm.parameters() if parameter.requires_grad
            )
        if free is not None and need > free:
            raise ModelError(
                f"stage {stage.name}: weights, gradients and moments take {size(need)} in fp32, but only"
                f" {size(free)} are free on {device}; choose a smaller model or a larger device, shard it"
                " over several (parallel.mode=shard), or see `sailvit plan` for an estimate without running"
            )


class _Watch(Callback):
    """Keeps the records of steady steps and ends the stage after the last."""

    def __init__(self, memory: PeakMemory, warmup: int, steps: int, limit: float | None) -> None:
        self._memory = memory
        self._warmup = warmup
        self._last = warmup + steps
        self._limit = limit
        self._started = 0.0
        self._records: list[StepRecord] = []
        self._begin = (0, 0)

    def stage_started(self, run: StageRun) -> None:
        """Forget earlier peaks."""
        self._memory.restart()

    def step_ended(self, run: StageRun, record: StepRecord) -> None:
        """Note the step."""
        # The first steps also load kernels, compile, and fill caches and the loader's prefetch.
        if record.step == 1:
            self._started = time.perf_counter()
        if record.step <= self._warmup:
            self._begin = (record.samples, record.tokens)
        else:
            self._records.append(record)
        run.stop = record.step >= self._last
        if self._limit is not None and self._records:
            late = time.perf_counter() - self._started >= self._limit
            # Clocks differ, and processes have to stop together.
            run.stop = run.stop or sum_counts([int(late)], run.device)[0] > 0

    def speed(self, run: StageRun, listed: float | None) -> StageSpeed:
        """The figures; `listed` is the maker's peak."""
        records = self._records
        seconds = sum(record.seconds for record in records)
        # Weighted by time, as steps differ in length.
        flops = (
            sum(record.mfu * record.seconds for record in records) * run.peak * world() / seconds
        )
        return StageSpeed(
            name=run.stage.name,
            steps=len(records),
            packs=run.stage.global_batch,
            seconds=seconds,
            samples_per_s=(records[-1].samples - self._begin[0]) / seconds,
            tokens_per_s=(records[-1].tokens - self._begin[1]) / seconds,
            answer_tokens_per_s=sum(record.answer_tokens for record in records) / seconds,
            tiles_per_s=sum(record.images for record in records) / seconds,
            flops_per_s=flops,
            mfu=flops / (run.peak * world()),
            mfu_datasheet=None if listed is None else flops / (listed * world()),
            waiting=sum(record.wait for record in records) / seconds,
            padding=sum(record.padding for record in records) / len(records),
            peak_bytes=self._memory.bytes(),
        )


def _stage_run(
    recipe: Recipe,
    index: int,
    bundle: ModelBundle,
    data: BenchData,
    *,
    device: torch.device,
    peak: float,
) -> StageRun:
    stage, model = recipe.stages[index], bundle.mllm
    freeze(model, stage)
    objectives = make_objectives(list(stage.objectives), device=device)
    loader_config = make_loader_config(
        recipe, index, {name: len(source) for name, source in data.sources.items()}
    )
    return StageRun(
        recipe=recipe,
        index=index,
        # Nothing is written: no callback here has anything to keep.
        folder=RunFolder(Path()),
        bundle=bundle,
        objectives=objectives,
        optimizer=make_optimizer(model, objectives.values(), stage),
        loader=Loader(data.sources, data.costs, data.processor, loader_config),
        device=device,
        target=float(_ENDLESS),
        flops=flops_model(model, language_runs=any(o.needs_logits for o in objectives.values())),
        peak=peak,
    )


def _shortened(recipe: Recipe, packs: int) -> Recipe:
    """The recipe with endless stages of steps that one device can take."""
    stages = []
    for stage in recipe.stages:
        data = stage.data
        if isinstance(data, dict):
            # A source that may be read once only would end the stage within the warm-up.
            data = {name: p.model_copy(update={"epochs": None}) for name, p in data.items()}
        change = {
            "length": Length(tokens=_ENDLESS),
            "global_batch": min(stage.global_batch, packs),
            "data": data,
        }
        stages.append(stage.model_copy(update=change))
    return recipe.model_copy(update={"stages": stages})
