"""The loss of one micro-batch, and how processes share its gradients."""

from __future__ import annotations

import torch

from sailvit.core.batch import Batch
from sailvit.distributed.processes import world
from sailvit.distributed.replicas import Replicas
from sailvit.models.structure.parallel import hold_gradients, is_sharded
from sailvit.training.stages.stage_run import StageJob


def shared_loss(
    job: StageJob, batch: Batch, counts: dict[str, int], *, last: bool
) -> tuple[torch.Tensor, list[torch.Tensor]]:
    """The weighted loss float[] of shape (), and each objective's sum float[] without a graph.

    The backward pass of the `last` micro-batch adds up the step's gradients over all processes;
    with shards, that of every one does unless the recipe says otherwise.
    """
    if world() == 1:
        return _loss(job, batch, counts)
    if is_sharded(job.model):
        hold_gradients(job.model, hold=not last and job.recipe.parallel.reduce == "last")
        return _loss(job, batch, counts)
    if job.replicas is None:
        trained = [p for group in job.optimizer.param_groups for p in group["params"]]
        job.replicas = Replicas(_loss, trained)
    return job.replicas(job, batch, counts, last=last)


def _loss(
    job: StageJob, batch: Batch, counts: dict[str, int]
) -> tuple[torch.Tensor, list[torch.Tensor]]:
    logits = any(objective.needs_logits for objective in job.objectives.values())
    routers = any(objective.needs_routers for objective in job.objectives.values())
    activations = job.model(batch, logits=logits, routers=routers)
    totals = []
    with torch.autocast(job.device.type, enabled=False):
        loss = torch.zeros((), device=job.device)
        for name, objective in job.objectives.items():
            total = objective(job.model, activations, batch)
            totals.append(total.detach())
            loss = loss + job.stage.objectives[name] * total / max(counts[name], 1)
    return loss, totals
