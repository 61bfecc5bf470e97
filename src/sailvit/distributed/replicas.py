"""Gradients of replicas, summed over processes by torch while the backward pass still runs."""

from collections.abc import Callable, Iterable
from contextlib import nullcontext
from typing import Any

import torch
import torch.distributed as dist
from torch import nn
from torch.futures import Future
from torch.nn.parallel import DistributedDataParallel


class Replicas:
    """A loss whose gradients become the sum over all processes, each of which holds all weights.

    DistributedDataParallel sends them in buckets, each as soon as the backward pass has filled
    it. A weight that some processes do not use, such as a tower's where packs hold no image,
    counts as zeros there; one that none uses keeps no gradient, so that the optimizer lets it
    rest, as it does with one process. The buckets take as much memory as the gradients.
    """

    def __init__(
        self,
        loss: Callable[..., tuple[torch.Tensor, list[torch.Tensor]]],
        trained: Iterable[nn.Parameter],
        bucket_mib: int | None = None,
    ) -> None:
        self._engine = DistributedDataParallel(
            _Loss(loss, trained),
            find_unused_parameters=True,
            gradient_as_bucket_view=True,
            bucket_cap_mb=bucket_mib,
            # Replicas hold the same weights already.
            init_sync=False,
        )
        self._engine.register_comm_hook(None, _add_up)
        # Freed after the engine's reducer, as attributes are in the order they were set. Where
        # the reducer holds the last reference, it destroys the group with the interpreter's lock
        # held and waits for the group's thread, which may wait for that lock to end our hook.
        self._engine.last_to_go = dist.group.WORLD  # type: ignore[assignment]

    def __call__(self, *given: Any, last: bool) -> tuple[torch.Tensor, list[torch.Tensor]]:
        """The loss float[] of shape () and what comes with it.

        After the backward pass of the `last` micro-batch of a step gradients are those of all
        processes and micro-batches; passes before it send nothing.
        """
        with nullcontext() if last else self._engine.no_sync():
            found: tuple[torch.Tensor, list[torch.Tensor]] = self._engine(*given)
        return found


class _Loss(nn.Module):
    """A loss as a module of exactly what trains, so that no frozen weight and no buffer is sent."""

    def __init__(
        self,
        loss: Callable[..., tuple[torch.Tensor, list[torch.Tensor]]],
        trained: Iterable[nn.Parameter],
    ) -> None:
        super().__init__()
        self.loss = loss
        self.trained = nn.ParameterList(trained)
        # Belongs to no optimizer. A process whose packs leave no gradient, as text alone before
        # a frozen language does, still needs a backward pass to take part in the all-reduce.
        self.anchor = nn.Parameter(torch.zeros((), device=self.trained[0].device))

    def forward(self, *given: Any) -> tuple[torch.Tensor, list[torch.Tensor]]:
        """The loss float[], of shape (), always with a graph; and what comes with it."""
        loss, rest = self.loss(*given)
        return loss if loss.requires_grad else loss + 0.0 * self.anchor, rest


# DistributedDataParallel compares these annotations with types, so this file cannot import
# annotations from __future__, which makes them strings.
def _add_up(
    state: None,
    bucket: dist.GradBucket,  # type: ignore[name-defined]
) -> Future[torch.Tensor]:
    """Sums where the engine would take means: losses are divided by global counts already."""
    del state
    work = dist.all_reduce(bucket.buffer(), async_op=True)
    summed: Future[torch.Tensor] = work.get_future().then(lambda done: done.value()[0])
    return summed
