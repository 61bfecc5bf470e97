"""The process group: rank, world size, and the few sums and gathers that training needs.

With one process every function is the identity, so callers never ask whether a group exists.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch.distributed.distributed_c10d import _get_default_store
from torch.distributed.tensor import DTensor

from sailvit.core.disk import reason
from sailvit.core.errors import RunError, SailvitError

PATIENCE = timedelta(minutes=30)
"""How long processes wait for each other: one may have to measure all data of a run first."""


@contextmanager
def process_group() -> Iterator[None]:
    """A context inside the process group that a launcher such as torchrun announces.

    A no-op without torchrun. No collective waits longer than `PATIENCE`.
    """
    if dist.is_initialized() or int(os.environ.get("WORLD_SIZE", "1")) == 1:
        yield
        return
    if torch.cuda.is_available():
        # Before NCCL starts, which binds to the current device: without this all ranks take 0.
        torch.cuda.set_device(local_rank())
    dist.init_process_group("nccl" if torch.cuda.is_available() else "gloo", timeout=PATIENCE)
    try:
        yield
    finally:
        dist.destroy_process_group()


def my_device() -> torch.device:
    """The GPU that this process computes on, or the CPU where there is none."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def chosen_device(device: torch.device | str | None) -> torch.device:
    """The device of that name; None: the first GPU, else the CPU.

    Raises:
        RunError: this machine, or this build of torch, has none of that name.
    """
    if device is None:
        return my_device()
    try:
        return torch.empty(0, device=device).device
    except (RuntimeError, AssertionError) as error:
        raise RunError(
            f"there is no device {str(device)!r} here ({reason(error).rstrip('.')}); expected cpu or, where"
            " torch finds a GPU, cuda or cuda:1"
        ) from error


def barrier() -> None:
    """Wait until every process is here; for use before one of them changes files that others
    read.
    """
    if world() > 1:
        dist.barrier()


def arrive(place: str, within: timedelta = PATIENCE) -> None:
    """Wait until every process is at `place`, one of the steps before training.

    Raises:
        RunError: some did not come in time; the message names them, this rank and the place.
    """
    if world() == 1:
        return
    # monitored_barrier names the missing ranks and exists for gloo alone (torch.distributed
    # docs), so a GPU run makes a gloo group for it.
    own = None if dist.get_backend() == "gloo" else dist.new_group(backend="gloo", timeout=within)
    try:
        dist.monitored_barrier(own, timeout=within, wait_all_ranks=True)
    except RuntimeError as error:
        raise RunError(
            f"rank {rank()} of {world()} waited at `{place}` for {within.total_seconds():g} s and not"
            f" all processes came ({str(error).splitlines()[0]}). Look at the output of those that are"
            " missing: one that stopped says why, one that is silent is stuck before"
            f" `{place}`. Then start again; --resume goes on from the last state"
        ) from error
    finally:
        if own is not None:
            dist.destroy_process_group(own)


@contextmanager
def as_one() -> Iterator[None]:
    """A context, without collectives, in which processes fail as one: a SailvitError of one is
    raised by all.

    A process that went on alone would wait for the others in its next sum, and they for it.
    """
    problem: SailvitError | None = None
    try:
        yield
    except SailvitError as error:
        problem = error
    found = [each for each in gather_objects(problem) if each]
    if found:
        raised = problem or found[0]
        raised.together = True
        raise raised


@contextmanager
def alarming(alarm: str) -> Iterator[None]:
    """A context that others wait for without a collective; a SailvitError in it is an alarm."""
    try:
        yield
    except SailvitError:
        if world() > 1:
            _get_default_store().set(alarm, "1")
        raise


def alarmed(alarm: str) -> bool:
    """Whether some process has raised the alarm."""
    return world() > 1 and bool(_get_default_store().check([alarm]))


def broadcast(value: Any) -> Any:
    """Rank 0's `value` on every process."""
    if world() == 1:
        return value
    held = [value]
    dist.broadcast_object_list(held, src=0)
    return held[0]


def gather_objects(value: Any) -> list[Any]:
    """What every process gave, in rank order."""
    if world() == 1:
        return [value]
    held: list[Any] = [None] * world()
    dist.all_gather_object(held, value)
    return held


def rank() -> int:
    """Index of this process, from 0."""
    return dist.get_rank() if dist.is_initialized() else 0


def local_rank() -> int:
    """Index of this process among those of its machine, from 0, as the launcher says."""
    return int(os.environ.get("LOCAL_RANK", "0"))


def world() -> int:
    """Number of processes."""
    return dist.get_world_size() if dist.is_initialized() else 1


def local_world() -> int:
    """Number of processes on this machine, as the launcher says."""
    return int(os.environ.get("LOCAL_WORLD_SIZE", str(world())))


def sum_counts(counts: list[int], device: torch.device) -> list[int]:
    """The counts of all processes, added up; exact for any count below 2^63."""
    if world() == 1:
        return counts
    total = torch.tensor(counts, dtype=torch.int64, device=device)
    dist.all_reduce(total)
    return [int(value) for value in total]


def lowest(count: int, device: torch.device) -> int:
    """The least of the counts of all processes."""
    if world() == 1:
        return count
    least = torch.tensor(count, dtype=torch.int64, device=device)
    dist.all_reduce(least, dist.ReduceOp.MIN)
    return int(least)


def sum_values(values: list[float], device: torch.device) -> list[float]:
    """The values of all processes, added up in double precision."""
    if world() == 1:
        return values
    total = torch.tensor(values, dtype=torch.float64, device=device)
    dist.all_reduce(total)
    return [float(value) for value in total]


def gather_rows(rows: torch.Tensor) -> torch.Tensor:
    """float[N, D] of all processes in rank order, from this one's float[n, D]; n may differ,
    and no gradient passes.
    """
    rows = rows.detach()
    if world() == 1:
        return rows
    # all_gather takes tensors of one shape, so shorter ones are padded and cut again.
    counts = sum_counts(
        [len(rows) if index == rank() else 0 for index in range(world())], rows.device
    )
    padded = rows.new_zeros(max(counts), rows.shape[1])
    padded[: len(rows)] = rows
    gathered = [torch.empty_like(padded) for _ in counts]
    dist.all_gather(gathered, padded)
    return torch.cat([part[:count] for part, count in zip(gathered, counts, strict=True)])


def sum_gradients(parameters: Iterable[torch.nn.Parameter]) -> None:
    """Add up every parameter's gradient over all processes; one without a gradient here takes
    part with zeros.

    A process whose packs hold no image has no gradient for the tower; it must join the sum all
    the same, or the others would wait for it forever. A parameter without a gradient on any
    process keeps none, so that the optimizer lets it rest, as it does with one process. Sharded
    gradients were added up in the backward pass.
    """
    listed = [parameter for parameter in parameters if not isinstance(parameter, DTensor)]
    if world() == 1 or not listed:
        return
    held = sum_counts([int(parameter.grad is not None) for parameter in listed], listed[0].device)
    for parameter, count in zip(listed, held, strict=True):
        if count:
            parameter.grad = (
                torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
            )
            dist.all_reduce(parameter.grad)


def rows_before(count: int, device: torch.device) -> int:
    """Where this process's `count` rows begin in the result of `gather_rows`."""
    counts = sum_counts([count if index == rank() else 0 for index in range(world())], device)
    return sum(counts[: rank()])
