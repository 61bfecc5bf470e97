"""The loop: knows time. Objectives know loss, hooks know side effects."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence

import torch

from sailvit.core.batch import Batch, Step
from sailvit.core.errors import DataError
from sailvit.core.seeding import derive_seed
from sailvit.distributed.processes import (
    gathered,
    rank,
    sum_counts,
    sum_gradients,
    sum_values,
    world,
)
from sailvit.distributed.sharding import clip_gradients
from sailvit.training.optim.optimizer import set_rate
from sailvit.training.stages.callback import Hook
from sailvit.training.stages.micro_batch import shared_loss
from sailvit.training.stages.prepare_step import look_ahead
from sailvit.training.stages.stage_run import StageJob, StepRecord


def run_stage(job: StageJob, hooks: Sequence[Hook]) -> None:
    """Train one stage to its end, or until a hook asks to stop."""
    for hook in hooks:
        hook.stage_started(job)
    began = time.perf_counter()
    # A run stopped after its stage's last step resumes with nothing left to do.
    for step in () if job.finished else _agreed_steps(job):
        arrived = time.perf_counter()
        record = train_step(job, step, began, arrived)
        for hook in hooks:
            hook.step_ended(job, record)
        if job.stop or job.finished:
            break
        began = time.perf_counter()
    for hook in hooks:
        hook.stage_ended(job)


def _agreed_steps(job: StageJob) -> Iterator[Step]:
    """The loader's steps. What stops one process's loader is raised by all of them after the same step.

    Otherwise the others would wait for it in their next sum, and no state could be saved before the run stops.
    """
    if world() == 1:
        yield from job.loader
        return
    steps = iter(job.loader)
    while True:
        step, problem = None, None
        try:
            step = next(steps, None)
        except DataError as error:
            problem = error
        if sum_counts([int(problem is not None)], job.device)[0]:
            told = [text for text in gathered(problem and str(problem)) if text]
            raise problem or DataError(told[0])
        if step is None:
            return
        yield step


def train_step(job: StageJob, step: Step, began: float, arrived: float) -> StepRecord:
    """One optimizer step over the whole global batch; `began` and `arrived` are clock readings around the loader."""
    # Counted before they move: on a GPU every number asked for waits until all that was started before is done.
    counts = _global_counts(job, step.batches)
    batches = [batch.to(job.device) for batch in step.batches]
    samples, tokens = job.samples + counts["samples"], job.tokens + counts["tokens"]
    # The rate belongs to the middle of the step, so that the first one already moves and the last is not zero.
    done = (job.share_done(job.samples, job.tokens) + job.share_done(samples, tokens)) / 2
    rates = set_rate(job.optimizer, job.rate(done))
    # Dropout draws from the global generator; seeded by step, a resumed run draws the same.
    torch.manual_seed(derive_seed(job.recipe.seed, "dropout", job.index, job.step, rank()))
    losses = accumulate(job, batches, counts)
    trained = [p for group in job.optimizer.param_groups for p in group["params"]]
    _sum_gradients(job, trained, counts)
    grad_norm = clip_gradients(trained, job.stage.optim.clip)
    # Losses and norm are global, so every process comes to the same answer.
    skipped = not all(map(math.isfinite, (grad_norm, *losses.values())))
    if not skipped:
        job.updating = True
        job.optimizer.step()
        job.updating = False
    job.optimizer.zero_grad(set_to_none=True)
    job.took(step, samples, tokens, skipped=skipped)
    seconds = time.perf_counter() - began
    job.seconds += seconds
    return StepRecord(
        stage=job.stage.name,
        stage_index=job.index,
        step=job.step,
        samples=samples,
        tokens=tokens,
        done=job.share_done(samples, tokens),
        answer_tokens=counts["answer_tokens"],
        images=counts["images"],
        padding=counts["padding"] / max(counts["padding"] + counts["tokens"], 1),
        lr=rates,
        loss=losses,
        grad_norm=grad_norm,
        skipped=skipped,
        seconds=seconds,
        wait=arrived - began,
        samples_per_s=counts["samples"] / seconds,
        answer_tokens_per_s=counts["answer_tokens"] / seconds,
        mfu=_flops(job, counts) / (seconds * job.peak * world()),
    )


def accumulate(job: StageJob, batches: Sequence[Batch], counts: dict[str, int]) -> dict[str, float]:
    """Gradients of the weighted objectives over all micro-batches; returns their means over the global batch."""
    bf16 = torch.autocast(job.device.type, torch.bfloat16, enabled=job.recipe.precision == "bf16")
    plain = torch.autocast(job.device.type, enabled=False)
    sums = {
        name: torch.zeros((), dtype=torch.float64, device=job.device) for name in job.objectives
    }
    # Apart, as what weights are cast to is kept until autocast ends: here without a graph, below with one.
    with bf16:
        batches = look_ahead(job, batches)
    with bf16:
        for batch in batches:
            loss, totals = shared_loss(job, batch, counts, last=batch is batches[-1])
            for name, total in zip(sums, totals, strict=True):
                sums[name] += total
            if loss.requires_grad:
                with plain:
                    loss.backward()  # type: ignore[no-untyped-call]
    overall = sum_values([float(total) for total in sums.values()], job.device)
    return {name: total / max(counts[name], 1) for name, total in zip(sums, overall, strict=True)}


def _sum_gradients(
    job: StageJob, trained: list[torch.nn.Parameter], counts: dict[str, int]
) -> None:
    if job.replicas is None:
        sum_gradients(trained)
    if job.model.everywhere and not counts["images"]:
        # No process had an image: blank tiles left zeros where otherwise there is no gradient, and the optimizer rests.
        for part in ("tower", "connector"):
            job.model.part(part).zero_grad(set_to_none=True)


def _flops(job: StageJob, counts: dict[str, int]) -> float:
    return job.flops.step(
        tiles=counts["images"],
        segment_squares=counts["squares"],
        tokens=counts["tokens"],
        answer_tokens=counts["answer_tokens"],
    )


def _global_counts(job: StageJob, batches: Sequence[Batch]) -> dict[str, int]:
    """What the step holds, over all micro-batches and processes; objectives count their own units."""
    local = {
        "samples": sum(len(batch.sample_ids) for batch in batches),
        "tokens": sum(batch.tokens.numel() - batch.padding for batch in batches),
        "padding": sum(batch.padding for batch in batches),
        "answer_tokens": sum(batch.answer_tokens for batch in batches),
        "images": sum(len(batch.tiles) for batch in batches),
        "squares": sum(int(batch.boundaries.diff().long().square().sum()) for batch in batches),
    }
    local |= {
        name: sum(objective.units(batch) for batch in batches)
        for name, objective in job.objectives.items()
    }
    return dict(zip(local, sum_counts(list(local.values()), job.device), strict=True))
