"""The loss of one micro-batch, and how processes share its gradients."""

from __future__ import annotations

import torch

from sailvit.core.batch import Batch
from sailvit.distributed.processes import world
from sailvit.distributed.replicas import Replicas
from sailvit.models.structure.parallel import hold_gradients, is_sharded
from sailvit.training.stages.stage_run import StageRun


def shared_loss(
    run: StageRun, batch: Batch, counts: dict[str, int], *, last: bool
) -> tuple[torch.Tensor, list[torch.Tensor]]:
    """The weighted loss float[] of shape (), and each objective's sum float[] without a graph.

    The backward pass of the `last` micro-batch sums the step's gradients over all processes;
    with shards every backward pass does, unless `parallel.reduce` is `last`.
    """
    if world() == 1:
        return _loss(run, batch, counts)
    if is_sharded(run.model):
        hold_gradients(run.model, hold=not last and run.recipe.parallel.reduce == "last")
        return _loss(run, batch, counts)
    if run.replicas is None:
        # One per stage: DistributedDataParallel fixes the parameters whose gradients it sums.
        trained = [p for group in run.optimizer.param_groups for p in group["params"]]
        run.replicas = Replicas(_loss, trained)
    return run.replicas(run, batch, counts, last=last)


def _loss(
    run: StageRun, batch: Batch, counts: dict[str, int]
) -> tuple[torch.Tensor, list[torch.Tensor]]:
    logits = any(objective.needs_logits for objective in run.objectives.values())
    routers = any(objective.needs_routers for objective in run.objectives.values())
    if batch.seed is not None:
        # The tower's dropout is drawn first, so it is the same here as in the earlier pass, in
        # which the language did not run.
        torch.manual_seed(batch.seed)
    activations = run.model(batch, logits=logits, routers=routers)
    totals = []
    # Only the model runs in bf16: losses are sums of thousands of terms.
    with torch.autocast(run.device.type, enabled=False):
        loss = torch.zeros((), device=run.device)
        for name, objective in run.objectives.items():
            total = objective(run.model, activations, batch)
            totals.append(total.detach())
            loss = loss + run.stage.objectives[name] * total / max(counts[name], 1)
    return loss, totals
