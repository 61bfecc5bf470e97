"""The loop knows time; objectives know loss, callbacks know side effects."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence
from itertools import chain

import torch

from sailvit.core.batch import Batch, Step
from sailvit.core.errors import SailvitError
from sailvit.core.seeding import derive_seed
from sailvit.distributed.processes import as_one, rank, sum_counts, sum_gradients, sum_values, world
from sailvit.distributed.sharding import clip_gradients
from sailvit.training.optim.optimizer import set_rate
from sailvit.training.stages.callback import Callback
from sailvit.training.stages.micro_batch import shared_loss
from sailvit.training.stages.prepare_step import prepare_step
from sailvit.training.stages.stage_run import StageRun, StepRecord


def run_stage(run: StageRun, callbacks: Sequence[Callback]) -> None:
    """Train one stage to its end, or until a callback asks to stop."""
    for callback in callbacks:
        callback.stage_started(run)
    began = time.perf_counter()
    # A run stopped after its stage's last step resumes with nothing left to do.
    for step in () if run.finished else _agreed_steps(run):
        arrived = time.perf_counter()
        record = train_step(run, step, began, arrived)
        for callback in callbacks:
            callback.step_ended(run, record)
        if run.stop or run.finished:
            break
        began = time.perf_counter()
    for callback in callbacks:
        callback.stage_ended(run)


def _agreed_steps(run: StageRun) -> Iterator[Step]:
    """The loader's steps. An error that stops one process's loader is raised by all of them,
    after the same step.

    Otherwise the others would wait in their next all-reduce, and no state could be saved before
    the run stops.
    """
    if world() == 1:
        yield from run.loader
        return
    steps = iter(run.loader)
    while True:
        step, problem = None, None
        try:
            step = next(steps, None)
        except SailvitError as error:
            problem = error
        if sum_counts([int(problem is not None)], run.device)[0]:
            with as_one():
                if problem is not None:
                    raise problem
        if step is None:
            return
        yield step


def train_step(run: StageRun, step: Step, began: float, arrived: float) -> StepRecord:
    """One optimizer step over the whole global batch; `began` and `arrived` are clock readings
    around the loader.
    """
    # Counted before they move: on a GPU every number asked for waits until all that was started
    # before is done.
    counts = _global_counts(run, step.batches)
    batches = [batch.to(run.device) for batch in step.batches]
    samples, tokens = run.samples + counts["samples"], run.tokens + counts["tokens"]
    # The rate belongs to the middle of the step, so that the first one already moves and the
    # last is not zero.
    done = (run.share_done(run.samples, run.tokens) + run.share_done(samples, tokens)) / 2
    rates = set_rate(run.optimizer, run.rate(done))
    # Dropout draws from the global generator; seeded by step, a resumed run draws the same.
    # Each rank has its own, since equal noise on all would not average out.
    torch.manual_seed(derive_seed(run.recipe.seed, "dropout", run.index, run.step, rank()))
    losses = accumulate(run, batches, counts)
    trained = [p for group in run.optimizer.param_groups for p in group["params"]]
    _sum_gradients(run, trained, counts)
    grad_norm = clip_gradients(trained, run.stage.optim.clip)
    # Losses and norm are global, so every process comes to the same answer.
    skipped = not all(map(math.isfinite, (grad_norm, *losses.values())))
    if not skipped:
        run.updating = True
        run.optimizer.step()
        run.updating = False
    run.optimizer.zero_grad(set_to_none=True)
    run.took(step, samples, tokens, skipped=skipped)
    seconds = time.perf_counter() - began
    run.seconds += seconds
    return StepRecord(
        stage=run.stage.name,
        stage_index=run.index,
        step=run.step,
        samples=samples,
        tokens=tokens,
        done=run.share_done(samples, tokens),
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
        mfu=_flops(run, counts) / (seconds * run.peak * world()),
    )


def accumulate(run: StageRun, batches: Sequence[Batch], counts: dict[str, int]) -> dict[str, float]:
    """Gradients of the weighted objectives over all micro-batches; returns their means over the
    global batch.
    """
    bf16 = torch.autocast(run.device.type, torch.bfloat16, enabled=run.recipe.precision == "bf16")
    plain = torch.autocast(run.device.type, enabled=False)
    # float64: the logged loss should not depend on how the step is cut into micro-batches.
    sums = {
        name: torch.zeros((), dtype=torch.float64, device=run.device) for name in run.objectives
    }
    # Two blocks, as autocast keeps its copies of weights until it ends, and those made here
    # have no graph to the weights.
    with bf16:
        batches = prepare_step(run, batches)
    with bf16:
        for batch in batches:
            loss, totals = shared_loss(run, batch, counts, last=batch is batches[-1])
            for name, total in zip(sums, totals, strict=True):
                sums[name] += total
            if loss.requires_grad:
                # torch's documentation advises against backward passes under autocast.
                with plain:
                    loss.backward()  # type: ignore[no-untyped-call]
    overall = sum_values([float(total) for total in sums.values()], run.device)
    return {name: total / max(counts[name], 1) for name, total in zip(sums, overall, strict=True)}


def _sum_gradients(
    run: StageRun, trained: list[torch.nn.Parameter], counts: dict[str, int]
) -> None:
    if run.replicas is None:
        sum_gradients(trained)
    if run.model.everywhere and not counts["images"]:
        # No process had an image. Blank tiles left gradients of zero, with which AdamW would
        # still decay the weights and move them by their moments.
        for part in ("tower", "connector"):
            run.model.part(part).zero_grad(set_to_none=True)


def _flops(run: StageRun, counts: dict[str, int]) -> float:
    return run.flops.step(
        tiles=counts["tiles"],
        pictures=counts["images"],
        picture_squares=counts["image_squares"],
        segment_squares=counts["squares"],
        tokens=counts["tokens"],
        answer_tokens=counts["answer_tokens"],
    )


def _squares(lengths: Sequence[int]) -> int:
    """Sum of squares, which attention grows with."""
    return sum(length**2 for length in lengths)


def _global_counts(run: StageRun, batches: Sequence[Batch]) -> dict[str, int]:
    """Counts of the step over all micro-batches and processes; objectives count their own
    units.
    """
    pictures = list(chain.from_iterable(batch.pictures for batch in batches))
    local = {
        "samples": sum(len(batch.sample_ids) for batch in batches),
        "tokens": sum(batch.tokens.numel() - batch.padding for batch in batches),
        "padding": sum(batch.padding for batch in batches),
        "answer_tokens": sum(batch.answer_tokens for batch in batches),
        "tiles": sum(len(batch.tiles) for batch in batches),
        "images": len(pictures),
        "image_squares": _squares(pictures),
        # In int64: in the boundaries' int32 the square of 46,341 tokens overflows.
        "squares": sum(int(batch.boundaries.diff().long().square().sum()) for batch in batches),
    }
    local |= {
        name: sum(objective.units(batch) for batch in batches)
        for name, objective in run.objectives.items()
    }
    return dict(zip(local, sum_counts(list(local.values()), run.device), strict=True))
