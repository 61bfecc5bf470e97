"""Stops by an error: the newest sound state is saved before the error leaves the trainer."""

from __future__ import annotations

import re
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch

from sailvit.core.errors import ProofError, RunError, SailvitError, TakenOverError
from sailvit.distributed.processes import rank, world
from sailvit.training.callbacks.save_state import SaveState
from sailvit.training.stages.stage_run import StageRun

_NO_MEMORY = "DefaultCPUAllocator"
"""What torch's error says when the machine's own memory is used up; it has no type of its
own."""

_GONE = re.compile("Connection (closed|reset) by peer")
"""What gloo says when a process that it waits for has ended."""


@contextmanager
def stopping_safely(
    run: StageRun, saver: SaveState, announce: Callable[[dict[str, Any]], None]
) -> Iterator[None]:
    """A context for training: before an error that all processes share leaves it, the state is
    saved.

    Raises:
        RunError: there was not enough memory, or another process is gone; any other error
            passes through.
    """
    try:
        yield
    except TakenOverError:
        # The folder is another run's now.
        raise
    except SailvitError as error:
        if world() > 1 and not error.together:
            raise
        announce({"note": _save(run, saver, error)})
        raise
    except (MemoryError, RuntimeError) as error:
        if world() > 1 and _GONE.search(str(error)):
            raise RunError(
                f"another process of this run is gone, as rank {rank()} found in step {run.step + 1} of stage"
                f" {run.stage.name}: its output says why. Continue with --resume"
            ) from error
        if not _out_of_memory(error):
            raise
        told = _no_memory(run, error)
        # With several processes the others wait for this one in an all-reduce, so no state can
        # be saved together.
        if world() == 1:
            # The error's frames still hold the tensors of the failed step, and saving needs
            # memory too.
            traceback.clear_frames(error.__traceback__)
            run.optimizer.zero_grad(set_to_none=True)
            announce({"note": _save(run, saver, told)})
        raise told from None


def _save(run: StageRun, saver: SaveState, error: SailvitError) -> str:
    """Save the state; returns a sentence on the result."""
    try:
        path = saver.save_before_stop(run, error)
    except RunError as problem:
        return f"no state could be saved before this stop: {problem}"
    if path is None:
        return f"nothing was learnt since the last state in {run.folder.state}"
    if isinstance(error, ProofError):
        return f"the state that failed is kept as {path}, which --resume does not take"
    return f"the state is saved in {path}; --resume goes on from there"


def _out_of_memory(error: BaseException) -> bool:
    known = isinstance(error, MemoryError | torch.OutOfMemoryError)
    return known or _NO_MEMORY in str(error)


def _no_memory(run: StageRun, error: BaseException) -> RunError:
    said = str(error).splitlines()[0] if str(error) else type(error).__name__
    effect = (
        "in a new run: in this stage it changes what is learnt"
        if run.stage.micro_batch_counts
        else "the result stays the same"
    )
    return RunError(
        f"stage {run.stage.name} ran out of memory on {run.device} after step {run.step}: {said}\nIt has packs of"
        f" {run.recipe.sequence} tokens, {run.stage.micro_batch} at a time. Lower `micro_batch` ({effect}),"
        " set parallel.recompute, spread the run with parallel.mode=shard, or free memory; `sailvit plan` shows"
        " what each costs"
    )
